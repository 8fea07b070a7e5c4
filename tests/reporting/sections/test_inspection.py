from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dti_geom.files.loaders import Loading
from dti_geom.geometry.inflation import Walk
from dti_geom.probes.inspection import Duplicate, InspectedFile, Inspection, Turn
from dti_geom.probes.neighbors import Similar
from dti_geom.reporting.blocks import Note, Section
from dti_geom.reporting.sections.inspection import (
    inflation_figure,
    inflation_finding,
    inspection_data,
    inspection_section,
    listing_section,
    ordered,
    rate_finding,
    steps_figure,
    token_rows,
    trajectories,
    trajectory_figure,
    trajectory_finding,
    verdict_finding,
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
    assert titles(inspection_section(Inspection((file,)))) == ["Tokens", "Vectors", "Widths"]


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
    section = inspection_section(Inspection(run))
    assert column(table_named(section, "While training"), "checkpoints") == [3]
    (trajectory,) = blocks_of(section, Section)
    assert "<x>" in trajectory.title
    (course,) = trajectories(run)
    assert findings(trajectory) == [trajectory_finding(course), rate_finding(course)]


# --- One line for each token ---


def judged(file: InspectedFile, verdict: Any = "inflated") -> InspectedFile:
    """The file with the same verdict on all of its vectors."""
    vectors = tuple(replace(vector, verdict=verdict) for vector in file.vectors)
    return replace(file, vectors=vectors, verdict=verdict, advice="do this.")


def test_a_token_is_one_row_and_the_most_inflated_comes_first(
    make_file: Callable[..., InspectedFile],
) -> None:
    files = [
        make_file("a/x.pt", [0.39, 0.78, 3.9]),
        make_file("a/y.pt", [8.0], "<y>"),
        make_file("a/z.pt", [8.0, 9.0], "<z>", reference=None, dim=7),
    ]
    rows = token_rows(files)
    assert [(row.token, row.vectors) for row in rows] == [("<y>", "1"), ("<x>", "3"), ("<z>", "2")]
    assert [row.encoders for row in rows] == ["clip_l", "clip_l", "clip_l"]
    assert (rows[1].longest, rows[1].typical) == pytest.approx((10, 2))
    assert (rows[2].longest, rows[2].typical) == (None, None)


def test_the_encoders_of_a_token_share_its_row(make_file: Callable[..., InspectedFile]) -> None:
    (small,) = make_file("x.pt", [0.39]).vectors
    large = replace(small, tower="clip_g", dim=1280, inflation=4.0)
    (row,) = token_rows([InspectedFile("x.pt", "sdxl", None, (small, large, large))])
    assert (row.encoders, row.vectors, row.longest) == ("clip_l + clip_g", "1 + 2", 4.0)


def test_the_checkpoints_of_a_run_are_one_row_with_the_last_ones_figures(
    run: tuple[InspectedFile, ...],
) -> None:
    (row,) = token_rows(run)
    assert (row.checkpoints, row.path) == (3, "run/step-1000.bin")
    assert row.longest == pytest.approx(1.4 / 0.39)


def test_a_listing_ends_after_its_rows_and_says_how_many_are_left(
    make_file: Callable[..., InspectedFile],
) -> None:
    files = tuple(
        judged(make_file(f"a/{place}.pt", [0.39 * place], f"<{place}>")) for place in range(1, 31)
    )
    section = listing_section(Inspection(files), command="do it")
    assert column(table_named(section, "Tokens"), "token") == [f"<{n}>" for n in range(30, 10, -1)]
    assert any("10 more tokens" in note.text for note in blocks_of(section, Note))
    assert titles(section) == ["Tokens"]
    assert "30 inflated" in verdict_finding(files)
    assert any("`do it`" in text for text in findings(section))
    everything = listing_section(Inspection(files), rows=None, vectors=True)
    assert len(table_named(everything, "Tokens").rows) == 30
    assert len(table_named(everything, "Vectors").rows) == 30
    few = listing_section(Inspection(files[:2]))
    assert titles(few) == ["Tokens", "What to do"]


def test_a_listing_without_inflated_tokens_has_no_command(
    make_file: Callable[..., InspectedFile],
) -> None:
    file = judged(make_file("a/x.pt", [0.39]), "in distribution")
    assert not any(
        "do it" in text for text in findings(listing_section(Inspection((file,)), command="do it"))
    )


def test_inflation_is_drawn_against_the_steps_of_all_files(
    run: tuple[InspectedFile, ...], make_file: Callable[..., InspectedFile]
) -> None:
    figure = steps_figure([*run, make_file("b/y.pt", [0.78, 0.39], "<y>", step=7)])
    drawn: Any = [(list(trace.x), pytest.approx(list(trace.y))) for trace in figure.data]
    assert drawn == [([7], [2.0]), ([250, 500, 1000], [0.65 / 0.39, 0.9 / 0.39, 1.4 / 0.39])]


def test_near_duplicates_and_names_to_type_have_tables(
    make_file: Callable[..., InspectedFile],
) -> None:
    file = replace(
        make_file("a/x.pt", [0.39]),
        tools=(Loading("ComfyUI", "embedding:x"), Loading("web UI", "")),
    )
    pair = Duplicate("a/x.pt", "<x>", 0, "b/y.pt", "<y>", 1, 0.97, 2)
    section = inspection_section(Inspection((file,), (pair,)))
    assert table_named(section, "What to type").rows == [
        ["ComfyUI", "embedding:x", None, "a/x.pt"],
        ["web UI", None, "it does not load this file", "a/x.pt"],
    ]
    assert table_named(section, "Near-duplicates").rows == [
        ["<x>", "<y>", 0.97, 2, "a/x.pt", "b/y.pt"]
    ]


def test_the_page_of_many_vectors_stays_small(make_file: Callable[..., InspectedFile]) -> None:
    few = Inspection((make_file("a/x.pt", [0.39, 0.78]),))
    assert inspection_data(few) is few
    many = Inspection(tuple(make_file(f"a/{n}.pt", [0.39, 0.78, 0.5]) for n in range(200)))
    assert [vector.norm for vector in inspection_data(many).files[0].vectors] == [0.78]
    section = inspection_section(many)
    assert len(table_named(section, "Vectors").rows) == 500
    assert len(table_named(section, "Tokens").rows) == 200
    assert any("inspection.json" in note.text for note in blocks_of(section, Note))
