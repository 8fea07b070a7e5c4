import csv
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dti_geom.files import to_json
from dti_geom.reporting.registry import SECTIONS, section_data
from dti_geom.reporting.report import Report

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]  # (width, scheme) to a page

PAPER = "getComputedStyle(document.body).backgroundColor"
BAR = "getComputedStyle(document.querySelector('.plot .bars path')).fill"


def hovers(page: Any, selector: str, place: int = 0) -> Any:
    """Point at the middle of an element and return the hover text that appears."""
    element = page.locator(selector).nth(place)
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".hoverlayer .hovertext")
    return page.locator(".hoverlayer .hovertext").first.text_content()


def test_the_page_opens_offline_and_without_complaint(page: Any, page_file: Path) -> None:
    assert page.locator(".plot .main-svg").count() > 0
    assert [event for event in page.events if not event.startswith(("data:", "blob:"))] == [
        page_file.as_uri()
    ]


def test_hovering_the_histogram_shows_range_count_and_example_tokens(page: Any) -> None:
    text = hovers(page, "#norms .bars path", place=5)
    for part in ("norm 0.3900 to 0.4000", "250 tokens", "word5"):
        assert part in text


@pytest.mark.parametrize(("format_", "start"), [("SVG", b"<svg"), ("PNG", b"\x89PNG")])
def test_a_plot_is_saved_as_a_picture(page: Any, format_: str, start: bytes) -> None:
    plot = page.locator("#norms .plot").first
    plot.scroll_into_view_if_needed()
    plot.hover()
    with page.expect_download() as download:
        plot.locator(f"[data-title='Save as {format_}']").click()
    assert download.value.suggested_filename == f"norms-1.{format_.lower()}"
    assert Path(download.value.path()).read_bytes().startswith(start)


def test_pointing_at_a_score_shows_its_picture(page: Any, report: Report) -> None:
    evaluation: Any = report.results["evaluation"]
    assert "text 0.880" in hovers(page, "#evaluation .points path", place=2)
    shown = page.locator("#evaluation img.pointed")
    assert shown.get_attribute("src") == "data:image/png;base64," + evaluation.pictures[0].png
    assert page.locator("#evaluation .strip img").first.get_attribute("src") == shown.get_attribute(
        "src"
    )
    hovers(page, "#norms .bars path", place=5)
    assert page.locator("img.pointed").count() == 0


def test_hostile_tokens_are_text_in_tables_labels_and_hover(
    page: Any, hostile: tuple[str, ...]
) -> None:
    assert page.locator("#norms td", has_text=hostile[0]).count() > 0
    assert page.locator(".overline bdi").text_content() == hostile[0]
    labels = page.locator("#norms .annotation-text").all_text_contents()
    assert any("<script>alert(1)" in label for label in labels)
    assert "<script>alert(1)" in hovers(page, "#norms .bars path", place=5)
    assert page.locator("img:not([src^='data:image/png;base64,'])").count() == 0
    assert not [event for event in page.events if event == "1"]


def test_long_tables_are_searched_and_sorted(page: Any) -> None:
    search = page.locator("input.search").first
    table = search.locator("xpath=following-sibling::*[1]//table")
    shown = table.locator("tbody tr:visible")
    count = shown.count()
    word = table.locator("tbody td").first.text_content()
    search.fill(word)
    assert 0 < shown.count() < count
    search.fill("")
    head = table.locator("th.n").first
    place = head.evaluate("head => head.cellIndex")
    cells = (
        f"table => [...table.rows].slice(1).map(row => numberIn(row.cells[{place}].textContent))"
    )
    for direction in (-1, 1):
        head.click()
        values = table.evaluate(cells)
        assert values == sorted(values, key=lambda value: direction * value)
    assert head.get_attribute("aria-sort") == "ascending"


def test_rows_of_pictures_are_searched_and_put_in_another_order(open_page: OpenPage) -> None:
    page = open_page()
    tools = page.locator("#evaluation .tools")
    rows = tools.locator("xpath=following-sibling::*[1]//tbody/tr")
    count = rows.count()
    for place in (3, 1, 0):
        tools.locator("select").select_option(index=place)
        values = [float(row.get_attribute("data-places").split()[place]) for row in rows.all()]
        assert values == sorted(values)
    page.locator("#evaluation .tools .search").fill("no such prompt")
    assert not any(row.is_visible() for row in rows.all())
    tools.locator(".search").fill("")
    assert all(row.is_visible() for row in rows.all())
    assert count == rows.count() > 12  # from 13 rows on other tables get a search of their own


def test_details_are_folded_on_the_screen_and_unfolded_on_paper(open_page: OpenPage) -> None:
    page = open_page()
    details = page.locator("#evaluation details").first
    table = details.locator("table")
    assert not table.is_visible()
    details.locator("summary").press("Enter")
    assert table.is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0


def test_a_token_in_a_table_is_shown_on_the_map_by_a_click(open_page: OpenPage) -> None:
    page = open_page()
    token = page.locator("section:not(#map) .on-map:visible").first
    label = token.text_content()
    token.click()
    page.wait_for_function("location.hash.includes('find=')")
    assert page.locator(".map .card h4").first.text_content() == label
    assert page.locator(".map").first.bounding_box()["y"] < 900


def test_numbers_in_cells_are_sorted_by_value(page: Any) -> None:
    texts = ["×2.45", "1,234", "−3.5", "1.2×10⁻⁵", "2×10³ s", "–"]
    values = page.evaluate("texts => texts.map(numberIn)", texts)
    assert values[:5] == pytest.approx([2.45, 1234, -3.5, 1.2e-5, 2000])
    assert values[5] < -1e300 if values[5] is not None else True


def test_the_theme_toggle_recolours_page_and_plots(open_page: OpenPage) -> None:
    page = open_page(scheme="light")
    light = page.evaluate(PAPER), page.evaluate(BAR)
    page.get_by_role("button", name="Dark theme").click()
    dark = page.evaluate(PAPER), page.evaluate(BAR)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.get_by_role("button", name="Light theme").click()
    assert (page.evaluate(PAPER), page.evaluate(BAR)) == light


def test_the_page_follows_the_system_theme(open_page: OpenPage) -> None:
    page = open_page(scheme="dark")
    dark = page.evaluate(PAPER), page.evaluate(BAR)
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{BAR} !== '{dark[1]}'")
    assert page.evaluate(PAPER) != dark[0]


def test_printing_uses_the_light_colours_and_the_width_of_a_sheet(open_page: OpenPage) -> None:
    page = open_page(width=718, scheme="dark")  # A4 between margins of 1 cm, in CSS pixels
    dark = page.evaluate(BAR)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(BAR) != dark
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(BAR) == dark


# The labels of a plot, each with its text and box, and the box of the whole plot, in pixels.
LABELS = """plot => {
    const box = element => {
        const { left, top, right, bottom } = element.getBoundingClientRect();
        return [left, top, right, bottom];
    };
    const kinds = ".xtick text, .ytick text, .annotation-text, [class^=g-] text";
    const labels = [...plot.querySelectorAll(kinds)];
    return { whole: box(plot), labels: labels.map(label => [label.textContent, ...box(label)]) };
}"""


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_sticks_out_and_no_label_covers_another(open_page: OpenPage, width: int) -> None:
    page = open_page(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for summary in page.locator("summary").all():
        summary.press("Enter")
    page.wait_for_function("document.querySelectorAll('details:not([open])').length === 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for plot in page.locator(".plot").all():
        name = plot.get_attribute("aria-label")[:60]
        assert plot.evaluate("plot => plot.querySelector('svg').clientWidth <= plot.clientWidth"), (
            name
        )
        seen = plot.evaluate(LABELS)
        left, top, right, bottom = seen["whole"]
        for text, *box in seen["labels"]:
            assert min(box[0] - left, box[1] - top, right - box[2], bottom - box[3]) > -3, (
                name,
                text,
            )
        for (text, *first), (other, *second) in itertools.combinations(seen["labels"], 2):
            wide = min(first[2], second[2]) - max(first[0], second[0])
            high = min(first[3], second[3]) - max(first[1], second[1])
            assert wide < 3 or high < 3, (name, text, other)


def hidden(page: Any, section: str) -> Any:
    """Return, for each curve of a section's first plot, whether it is hidden."""
    return page.evaluate(
        f"document.querySelector('#{section} .plot').data.map(trace => trace.visible === false)"
    )


@pytest.mark.parametrize("section", ["attenuation", "training", "interpolation"])
def test_a_key_hides_its_curves_and_shows_them_again(open_page: OpenPage, section: str) -> None:
    page = open_page()
    key = page.locator(f"#{section} .key").first
    assert not any(hidden(page, section))
    key.locator("text").click()
    assert any(hidden(page, section))
    assert not all(hidden(page, section))
    assert key.get_attribute("aria-pressed") == "false"
    key.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelector('#{section} .key').ariaPressed === 'true'")
    assert not any(hidden(page, section))


@pytest.mark.parametrize("width", [375, 1280])
def test_the_contents_stay_in_view_and_say_where_one_is(open_page: OpenPage, width: int) -> None:
    page = open_page(width)
    here = page.locator("nav a[aria-current='location']")
    for name in ("attention", "evaluation", "norms"):
        page.evaluate(f"document.getElementById('{name}').scrollIntoView()")
        page.wait_for_function(f"document.querySelector('nav a[aria-current]')?.hash === '#{name}'")
        assert here.count() == 1
        box, link = page.locator("nav").bounding_box(), here.bounding_box()
        assert box["y"] == pytest.approx(0, abs=1)
        assert box["height"] < 60  # one line, also on a phone
        assert box["x"] - 1 <= link["x"] < box["x"] + box["width"]
        heading = page.locator(f"#{name}-title").bounding_box()
        assert heading["y"] >= box["y"] + box["height"]  # not below the contents


def test_the_slider_moves_its_picture(open_page: OpenPage) -> None:
    page = open_page()
    row = page.locator("#interpolation tr", has=page.locator(".slide")).first
    page.evaluate(
        "document.querySelectorAll('.still img')"
        ".forEach((image, place) => { image.src += '#' + place; })"
    )
    row.locator("input").focus()
    for place in (1, 2):
        page.keyboard.press("ArrowRight")
        assert row.locator(".slide img").get_attribute("src") == row.locator(".still img").nth(
            place
        ).get_attribute("src")
        # The other rows of its table move along.
        sliders = row.locator("xpath=ancestor::table").locator(".slide input")
        assert sliders.count() > 1
        assert {slider.input_value() for slider in sliders.all()} == {str(place)}


# Where the line of the slider stands on each plot that has one, in the units of its axis.
LINES = """[...document.querySelectorAll('.plot')].flatMap((plot) =>
    plot.layout.shapes.filter(({ name }) => name === 'magnitude')
    .map(({ x0 }) => x0 / plot.layout.meta.magnitude.mean))"""


def test_one_slider_moves_pictures_and_a_line_through_the_plots(open_page: OpenPage) -> None:
    page = open_page(scheme="light")
    slider = page.locator(".dial input")
    shown = page.locator(".dialled img:visible")
    assert slider.get_attribute("aria-valuetext") == "×1"  # it starts at the mean norm
    slider.focus()
    for key, label, multiple in (("ArrowRight", "×8", 8), ("Home", "×0.5", 0.5)):
        page.keyboard.press(key)
        assert page.locator(".dial output").text_content() == label
        assert slider.get_attribute("aria-valuetext") == label
        alts = [picture.get_attribute("alt") for picture in shown.all()]
        assert len(alts) == page.locator(".dialled figure").count()
        assert all(alt.endswith(f"at {label}") for alt in alts)
        lines = page.evaluate(LINES)
        assert len(lines) > 5
        assert lines == pytest.approx([multiple] * len(lines))
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate(LINES) == pytest.approx(lines)  # they are not lost, nor doubled


def test_the_slider_stays_beside_the_plots_that_follow_it(open_page: OpenPage) -> None:
    page = open_page()
    dial = page.locator(".dial")
    afloat = "document.querySelector('.dial').classList.contains('afloat')"
    for place, expected in (("#attenuation .plot", True), (".dialled", False), ("#sweep", False)):
        page.evaluate(f"document.querySelector('{place}').scrollIntoView()")
        page.wait_for_function(f"{afloat} === {str(expected).lower()}")
        if expected:
            box = dial.bounding_box()
            assert box["y"] + box["height"] == pytest.approx(page.viewport_size["height"], abs=1)


def test_both_buttons_download_a_file(open_page: OpenPage, report: Report) -> None:
    page = open_page()
    files = {}
    for button in ("data-download", "data-tables"):
        with page.expect_download() as download:
            page.locator(f"[{button}=norms]").click()
        file = download.value
        files[file.suggested_filename] = file.path().read_text(encoding="utf-8")
    assert json.loads(files["norms.json"]) == json.loads(
        json.dumps(to_json(report.results["norms"]))
    )
    assert files["norms.csv"].startswith("table,")


def saved(page: Any, button: str) -> Any:
    """Return name and text of the file that a button would download.

    The page's own `save` is replaced: a browser blocks a page that downloads dozens of files.
    """
    # A function as the last value would be called by Playwright.
    page.evaluate("window.save = (name, type, text) => { window.saved = [name, text]; }; null")
    page.evaluate("window.saved = null")
    page.locator(button).click()
    page.wait_for_function("window.saved")  # it is unpacked first
    return page.evaluate("window.saved")


@pytest.mark.parametrize("section", [name for name in SECTIONS if name != "painted"])
def test_the_data_button_saves_the_result(page: Any, report: Report, section: str) -> None:
    name, text = saved(page, f"[data-download={section}]")
    assert name == f"{section}.json"
    assert json.loads(text) == json.loads(
        json.dumps(to_json(section_data(report.results[section])))
    )


def saved_tables(page: Any, section: str) -> list[dict[str, str]]:
    """Return the rows that the button for tables saves, by column."""
    name, text = saved(page, f"[data-tables={section}]")
    assert name == f"{section}.csv"
    head, *rows = csv.reader(io.StringIO(text, newline=""))
    assert len(set(head)) == len(head)
    assert {len(row) for row in rows} == {len(head)}
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_table_button_saves_every_table_of_every_section(page: Any) -> None:
    for button in page.locator("[data-tables]").all():
        section = button.get_attribute("data-tables")
        shown = page.locator(f"#{section} .scroll:not(.strip) tbody tr").count()
        assert len(saved_tables(page, section)) == shown > 0


def test_saved_tables_hold_plain_numbers_and_any_token(
    page: Any, hostile: tuple[str, ...], report: Report
) -> None:
    rows = saved_tables(page, "norms")
    learned = [row for row in rows if row["table"].endswith("Learned vectors")]
    assert [row["token"] for row in learned[1:5]] == list(hostile[:4])
    assert float(learned[0]["norm"]) == pytest.approx(4.1)
    assert float(learned[0]["percentile, %"]) == 99.5
    measured = saved_tables(page, "attenuation")
    assert all(float(row["by position"]) <= 1 for row in measured if row["by position"])


def test_the_keyboard_reaches_links_buttons_and_scrolling_tables(page: Any) -> None:
    reached = set()
    page.locator("nav a").first.focus()
    for key in ["Shift+Tab", *["Tab"] * 60]:
        page.keyboard.press(key)
        reached.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.getAttribute('class')"
            )
        )
    assert {"theme", "scroll"} <= reached
    # Not every browser makes scrolling tables reachable by itself.
    assert page.locator(".scroll:not([tabindex])").count() == 0
