from dataclasses import replace

import pytest

from dti_geom.probes import Similar, Turn
from dti_geom.reporting import (
    Report,
    inflation_figure,
    inflation_finding,
    render_page,
    trajectories,
    trajectory_figure,
    trajectory_finding,
)
from dti_geom.reporting.sections.inspection import ordered


def test_a_run_becomes_a_trajectory_in_the_order_of_its_steps(run):
    (trajectory,) = trajectories(run)
    assert trajectory.steps == (250, 500, 1000)
    assert trajectory.norms == (0.65, 0.9, 1.4)
    assert trajectory.reference_norm == pytest.approx(0.39)


def test_several_vectors_of_a_checkpoint_count_by_their_mean(make_file):
    files = [make_file(f"run/{step}.pt", [1.0 * step, 3.0 * step], step=step) for step in (1, 2, 3)]
    assert trajectories(files)[0].norms == (2.0, 4.0, 6.0)


@pytest.mark.parametrize("change", ["folder", "token", "step", "no step"])
def test_files_that_are_no_run_make_no_trajectory(make_file, change):
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
def test_trajectory_finding_says_what_the_norm_does(make_file, norms, sentence):
    files = [
        make_file(f"run/{step}.pt", [norm], step=step) for step, norm in enumerate(norms, start=1)
    ]
    assert trajectory_finding(trajectories(files)[0]) == f"The norm of “\u2068<x>\u2069” {sentence}"


def test_trajectory_figure_holds_the_steps_and_norms(run):
    figure = trajectory_figure(trajectories(run)[0])
    assert list(figure.data[0].x) == [250, 500, 1000]
    assert list(figure.data[0].y) == [0.65, 0.9, 1.4]
    assert figure.layout.shapes[0].y0 == pytest.approx(0.39)
    assert figure.data[0].hovertext[0] == "step 250<br>norm 0.6500<br>×1.67 the mean"


def test_inflation_figure_has_a_row_for_each_unit(make_file):
    files = [
        make_file("a/x.pt", [0.78, 3.9], "<x>"),
        make_file("a/y.pt", [39.0], "<y>"),
        make_file("a/z.pt", [8.0], "<z>", reference=None, dim=1024),
    ]
    figure = inflation_figure(files)
    drawn = [(trace.xaxis, pytest.approx(list(trace.x))) for trace in figure.data]
    assert drawn == [("x", [100.0]), ("x", [2.0, 10.0]), ("x2", [8.0])]
    assert figure.layout.xaxis.type == figure.layout.xaxis2.type == "log"
    assert "inflation" in figure.layout.xaxis.title.text
    assert "no reference" in figure.layout.xaxis2.title.text
    assert figure.data[2].hovertext[0].endswith("norm 8.000")


def test_zero_vectors_have_no_place_on_the_logarithmic_axis(make_file):
    assert len(inflation_figure([make_file("a/x.pt", [0.0])]).data) == 0


def test_finding_counts_files_vectors_and_the_inflated(make_file):
    files = [make_file("a/x.pt", [0.5, 3.9]), make_file("a/z.pt", [8.0], "<z>", reference=None)]
    assert inflation_finding(files) == (
        "2 files hold 3 vectors; 1 of the 2 with a reference are longer than twice the mean token; the most inflated, "
        "“\u2068<x>\u2069”, has norm 3.900, ×10.0 the mean token."
    )
    assert inflation_finding([make_file("a/x.pt", [3.9])]) == (
        "The file holds 1 vector; “\u2068<x>\u2069” has norm 3.900, ×10.0 the mean token."
    )
    assert inflation_finding(files[1:]) == (
        "The file holds 1 vector with norms from 8.000 to 8.000, and no reference for their width."
    )


def test_files_are_listed_by_folder_step_and_name(make_file):
    files = [
        make_file("b/step-1000", [1.0], step=1000),
        make_file("b/step-250", [1.0], step=250),
        make_file("a/z", [1.0]),
    ]
    assert [file.path for file in ordered(files)] == ["a/z", "b/step-250", "b/step-1000"]


def test_each_width_of_a_run_is_a_trajectory_of_its_own(make_file):
    files = [
        make_file(f"run/{step}-{dim}.pt", [1.0 * step * dim], step=step, dim=dim)
        for step in (1, 2, 3)
        for dim in (8, 16)
    ]
    assert [trajectory.norms for trajectory in trajectories(files)] == [
        (8.0, 16.0, 24.0),
        (16.0, 32.0, 48.0),
    ]


def test_a_measured_turn_is_drawn_below_the_norm_and_told(run):
    turned = [
        replace(
            file,
            vectors=tuple(replace(one, turn=Turn(30.0 * place, 30.0)) for one in file.vectors)
            if place
            else file.vectors,
        )
        for place, file in enumerate(sorted(run, key=lambda file: file.step))
    ]
    (trajectory,) = trajectories(turned)
    assert trajectory.turns == (0.0, 30.0, 60.0)
    figure = trajectory_figure(trajectory)
    assert [list(trace.y) for trace in figure.data] == [[0.65, 0.9, 1.4], [0.0, 30.0, 60.0]]
    assert figure.layout.xaxis2.title.text == "training step"
    assert trajectory_finding(trajectory).endswith("(×2.15), while it turns by 60.0°.")
    assert trajectories([turned[0], ordered(run)[1], turned[2]])[0].turns == ()


def test_advice_and_nearest_tokens_are_in_the_page_as_text(make_file, hostile):
    file = make_file("a/x.pt", [3.9])
    (one,) = file.vectors
    near = replace(one, percentile=100.0, nearest=(Similar(hostile[0], 1, 0.9),))
    page = render_page(
        Report(
            "mine",
            inspected=(
                replace(file, vectors=(near,), verdict="inflated", advice="do <b>this</b>."),
            ),
        )
    )
    assert "do &lt;b&gt;this&lt;/b&gt;." in page
    assert "nearest tokens" in page
    assert hostile[0] not in page
    assert "nearest tokens" not in render_page(Report("mine", inspected=(file,)))
