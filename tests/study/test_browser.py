"""The whole path in a real browser: build, rate, score."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accessible import complaints
from dti_geom.study import build_study, read_answers, read_study, score_study
from dti_geom.study.answers import DATABASE
from dti_geom.study.build import BuiltStudy, Material
from dti_geom.study.design import Screen, Study, Trial
from dti_geom.study.storage import AnswerStore

pytestmark = pytest.mark.browser

Open = Callable[..., Any]


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Open]:
    """Open a page in a browser without a past; `page.events` lists its complaints and requests."""
    contexts: list[Any] = []

    def open_(address: str, width: int = 1280, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)
        page.events = []
        page.on("console", lambda message: page.events.append(message.text))
        page.on("pageerror", lambda error: page.events.append(str(error)))
        page.on("request", lambda request: page.events.append(request.url))
        page.goto(address)
        return page

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def small(material: Material, tmp_path_factory: pytest.TempPathFactory) -> BuiltStudy:
    folder = tmp_path_factory.mktemp("small") / "s"
    return build_study(material, folder, seed=5, raters=2, trials=2)


def place_of(study: Study, screen: Screen, wanted: str) -> int:
    """The place, from 1, of a method's picture, or of the right one."""
    trials: dict[str, Trial] = {trial.name: trial for trial in study.trials}
    what = [trials[screen.trial].pictures[name] for name in screen.pictures]
    return what.index("right" if trials[screen.trial].catches else wanted) + 1


def rate(page: Any, study: Study, rater: int, wanted: str) -> None:
    """Answer everything with the keyboard alone."""
    for at, screen in enumerate(study.raters[rater - 1]):
        page.get_by_role("heading", name=f"Screen {at + 1} of").wait_for()
        place = str(place_of(study, screen, wanted))
        for key in (place, place, "Enter"):
            page.keyboard.press(key)
    page.get_by_role("heading", name="Thank you").wait_for()


def test_the_page_of_a_study_is_accessible(small: BuiltStudy, open_page: Open) -> None:
    page = open_page(Path(small.page).as_uri() + "?rater=2", width=375)
    assert not complaints(page)
    page.get_by_role("button", name="Start").click()
    page.get_by_role("heading", name="Screen 1 of").wait_for()
    assert not complaints(page)


def test_what_a_rater_chose_with_the_keyboard_is_what_is_scored(
    small: BuiltStudy, open_page: Open, tmp_path: Path
) -> None:
    study = read_study(small.folder)
    page = open_page(Path(small.page).as_uri() + "?rater=2")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    rate(page, study, 2, "dti")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save my answers").click()
    download.value.save_as(tmp_path / "answers.json")
    code = json.loads((tmp_path / "answers.json").read_text())["session"]
    assert page.locator("#code").text_content() == code
    answers, refused = read_answers(study, [tmp_path])
    assert refused == []
    score = score_study(study, answers)
    assert {(s.method, s.share.mean) for s in score.shares if s.share.mean} == {("dti", 1.0)}
    assert score.catches is not None
    assert score.catches.share == 1
    served = Path(small.page).parent.as_uri()
    assert all(event.startswith((served, "data:", "blob:")) for event in page.events)


def test_a_rater_who_closes_the_page_resumes(small: BuiltStudy, open_page: Open) -> None:
    address = Path(small.page).as_uri() + "?rater=1"
    page = open_page(address)
    page.get_by_role("button", name="Start").click()
    for key in ("1", "2", "Enter", "2"):
        page.keyboard.press(key)
    page.goto(address)
    page.get_by_role("button", name="Start").click()
    assert "Screen 2" in page.locator("#place").text_content()
    assert page.locator("#question-subject input").nth(1).is_checked()
    page.get_by_role("button", name="Back").click()
    assert page.locator("#question-text input").nth(1).is_checked()


def test_no_screen_is_left_without_both_answers(small: BuiltStudy, open_page: Open) -> None:
    page = open_page(Path(small.page).as_uri() + "?rater=1")
    page.locator("#rater").fill("77")
    page.get_by_role("button", name="Start").click()
    assert page.get_by_role("alert").first.text_content() == "Numbers go from 1 to 2."
    page.locator("#rater").fill("1")
    page.get_by_role("button", name="Start").click()
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    assert "Answer both questions" in page.locator("#missing").text_content()
    assert "Screen 1" in page.locator("#place").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_room_large_targets_and_contrast(
    small: BuiltStudy, open_page: Open, scheme: str
) -> None:
    page = open_page(
        Path(small.page).as_uri() + "?rater=1", 375, color_scheme=scheme, has_touch=True
    )
    page.get_by_role("button", name="Start").tap()
    page.locator("#question-subject label").first.tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0 && image.alt)")
    boxes = [box.bounding_box() for box in page.locator(".choices label, nav button:visible").all()]
    assert min(box["height"] for box in boxes) >= 44
    ratios = page.evaluate(CONTRASTS)
    assert len(ratios) > 10
    assert min(ratios) >= 4.5


# The WCAG contrast ratio of every text on the screen that can be acted on or read.
CONTRASTS = """() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => rgb(color).slice(0, 3)
    .map((c) => c / 255).map((c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if ((rgb(color)[3] ?? 1) > 0) return color;
    }
  };
  const texts = '#screen :is(h1, h2, p, legend, span, figcaption, button:enabled)';
  return [...document.querySelectorAll(texts)]
    .filter((node) => node.textContent.trim())
    .map((node) => [light(getComputedStyle(node).color), light(behind(node))])
    .map(([a, b]) => (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
}"""


def test_answers_reach_the_server_one_by_one(url: str, folder: Path, open_page: Open) -> None:
    study = read_study(folder)
    store = AnswerStore(folder / DATABASE, study)
    token = store.tokens()[1]
    store.close()
    page = open_page(f"{url}?token={token}")
    page.get_by_role("button", name="Start").click()
    for key in ("1", "2", "Enter", "3"):
        page.keyboard.press(key)
    page.get_by_text("Saved.").wait_for()
    (answers,), _ = read_answers(study, [folder / DATABASE])
    assert [(answer.screen, answer.question) for answer in answers.answers] == [
        (0, "subject"),
        (0, "text"),
        (1, "subject"),
    ]
    assert answers.answers[0].choice == study.raters[0][0].pictures[0]
    elsewhere = open_page(f"{url}?token={token}")  # another device
    elsewhere.get_by_role("button", name="Start").click()
    elsewhere.get_by_role("heading", name="Screen 2 of").wait_for()
    assert elsewhere.locator("#question-subject input").nth(2).is_checked()
    lost = open_page(f"{url}?token=x")
    lost.get_by_text("This link is not known here").wait_for()
