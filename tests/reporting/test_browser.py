import json

import pytest

from dti_geom.artifacts import from_json
from dti_geom.probes import Norms

pytestmark = pytest.mark.browser

PAPER = "getComputedStyle(document.body).backgroundColor"
BAR = "getComputedStyle(document.querySelector('.plot .bars path')).fill"


def hovers(page, selector, place=0):
    """The hover text that appears over the middle of an element."""
    element = page.locator(selector).nth(place)
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".hoverlayer .hovertext")
    return page.locator(".hoverlayer .hovertext").first.text_content()


def test_the_page_opens_offline_and_without_complaint(page, page_file):
    assert page.locator(".plot .main-svg").count() > 0
    assert [event for event in page.events if not event.startswith(("data:", "blob:"))] == [page_file.as_uri()]


def test_hovering_the_histogram_shows_range_count_and_example_tokens(page):
    text = hovers(page, "#norms .bars path", place=5)
    for part in ("norm 0.3900 to 0.4000", "250 tokens", "word5"):
        assert part in text


def test_pointing_at_a_score_shows_its_picture(page, report):
    assert "text 0.880" in hovers(page, "#evaluation .points path", place=2)
    shown = page.locator("#evaluation img.pointed")
    assert shown.get_attribute("src") == "data:image/png;base64," + report.evaluation.pictures[0].png
    hovers(page, "#norms .bars path", place=5)
    assert page.locator("img.pointed").count() == 0


def test_hostile_tokens_are_text_in_tables_labels_and_hover(page, hostile):
    assert page.locator("#norms td", has_text=hostile[0]).count() > 0
    assert page.locator("h1").text_content() == hostile[0]
    labels = page.locator("#norms .annotation-text").all_text_contents()
    assert any("<script>alert(1)" in label for label in labels)
    assert "<script>alert(1)" in hovers(page, "#norms .bars path", place=5)
    assert page.locator("img:not([src^='data:image/png;base64,'])").count() == 0
    assert not [event for event in page.events if event == "1"]


def test_the_theme_toggle_recolours_page_and_plots(open_page):
    page = open_page(scheme="light")
    light = page.evaluate(PAPER), page.evaluate(BAR)
    page.get_by_role("button", name="Dark theme").click()
    dark = page.evaluate(PAPER), page.evaluate(BAR)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.get_by_role("button", name="Light theme").click()
    assert (page.evaluate(PAPER), page.evaluate(BAR)) == light


def test_the_page_follows_the_system_theme(open_page):
    page = open_page(scheme="dark")
    dark = page.evaluate(PAPER), page.evaluate(BAR)
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{BAR} !== '{dark[1]}'")
    assert page.evaluate(PAPER) != dark[0]


def test_printing_uses_the_light_colours(open_page):
    page = open_page(scheme="dark")
    dark = page.evaluate(BAR)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(BAR) != dark
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(BAR) == dark


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_sticks_out_of_the_page(open_page, width):
    page = open_page(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for plot in page.locator(".plot").all():
        assert plot.evaluate("plot => plot.querySelector('svg').clientWidth <= plot.clientWidth")


def test_the_data_button_saves_the_result(page, report):
    with page.expect_download() as download:
        page.locator("[data-download=norms]").click()
    assert download.value.suggested_filename == "norms.json"
    data = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert from_json(Norms, data) == report.norms


def test_the_keyboard_reaches_links_buttons_and_scrolling_tables(page):
    reached = set()
    page.locator("nav a").first.focus()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"theme", "scroll"} <= reached
    assert page.locator(".scroll:not([tabindex])").count() == 0  # not every browser makes them reachable itself
