import math
from collections.abc import Callable
from typing import Any

import pytest

from dti_geom.files import from_json, to_json
from dti_geom.probes.stagnation import StagnationResult
from dti_geom.reporting.blocks import Note, Table
from dti_geom.reporting.sections.stagnation import (
    branch_figure,
    stagnation_figure,
    stagnation_finding,
    stagnation_section,
)
from section_blocks import blocks_of, column, table_named, titles


def named(figure: Any) -> Any:
    return {trace.name: trace for trace in figure.data}


def test_turns_are_drawn_in_degrees_with_the_bound_where_there_is_one(
    make_stagnation: Callable[..., StagnationResult],
) -> None:
    drawn = named(stagnation_figure(make_stagnation()))
    assert list(drawn["mean"].x) == [1, 8, 32]
    assert list(drawn["mean"].y) == pytest.approx([math.degrees(1 / m) for m in (1, 8, 32)])
    assert list(drawn["largest"].y) == pytest.approx([math.degrees(1.2 / m) for m in (1, 8, 32)])
    assert list(drawn["bound"].y) == [None, None, pytest.approx(math.degrees(2 / 32))]
    assert "learned" not in drawn


def test_learned_vectors_are_marked_at_their_own_norm(
    make_stagnation: Callable[..., StagnationResult],
) -> None:
    figure = stagnation_figure(make_stagnation([("<x>", 5.0), ("<y>", 100.0)]))
    marks = named(figure)["learned"]
    assert (list(marks.x), marks.mode) == ([5, 100], "markers")
    assert list(marks.y) == pytest.approx([math.degrees(1 / 5), math.degrees(1 / 100)])
    assert "&lt;y&gt;" in marks.hovertext[1]
    assert figure.layout.xaxis.range[1] > 2


def test_branches_are_drawn_in_order_at_chosen_scales_and_for_the_longest_learned_vector(
    make_stagnation: Callable[..., StagnationResult],
) -> None:
    figure = branch_figure(make_stagnation([("<x>", 5.0), ("<y>", 100.0)]))
    names = [trace.name for trace in figure.data if trace.yaxis == "y"]
    assert names == ["×1", "×8", "×32", "\u2068&lt;y&gt;\u2069"]
    angles, updates = (
        next(trace for trace in figure.data if trace.yaxis == axis) for axis in ("y", "y2")
    )
    assert list(angles.x) == list(updates.x) == [1, 2]
    assert list(angles.y) == pytest.approx([math.degrees(0.5), math.degrees(1)])
    assert list(updates.y) == [0.5, 0.5]
    assert "block 0, mlp" in angles.hovertext[1]


def test_the_finding_tells_turns_learned_vectors_and_where_the_bound_begins(
    make_stagnation: Callable[..., StagnationResult],
) -> None:
    finding = stagnation_finding(make_stagnation([("<x>", 5.0)]))
    for part in (
        "×1 the mean norm is turned by 57.3°",
        "×32 by 1.79°",
        "“\u2068<x>\u2069”, ×5.00 the mean, by 11.5°",
        "9.000",
        "from ×32 on",
        "60.0 %",
    ):
        assert part in finding
    unbounded = stagnation_finding(make_stagnation(scales=(1.0, 8.0)))
    assert "9.000" in unbounded
    assert unbounded.endswith("the bound does not apply.")


def test_the_tables_hold_every_magnitude_and_branch_in_degrees(
    make_stagnation: Callable[..., StagnationResult],
) -> None:
    section = stagnation_section(make_stagnation([("<x>", 5.0)]))
    turns = blocks_of(section, Table)[0]
    assert column(turns, "norm") == ["own", "×1", "×8", "×32"]
    assert column(turns, "turn") == pytest.approx([math.degrees(1 / m) for m in (1, 1, 8, 32)])
    assert column(turns, "bound") == [None, None, None, pytest.approx(math.degrees(2 / 32))]
    (learned,) = table_named(section, "Whole turn of learned").rows
    assert learned[:5] == ["<x>", 0, 5.0, 5.0, pytest.approx(math.degrees(1 / 5))]
    assert learned[-1] == "dir/<x>.bin"
    branches = table_named(section, "Branches")
    assert column(branches, "branch") == ["attention", "mlp"]
    assert column(branches, "longest ‖f‖") == [4.0, 5.0]
    assert column(branches, "turn so far") == pytest.approx([math.degrees(0.5), math.degrees(1)])


def test_what_is_left_of_the_input_is_tabled_and_the_state_that_is_read_is_named(
    make_stagnation: Callable[..., StagnationResult],
) -> None:
    result = make_stagnation([("<x>", 5.0)])
    section = stagnation_section(result)
    left = table_named(section, "What is left")
    assert column(left, "norm ÷ mean") == [None, 1, 8, 32, 5]
    assert column(left, "added ÷ ‖x₀‖") == [200, 200, 25, 6.25, 40]
    assert "×200 as long as the word's input at ×1, and ×6.25 at ×32" in stagnation_finding(result)
    (note,) = blocks_of(section, Note)
    assert "block 1 of 2, before the final norm" in note.text


def test_a_result_of_an_older_version_is_drawn_without_them(
    make_stagnation: Callable[..., StagnationResult],
) -> None:
    data = to_json(make_stagnation())
    del data["read"]
    for passage in (data["natural"], *data["scales"]):
        for name in ("added", "start_share", "along_start"):
            del passage[name]
    old = from_json(StagnationResult, data)
    assert titles(stagnation_section(old)) == ["Whole turn", "Branches, words at their own norms"]
    assert "updates together" not in stagnation_finding(old)
