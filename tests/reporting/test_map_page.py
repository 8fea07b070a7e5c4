"""The map of a page: search, neighbours, selection, histogram and address, in a real browser."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

OpenMap = Callable[..., Any]  # (address, width) to a page


@pytest.fixture(scope="module")
def map_file(make_map: Any, hostile: tuple[str, ...], tmp_path_factory: Any) -> Path:
    from dti_geom.probes.measuring import Measurement
    from dti_geom.reporting.renderers.page import page_html
    from dti_geom.reporting.report import Report

    result = make_map(hostile, ("<x>",))
    path: Path = tmp_path_factory.mktemp("map") / "index.html"
    report = Report("mini", {"map": Measurement("map", "mini", (result,), ())})
    path.write_text(page_html(report), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def open_map(chromium: Any, map_file: Path) -> Iterator[OpenMap]:
    pages: list[Any] = []

    def open_(address: str = "", width: int = 1280) -> Any:
        page = chromium.new_page(viewport={"width": width, "height": 1300})
        page.set_default_timeout(90_000)
        page.events = []
        page.on("pageerror", lambda error: page.events.append(str(error)))
        page.on("dialog", lambda dialog: (page.events.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: page.events.append(request.url))
        page.goto(map_file.as_uri() + address)
        page.wait_for_selector("html[data-drawn]")
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def opened(open_map: OpenMap) -> Any:
    """Open the map once: a page takes a second to open."""
    return open_map()


@pytest.fixture
def page(opened: Any) -> Any:
    """Show the whole map, with nothing selected."""
    opened.mouse.move(0, 0)
    # Again and again: a hover of the last test may be told only after the first reset.
    opened.wait_for_function(
        """() => {
            history.replaceState(null, '', '#map=0&view=-1,5,-1,5');
            dispatchEvent(new Event('hashchange'));  // also where the address is the same already
            return !document.querySelector('.selected tbody')
                && !document.querySelector('.card h4')
                && !document.querySelector('.bars-of-norms').data[1].y.length;
        }""",
        polling=100,
    )
    return opened


def at(page: Any, x: float, y: float, plot: str = ".cloud") -> tuple[float, float]:
    """Return where a point of a plot is on the screen."""
    spot = page.evaluate(
        """([x, y, name]) => {
            const plot = document.querySelector(name);
            const { left, top } = plot.getBoundingClientRect();
            const { xaxis, yaxis } = plot._fullLayout;
            return [left + xaxis._offset + xaxis.l2p(x), top + yaxis._offset + yaxis.l2p(y)];
        }""",
        [x, y, plot],
    )
    return spot[0], spot[1]


def view(page: Any) -> list[float]:
    """Return the ranges of the map's axes."""
    ranges: list[float] = page.evaluate(
        "(({ xaxis, yaxis }) => [...xaxis.range, ...yaxis.range])"
        "(document.querySelector('.cloud').layout)"
    )
    return ranges


def strangers(page: Any) -> list[str]:
    """Return errors, dialogs and requests that leave the page."""
    return [event for event in page.events if not event.startswith(("file:", "data:", "blob:"))]


def neighbors_shown(page: Any) -> list[str]:
    shown: list[str] = page.locator(".card li").all_text_contents()
    return shown


def test_searching_shows_a_token_and_its_true_neighbours(page: Any) -> None:
    page.locator(".tools .search").fill("WORD3")
    page.keyboard.press("Enter")
    assert page.locator(".card h4").text_content() == "word3"
    assert neighbors_shown(page) == ["word4 0.900", "word5 0.800", "word6 0.700"]
    page.locator(".card button").first.click()
    assert page.locator(".card h4").text_content() == "word4"
    page.locator(".tools .search").fill("nowhere")
    assert "no such token" in page.locator(".matches").text_content()


def test_pointing_at_a_point_shows_its_stored_neighbours_and_joins_them(page: Any) -> None:
    page.mouse.move(*at(page, 3, 3))  # the 18th token, after seven hostile ones: word11
    page.wait_for_function("document.querySelector('.card h4')?.textContent === 'word11'")
    assert neighbors_shown(page) == ["word12 0.900", "word13 0.800", "word14 0.700"]
    lines = page.evaluate(
        "document.querySelector('.cloud').layout.shapes.filter(({ type }) => type === 'line')"
        ".map(({ x1, y1 }) => [x1, y1])"
    )
    assert lines == [[4, 3], [0, 4], [1, 4]]
    page.mouse.move(*at(page, 2.5, 2.5))  # the first checkpoint of the learned vector
    page.wait_for_function("document.querySelector('.card h4')?.textContent === '<x>'")
    assert "after 100 updates" in page.locator(".card").text_content()


def lasso(page: Any, low: tuple[float, float], high: tuple[float, float]) -> None:
    """Draw a rectangle by hand around an area."""
    mode = page.get_by_role("button", name="Select an area")
    if mode.get_attribute("aria-pressed") == "false":
        mode.click()
    corners = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1]), low]
    page.mouse.move(*at(page, *corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*at(page, *corner), steps=12)
    page.mouse.up()
    page.wait_for_selector(".selected tbody tr")


def tokens_selected(page: Any) -> list[str]:
    shown: list[str] = page.locator(".selected tbody td:nth-child(2)").all_text_contents()
    return shown


def test_an_area_drawn_by_hand_becomes_a_table_and_a_file(page: Any) -> None:
    lasso(page, (1.5, 2.6), (3.6, 4.5))
    assert tokens_selected(page) == ["230", "220", "180", "170"]
    assert "4 tokens selected, mean norm 21.00" in page.locator(".selected").text_content()
    heights = page.evaluate("document.querySelector('.bars-of-norms').data[1].y")
    assert sum(heights) == 4
    page.evaluate("window.save = (name, type, text) => { window.saved = text; }")
    page.get_by_role("button", name="Selection (CSV)").click()
    head, first, *rest = page.evaluate("window.saved").strip().split("\n")
    assert head == "token,id,norm,x,y,nearest,cosine"
    assert first.split(",")[1:3] == ["230", "24"]
    assert len(rest) == 3
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function("!document.querySelector('.selected tbody')")


def test_norms_chosen_in_the_histogram_select_tokens_of_the_map(page: Any) -> None:
    bars = ".bars-of-norms"
    page.mouse.move(*at(page, 19.5, 0.5, bars))
    page.mouse.down()
    page.mouse.move(*at(page, 24.9, 0.5, bars), steps=12)
    page.mouse.up()
    page.wait_for_selector(".selected tbody tr")
    chosen = tokens_selected(page)
    assert chosen == ["230", "220", "210", "200", "190"]
    marked = page.evaluate("[...document.querySelector('.cloud').data[0].selectedpoints]")
    assert sorted(marked) == sorted(int(token) // 10 for token in chosen)


def test_the_address_brings_back_token_area_norms_and_view(page: Any, open_map: OpenMap) -> None:
    lasso(page, (1.5, 2.6), (3.6, 4.5))
    page.locator(".tools .search").fill("word9")
    page.keyboard.press("Enter")
    page.evaluate(
        "Plotly.relayout(document.querySelector('.cloud'),"
        " {'xaxis.range': [0.5, 4.5], 'yaxis.range': [1.5, 4.75]})"
    )
    address = page.evaluate("location.hash")
    again = open_map(address)
    assert again.locator(".card h4").text_content() == "word9"
    assert tokens_selected(again) == tokens_selected(page)
    assert view(again) == pytest.approx(view(page), rel=1e-3)
    assert view(again)[2:] == [1.5, 4.75]
    again.evaluate(f"location.hash = '{address}&norm=20,30'")
    again.wait_for_function("document.querySelectorAll('.selected tbody tr').length === 2")
    assert tokens_selected(again) == ["230", "220"]


def test_an_address_that_names_nothing_is_passed_over(open_map: OpenMap) -> None:
    page = open_map("#map=0&find=99999&norm=x&area=1,2&view=")
    assert "Point at a token" in page.locator(".card").text_content()
    assert page.locator(".selected tbody").count() == 0
    page.evaluate("location.hash = '#map=0&find=100'")
    page.wait_for_function("document.querySelector('.card h4')?.textContent === 'word3'")
    for other in ("#map", "#map=7&find=0", "#find=<b>"):
        page.evaluate(f"location.hash = '{other}'")
    page.wait_for_timeout(100)
    assert page.locator(".card h4").text_content() == "word3"
    assert not strangers(page)


def test_hostile_tokens_are_text_on_the_map(page: Any, hostile: tuple[str, ...]) -> None:
    page.evaluate("location.hash = '#map=0&find=0&norm=0,30'")
    page.wait_for_selector(".selected tbody tr")
    assert page.locator(".card h4").text_content() == hostile[0]
    assert hostile[1] in page.locator(".card").text_content()
    assert page.locator(".cloud .annotation-text").text_content() == hostile[0]
    assert page.locator(".map img, .map script").count() == 0
    assert not strangers(page)


@pytest.mark.parametrize("width", [375, 1280])
def test_the_map_fits_the_page(open_map: OpenMap, width: int) -> None:
    page = open_map("#map=0&find=50&norm=3,9", width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in (".cloud", ".bars-of-norms", ".card", ".selected"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0
        assert math.floor(box["x"] + box["width"]) <= width
