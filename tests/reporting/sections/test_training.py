import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dti_geom.reporting.blocks import Figure, Finding, Note, Picture, Pictures, Section, Table
from dti_geom.reporting.registry import section_of
from dti_geom.reporting.sections.training import (
    adapter_figure,
    course_figure,
    duration,
    pace_figure,
    training_data,
    training_finding,
    training_section,
)
from dti_geom.training.story import TrainingRun, TrainingRuns, VocabularyNorms, read_run
from runs import MEAN_NORM, write_run

MakeRun = Callable[..., TrainingRun]
VOCABULARY = (VocabularyNorms("text_encoder", 0.39, 0.335, 0.45),)


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Reads back a run with such a course; its folder is named after the method."""

    def make(method: str = "dti", **course: Any) -> TrainingRun:
        folder: Path = tmp_path_factory.mktemp("runs") / method
        write_run(folder, method=method, **course)
        return read_run(folder)

    return make


@pytest.fixture(scope="module")
def pair(make_run: MakeRun) -> TrainingRuns:
    """A run that keeps its norm, and one that grows out of the vocabulary."""
    return shown(make_run("dti"), make_run("ti", norm=lambda step: 0.4 + 0.1 * step))


def shown(*runs: TrainingRun, **facts: Any) -> TrainingRuns:
    return TrainingRuns("mini", runs, **facts)


def curves(figure: Any, axis: str) -> list[Any]:
    return [trace for trace in figure.data if trace.yaxis == axis]


def shapes(figure: Any, axis: str) -> list[Any]:
    return [shape for shape in figure.layout.shapes if shape.yref.split()[0] == axis]


def blocks(section: Section, kind: type) -> list[Any]:
    return [block for block in section.blocks if isinstance(block, kind)]


def previews(run: TrainingRun) -> list[Pictures]:
    (section,) = blocks(training_section(shown(run)), Section)
    return blocks(section, Pictures)


def test_each_row_holds_the_curves_of_all_runs(pair: TrainingRuns) -> None:
    figure = course_figure(pair)
    raw, median, *_ = curves(figure, "y")
    loss = pair.runs[0].losses[0]
    assert (raw.y, median.y) == (loss.losses, loss.medians)
    assert raw.opacity < median.opacity
    vectors = [run.vectors[0] for run in pair.runs]
    assert [trace.y for trace in curves(figure, "y2")] == [vector.norms for vector in vectors]
    assert curves(figure, "y3")[0].y[-1] == pytest.approx(22.918, rel=1e-4)  # 0.4 rad
    cosines = [vector.cosines_to_prior for vector in vectors]
    assert [trace.y for trace in curves(figure, "y4")] == cosines
    for axis in ("y", "y2", "y3", "y4"):
        names = [trace.name for trace in curves(figure, axis) if trace.opacity == 1]
        assert names == ["\u2068dti\u2069", "\u2068ti\u2069"]
        assert len({trace.line.color for trace in curves(figure, axis)}) == 2
        assert all(trace.x == pair.runs[0].steps for trace in curves(figure, axis))


def test_the_pace_holds_rate_gradient_and_milliseconds(pair: TrainingRuns) -> None:
    figure = pace_figure(pair)
    rates = [run.learning_rates for run in pair.runs]
    gradients = [run.vectors[0].gradient_norms for run in pair.runs]
    assert [trace.y for trace in curves(figure, "y")] == rates
    assert [trace.y for trace in curves(figure, "y2")] == gradients
    milliseconds = tuple(1000 * seconds for seconds in pair.runs[1].seconds)
    assert curves(figure, "y3")[1].y == milliseconds


def test_norms_lie_over_the_vocabulary_they_joined(pair: TrainingRuns) -> None:
    figure = course_figure(dataclasses.replace(pair, vocabulary=VOCABULARY))
    band, mean = shapes(figure, "y2")
    assert (band.y0, band.y1, mean.y0) == (0.335, 0.45, 0.39)


def test_without_the_models_vocabulary_only_the_mean_that_the_run_implies_is_drawn(
    pair: TrainingRuns,
) -> None:
    other = dataclasses.replace(pair, model="sd15", vocabulary=VOCABULARY)
    for runs in (pair, other):
        (mean,) = shapes(course_figure(runs), "y2")
        assert mean.y0 == pytest.approx(MEAN_NORM)


def test_the_law_lies_faintly_beside_a_norm_that_is_free(pair: TrainingRuns) -> None:
    runs = dataclasses.replace(pair, vocabulary=(dataclasses.replace(VOCABULARY[0], width=32),))
    *measured, law = curves(course_figure(runs), "y2")
    assert len(measured) == 2
    assert law.opacity < 1
    assert law.line.color == measured[1].line.color
    free = pair.runs[1].vectors[0].norms
    assert law.y[0] == free[0]
    # 32 coordinates move by the rate of TI, 0.02, in each update; decay takes next to nothing.
    grown = math.sqrt(free[0] ** 2 + 0.02**2 * 32 * 39)
    assert law.y[-1] == pytest.approx(grown, rel=0.01)
    findings = [block.text for block in blocks(training_section(runs), Finding)]
    assert len(findings) == 3
    assert f"{free[-1] / law.y[-1]:.3g}" in findings[-1]


def test_a_norm_that_grows_manifold_gets_a_logarithmic_axis(pair: TrainingRuns) -> None:
    assert course_figure(pair).layout.yaxis2.type == "log"
    assert course_figure(shown(pair.runs[0])).layout.yaxis2.type != "log"


def test_every_token_table_has_a_norm_row_of_its_own(make_run: MakeRun) -> None:
    run = make_run(tokens=("<a>", "<b>"), towers=("text_encoder", "text_encoder_2"), vectors=2)
    figure = course_figure(shown(run))
    for axis, tower in (("y2", "text_encoder"), ("y3", "text_encoder_2")):
        assert tower in figure.layout[f"yaxis{axis[1:]}"].title.text
        expected = [vector.norms for vector in run.vectors if vector.tower == tower]
        assert [trace.y for trace in curves(figure, axis)] == expected
    assert len(curves(figure, "y")) == 4  # a loss is a token's, whatever number of vectors it has
    assert len(curves(figure, "y4")) == len(curves(figure, "y5")) == 8
    looks = {(trace.name, trace.line.color, trace.line.dash) for trace in curves(figure, "y4")}
    assert len(looks) == len({name for name, _, _ in looks}) == 8


def test_runs_of_one_method_are_told_apart_by_folder(make_run: MakeRun) -> None:
    names = {trace.name for trace in course_figure(shown(make_run(), make_run())).data}
    assert len(names) == 2
    assert all(re.search(r"runs\d+/dti", name) for name in names)


@pytest.mark.parametrize("tokens", [1, 3])
def test_the_key_names_every_curve_on_rows_that_fit_a_telephone(
    make_run: MakeRun, tokens: int
) -> None:
    run = make_run(
        tokens=[f"<token-{place}>" for place in range(tokens)],
        towers=("text_encoder", "text_encoder_2"),
    )
    figure = course_figure(shown(run))
    key = [note for note in figure.layout.annotations if note.yref == "paper"]
    assert len(key) == 2 * tokens
    assert len({(note.xshift, note.yshift) for note in key}) == len(key)
    assert all(note.xshift + 6.8 * len(note.text) <= 311 for note in key)
    assert max(note.yshift for note in key) + 18 <= figure.layout.margin.t


def test_the_finding_is_computed_from_the_run(make_run: MakeRun) -> None:
    noisy = make_run(
        "ti",
        steps=100,
        norm=lambda step: 0.02 * step,
        loss=lambda step: 0.2 + step / 1e5 + 0.01 * (-1) ** step,
    )
    finding = training_finding(noisy)
    folder = f"{noisy.folder.split('/')[-2]}/ti"
    for fact in (
        folder,
        "100 updates",
        "norm 2.000, ×5.00 the mean token",
        "57.3°",
        "does not move beyond its noise: 0.2001 ± 0.0033",
        "0.2010 ± 0.0033",
        "110\u00a0ms (median)",
        "11.0\u00a0s",
    ):
        assert fact in finding


@pytest.mark.parametrize(
    ("loss", "facts"),
    [
        (lambda step: 1 - 0.005 * step, "falls from 0.9725 ± 0.0048"),
        (lambda step: 1 + 0.005 * step, "to 1.4775 ± 0.0048 in the last"),
        (lambda step: 1 + 0.005 * step, "rises from"),
        (lambda step: 1.0, "does not move beyond its noise: 1.000"),
    ],
)
def test_the_finding_says_what_the_loss_did(
    make_run: MakeRun, loss: Callable[[int], float], facts: str
) -> None:
    assert facts in training_finding(make_run(steps=100, loss=loss))


def test_the_finding_on_several_vectors_names_the_longest_and_each_tokens_loss(
    make_run: MakeRun,
) -> None:
    sentence = training_finding(make_run(tokens=("<a>", "<b>"), vectors=2))
    assert "longest of 4 vectors" in sentence
    assert "norm 0.8000, ×2.00 the mean token" in sentence
    for token in ("<a>", "<b>"):
        assert f"The loss of “\u2068{token}\u2069” falls" in sentence


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0954, "95.4 ms"), (1.0, "1.00 s"), (119.0, "119 s"), (423.0, "7.05 min")],
)
def test_durations_have_three_digits_and_a_fitting_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text.replace(" ", "\u00a0")


def test_the_section_holds_a_finding_for_each_run_two_figures_and_the_ends(
    pair: TrainingRuns,
) -> None:
    section = training_section(pair)
    assert [block.text for block in blocks(section, Finding)] == [
        training_finding(run) for run in pair.runs
    ]
    rows_of_figures = [len(block.draw().data) for block in blocks(section, Figure)]
    assert rows_of_figures == [10, 6]
    (ends,) = blocks(section, Table)
    titles = [column.title for column in ends.columns]
    cells = dict(zip(titles, ends.rows[1], strict=True))
    end = pair.runs[1].result.vectors[0]
    assert (cells["token"], cells["norm"], cells["method"]) == ("<x>", end.norm, "ti")
    assert cells["angle to start"] == pytest.approx(22.918, rel=1e-4)
    assert cells["run"] == pair.runs[1].folder
    assert cells["time an update"] == 1000 * pair.runs[1].result.seconds_per_step


def test_a_single_run_is_shown_as_a_group_of_one(make_run: MakeRun) -> None:
    run = make_run()
    section, group = section_of(run), section_of(shown(run))
    for kind in (Finding, Table):
        assert blocks(section, kind) == blocks(group, kind)
    assert section.aside == "mini"


def test_a_grid_of_previews_has_a_row_for_each_seed_and_a_column_for_each_step(
    make_run: MakeRun,
) -> None:
    run = make_run(tokens=("<a>", "<b>"), prompts=("a {}", "{} there"))
    grids = previews(run)
    assert [grid.title for grid in grids] == ["a <a>", "<a> there", "a <b>", "<b> there"]
    by_alt = {
        f"{picture.preview.prompt}, seed {picture.preview.seed}, "
        f"after {picture.preview.step} updates": picture.uri
        for picture in run.pictures
    }
    assert len(by_alt) == len(run.pictures)
    for grid in grids:
        assert [column.split()[-1] for column in grid.columns] == ["0", "20", "40"]
        assert [row.label for row in grid.rows] == ["seed 0", "seed 1"]
        for row in grid.rows:
            for step, picture in zip((0, 20, 40), row.pictures, strict=True):
                assert picture is not None
                assert picture.alt == f"{grid.title}, {row.label}, after {step} updates"
                assert picture.uri == by_alt[picture.alt]


def test_a_picture_that_is_gone_leaves_its_place_empty_and_is_counted(make_run: MakeRun) -> None:
    run = make_run()
    run = dataclasses.replace(run, pictures=run.pictures[:1] + run.pictures[2:])
    (grid,) = previews(run)
    assert grid.rows[1].pictures[0] is None
    assert isinstance(grid.rows[1].pictures[1], Picture)
    (section,) = blocks(training_section(shown(run)), Section)
    (note,) = blocks(section, Note)
    assert note.text.startswith("1 of 6 previews")


def test_nearest_words_are_listed_where_they_change(make_run: MakeRun) -> None:
    run = make_run(words=lambda step: ("dog", "fox") if step <= 20 else ("fox",))
    (section,) = blocks(training_section(shown(run)), Section)
    (table,) = blocks(section, Table)
    assert [row[0] for row in table.rows] == ["1–20", "21–40"]
    assert "dog" in table.rows[0][1]
    several = make_run(tokens=("<a>", "<b>"))
    (section,) = blocks(training_section(shown(several)), Section)
    (table,) = blocks(section, Table)
    assert {row[1] for row in table.rows} == {"<a>", "<b>"}


def test_the_caption_says_how_many_updates_of_a_long_run_are_drawn(make_run: MakeRun) -> None:
    def caption(run: TrainingRun) -> str:
        course, _ = blocks(training_section(shown(run)), Figure)
        text: str = course.caption
        return text

    assert re.search(
        r"1,000 updates of “\u2068runs\d+/dti\u2069”, 400", caption(make_run(steps=1000))
    )
    assert "evenly spread" not in caption(make_run())


def test_the_data_leave_the_pictures_out(pair: TrainingRuns) -> None:
    data = training_data(pair)
    assert [run.pictures for run in data.runs] == [(), ()]
    assert data.runs[0].losses == pair.runs[0].losses


@pytest.mark.browser
@pytest.mark.parametrize("width", [375, 1280])
def test_previews_are_painted_and_scroll_within_the_page(open_page: Any, width: int) -> None:
    page = open_page(width=width)
    images = page.locator("#training img")
    assert images.count() > 0
    assert images.evaluate_all("images => images.every(image => image.naturalWidth === 8)")
    assert images.first.evaluate("image => image.clientWidth") >= 96
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    strip = page.locator("#training .strip").first
    assert strip.evaluate("strip => getComputedStyle(strip).overflowX") == "auto"
    assert strip.get_attribute("tabindex") == "0"


def test_an_adapter_has_a_figure_of_its_growth_in_percent_and_other_runs_none(
    make_run: MakeRun,
) -> None:
    plain, adapted = make_run("dti"), make_run("ti", adapter=lambda step: step / 1000)

    def figures(*runs: TrainingRun) -> list[Figure]:
        blocks = training_section(shown(*runs)).blocks
        return [block for block in blocks if isinstance(block, Figure)]

    assert len(figures(plain, adapted)) == len(figures(plain)) + 1
    figure = adapter_figure(shown(plain, adapted))
    (norm,) = curves(figure, "y")
    assert list(norm.y) == pytest.approx([step / 10 for step in range(1, 41)])
    (gradient,) = curves(figure, "y2")
    assert gradient.y[-1] == 0.5 / 40
    page = [
        block for block in training_section(shown(adapted)).blocks if isinstance(block, Section)
    ]
    assert "LoRA of rank 4" in (page[0].aside or "")
