from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dti_geom.geometry.inflation import Walk
from dti_geom.probes.inspection import InspectedFile, Inspection, Turn
from dti_geom.probes.neighbors import Similar
from dti_geom.reporting.blocks import Section
from dti_geom.reporting.sections.inspection import (
    inflation_figure,
    inflation_finding,
    inspection_section,
    ordered,
    rate_finding,
    trajectories,
    trajectory_figure,
    trajectory_finding,
)
from section_blocks import blocks_of, column, findings, table_named, titles


def test_a_run_becomes_a_trajectory_in_the_order_of_its_steps(
    run: tuple[InspectedFile, ...],
) -> None:
    (trajectory,) = trajectories(run)
    assert trajectory.steps == (250, 500, 1000)
    assert trajectory.norms == (0.65, 0.9, 1.4)
    assert trajectory.reference_norm == pytest.approx(0.39)


def test_several_vectors_of_a_checkpoint_count_by_their_mean(
    make_file: Callable[..., InspectedFile],
) -> None:
    files = [make_file(f"run/{step}.pt", [1.0 * step, 3.0 * step], step=step) for step in (1, 2, 3)]
    assert trajectories(files)[0].norms == (2.0, 4.0, 6.0)


@pytest.mark.parametrize("change", ["folder", "token", "step", "no step"])
def test_files_that_are_no_run_make_no_trajectory(
    make_file: Callable[..., InspectedFile], change: Any
) -> None:
    files = [
        make_file(
            f"{'run' if change != 'folder' else step}/{step}.pt",
            [1.0],
            token=f"<{step}>" if change == "token" else "<x>",
            step={"step": 1, "no step": None}.get(change, step),
        )
        for step in (1, 2, 3)
    ]
    assert trajectories(files) == ()


@pytest.mark.parametrize(
    ("norms", "sentence"),
    [
        (
            (0.4, 0.6, 0.8),
            "grows at every checkpoint, from 0.4000 at step 1 to 0.8000 at step 3 (×2.00).",
        ),
        (
            (0.8, 0.6, 0.4),
            "falls at every checkpoint, from 0.8000 at step 1 to 0.4000 at step 3 (×0.500).",
        ),
        (
            (0.4, 1.6, 0.8),
            "grows, with turns between, from 0.4000 at step 1 to 0.8000 at step 3 (×2.00).",
        ),
        ((0.4, 0.4, 0.8), "grows from 0.4000 at step 1 to 0.8000 at step 3 (×2.00)."),
        (
            (0.4, 0.4, 0.4),
            "ends where it began, from 0.4000 at step 1 to 0.4000 at step 3 (×1.00).",
        ),
        ((0.0, 0.4, 0.8), "grows at every checkpoint, from 0 at step 1 to 0.8000 at step 3."),
    ],
)
def test_trajectory_finding_says_what_the_norm_does(
    make_file: Callable[..., InspectedFile], norms: Any, sentence: Any
) -> None:
    files = [
        make_file(f"run/{step}.pt", [norm], step=step) for step, norm in enumerate(norms, start=1)
    ]
    assert trajectory_finding(trajectories(files)[0]) == f"The norm of “\u2068<x>\u2069” {sentence}"


def test_growth_by_the_law_tells_its_rate_and_the_norm_at_twice_the_steps(
    make_file: Callable[..., InspectedFile],
) -> None:
    walk = Walk(768, 0.4, 5e-4)
    files = [
        make_file(f"run/{step}.pt", [walk.norm(step)], step=step) for step in (500, 1000, 2000)
    ]
    finding = rate_finding(trajectories(files)[0])
    for part in ("R² 1.00", "rate of 0.000500", "0.000500 to 0.000500"):
        assert part in finding
    assert f"at step 4,000 will be {walk.norm(4000):.4g}" in finding


@pytest.mark.parametrize("norms", [(0.4, 0.4, 0.4), (0.8, 0.6, 0.4), (0.4, 0.8, 0.5)])
def test_other_courses_tell_no_rate(make_file: Callable[..., InspectedFile], norms: Any) -> None:
    files = [
        make_file(f"run/{step}.pt", [norm], step=step) for step, norm in enumerate(norms, start=1)
    ]
    assert "no learning rate follows" in rate_finding(trajectories(files)[0])


def test_trajectory_figure_holds_the_steps_and_norms(run: tuple[InspectedFile, ...]) -> None:
    figure = trajectory_figure(trajectories(run)[0])
    assert list(figure.data[0].x) == [250, 500, 1000]
    assert list(figure.data[0].y) == [0.65, 0.9, 1.4]
    assert figure.layout.shapes[0].y0 == pytest.approx(0.39)
    assert figure.data[0].hovertext[0] == "step 250<br>norm 0.6500<br>×1.67 the mean"


def test_inflation_figure_has_a_row_for_each_unit(make_file: Callable[..., InspectedFile]) -> None:
    files = [
        make_file("a/x.pt", [0.78, 3.9], "<x>"),
        make_file("a/y.pt", [39.0], "<y>"),
        make_file("a/z.pt", [8.0], "<z>", reference=None, dim=1024),
    ]
    figure = inflation_figure(files)
    drawn: Any = [(trace.xaxis, pytest.approx(list(trace.x))) for trace in figure.data]
    assert drawn == [("x", [100.0]), ("x", [2.0, 10.0]), ("x2", [8.0])]
    assert figure.layout.xaxis.type == figure.layout.xaxis2.type == "log"
    assert "inflation" in figure.layout.xaxis.title.text
    assert "no reference" in figure.layout.xaxis2.title.text
    assert figure.data[2].hovertext[0].endswith("norm 8.000")


def test_zero_vectors_have_no_place_on_the_logarithmic_axis(
    make_file: Callable[..., InspectedFile],
) -> None:
    assert len(inflation_figure([make_file("a/x.pt", [0.0])]).data) == 0


def test_finding_counts_files_vectors_and_the_inflated(
    make_file: Callable[..., InspectedFile],
) -> None:
    files = [make_file("a/x.pt", [0.5, 3.9]), make_file("a/z.pt", [8.0], "<z>", reference=None)]
    finding = inflation_finding(files)
    assert finding.startswith("2 files hold 3 vectors; 1 of the 2 with a reference")
    for part in ("“\u2068<x>\u2069”", "norm 3.900", "×10.0"):
        assert part in finding
    single = inflation_finding([make_file("a/x.pt", [3.9])])
    assert single.startswith("The file holds 1 vector; “\u2068<x>\u2069” has norm 3.900, ×10.0")
    unknown = inflation_finding(files[1:])
    assert "1 vector with norms from 8.000 to 8.000" in unknown
    assert "no reference" in unknown


def test_files_are_listed_by_folder_step_and_name(make_file: Callable[..., InspectedFile]) -> None:
    files = [
        make_file("b/step-1000", [1.0], step=1000),
        make_file("b/step-250", [1.0], step=250),
        make_file("a/z", [1.0]),
    ]
    assert [file.path for file in ordered(files)] == ["a/z", "b/step-250", "b/step-1000"]


def test_each_width_of_a_run_is_a_trajectory_of_its_own(
    make_file: Callable[..., InspectedFile],
) -> None:
    files = [
        make_file(f"run/{step}-{dim}.pt", [1.0 * step * dim], step=step, dim=dim)
        for step in (1, 2, 3)
        for dim in (8, 16)
    ]
    assert [trajectory.norms for trajectory in trajectories(files)] == [
        (8.0, 16.0, 24.0),
        (16.0, 32.0, 48.0),
    ]


def test_a_measured_turn_is_drawn_below_the_norm_and_told(run: tuple[InspectedFile, ...]) -> None:
    turned = [
        replace(
            file,
            vectors=tuple(replace(vector, turn=Turn(30.0 * place, 30.0)) for vector in file.vectors)
            if place
            else file.vectors,
        )
        for place, file in enumerate(sorted(run, key=lambda file: file.step or 0))
    ]
    (trajectory,) = trajectories(turned)
    assert trajectory.turns == (0.0, 30.0, 60.0)
    figure = trajectory_figure(trajectory)
    assert [list(trace.y) for trace in figure.data] == [[0.65, 0.9, 1.4], [0.0, 30.0, 60.0]]
    assert figure.layout.xaxis2.title.text == "training step"
    assert trajectory_finding(trajectory).endswith("(×2.15), while it turns by 60.0°.")
    assert trajectories([turned[0], ordered(run)[1], turned[2]])[0].turns == ()


def test_advice_places_and_turns_have_tables_where_there_are_any(
    make_file: Callable[..., InspectedFile],
) -> None:
    file = make_file("a/x.pt", [3.9], step=7)
    (vector,) = file.vectors
    placed = replace(
        vector,
        percentile=100.0,
        nearest=(Similar("cat", 1, 0.9), Similar("<b>", 2, 0.8)),
        copy_of="cat",
        turn=Turn(30.0, 10.0),
    )
    advised = replace(file, vectors=(placed,), verdict="inflated", advice="do this.")
    section = inspection_section(Inspection((advised,)))
    assert table_named(section, "What to do").rows == [["a/x.pt", "inflated", "do this."]]
    assert table_named(section, "Among the tokens").rows == [["<x>", 0, 100.0, "cat <b>", "cat"]]
    assert table_named(section, "Turn while").rows == [["<x>", 0, 7, 30.0, 10.0, "a/x.pt"]]
    assert titles(inspection_section(Inspection((file,)))) == ["Vectors", "Widths"]


def test_every_vector_and_what_its_width_is_compared_with_are_listed(
    make_file: Callable[..., InspectedFile],
) -> None:
    files = (make_file("a/x.pt", [0.78, 3.9]), make_file("a/z.pt", [8.0], "<z>", reference=None))
    section = inspection_section(Inspection(files))
    vectors = table_named(section, "Vectors")
    assert column(vectors, "norm") == [0.78, 3.9, 8.0]
    assert column(vectors, "inflation") == [2.0, 10.0, None]
    assert column(vectors, "file") == ["a/x.pt", "a/x.pt", "a/z.pt"]
    assert table_named(section, "Widths").rows == [
        [768, "CLIP ViT-L/14", "no mean is published; give --model"],
        [768, "CLIP ViT-L/14", "text_encoder of mini"],
    ]
    assert section.aside == "2 files, 3 vectors"


def test_a_run_is_a_section_of_its_own(run: tuple[InspectedFile, ...]) -> None:
    (trajectory,) = blocks_of(inspection_section(Inspection(run)), Section)
    assert "<x>" in trajectory.title
    (course,) = trajectories(run)
    assert findings(trajectory) == [trajectory_finding(course), rate_finding(course)]
