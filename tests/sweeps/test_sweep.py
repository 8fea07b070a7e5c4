import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dti_geom.errors import SweepError
from dti_geom.sweeps import (
    LocalEngine,
    collect,
    estimate,
    load_plan,
    plan_of,
    read_finished,
    run_sweep,
)
from dti_geom.sweeps.cells import run_cell
from dti_geom.sweeps.engines import Engine, Outcome
from dti_geom.sweeps.plan import Plan
from dti_geom.sweeps.sweep import read_states, save_table

Asked = Callable[..., dict[str, Any]]
Kept = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def plan(asked: Asked) -> Plan:
    return plan_of(
        asked(methods=["dti", {"name": "ti", "label": "free", "baselines": True}]), "tiny"
    )


@pytest.fixture(scope="module")
def folder(plan: Plan, in_process: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    states = run_sweep(plan, folder, in_process)
    assert [state.state for state in states] == ["done"] * 4, [state.error for state in states]
    return folder


def test_a_cell_that_is_done_is_not_computed_again(
    plan: Plan, folder: Path, in_process: Engine
) -> None:
    reports = []
    run_sweep(plan, folder, in_process, progress=lambda *report: reports.append(report))
    assert reports == [(None, 4, 4)]


def test_all_cells_are_scored_together_under_the_plans_labels(plan: Plan, folder: Path) -> None:
    finished = read_finished(plan, folder)
    sweep, images = collect(finished), finished.images
    overall = {one.method: one for one in sweep.summaries if one.group == "all"}
    assert list(overall) == ["dti", "free", "free-rescaled", "class word"]
    # A text file's prompts are one group; two subjects × two prompts × two seeds.
    assert {one.images for one in overall.values()} == {8}
    assert len(images) == 32
    assert {(one.first, one.second) for one in sweep.differences} >= {
        ("dti", "free"),
        ("free", "class word"),
    }


def test_learned_norms_and_courses_name_their_subjects(plan: Plan, folder: Path) -> None:
    sweep = collect(read_finished(plan, folder))
    assert {(one.label, one.subject) for one in sweep.norms} == {
        (label, subject) for label in ("dti", "free") for subject in ("dog", "cat")
    }
    for one in sweep.norms:
        assert (abs(one.inflation - 1) < 1e-5) == (one.label == "dti")
    assert {one.step for one in sweep.courses} == {4}


def test_training_seeds_are_runs_of_their_own_in_the_intervals(plan: Plan, folder: Path) -> None:
    once = read_finished(plan, folder)
    again = [(replace(state, seed=1), result) for state, result in once.results]
    twice = collect(replace(once, results=(*once.results, *again)))
    (alone, *_), (both, *_) = collect(once).summaries, twice.summaries
    assert (alone.subject.values, both.subject.values) == (4, 8)
    assert both.subject.mean == pytest.approx(alone.subject.mean)
    assert twice.differences[0].cells == 2 * collect(once).differences[0].cells


def test_checkpoints_are_painted_too_and_the_training_is_not_repeated(
    asked: Asked, plan: Plan, folder: Path, in_process: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dti_geom.sweeps.cells.train", None)  # would fail
    more = plan_of(asked(methods=["ti"], evaluate={"checkpoints": [2]}), "more")
    assert {state.state for state in run_sweep(more, folder, in_process)} == {"done"}
    sweep = collect(read_finished(more, folder))
    steps = {one.step: one.inflation for one in sweep.courses if one.subject == "dog"}
    assert list(steps) == [2, 4]
    assert steps[2] != steps[4]
    for _, result in read_finished(more, folder).results:
        # Two prompts and all picture seeds, at the checkpoint as at the end.
        assert [moment.images for moment in result.moments] == [4, 4]
    run_sweep(plan, folder, in_process)  # leaves its own plan in the folder


def test_the_table_has_a_row_for_every_picture(plan: Plan, folder: Path, tmp_path: Path) -> None:
    save_table(tmp_path / "results.csv", read_finished(plan, folder))
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert len(rows) == 32
    assert {row["method"] for row in rows} == {"dti", "free", "free-rescaled", "class word"}
    assert all(-1 <= float(row["subject_score"]) <= 1 for row in rows)


def test_a_failed_cell_leaves_its_log_and_is_retried_only_when_asked(
    asked: Asked, in_process: Engine, tmp_path: Path
) -> None:
    broken = plan_of(
        asked(methods=["dti"], evaluate={"image_encoder": "./no-such-encoder"}), "broken"
    )
    states = run_sweep(broken, tmp_path, in_process)
    assert [state.state for state in states] == ["failed", "failed"]
    assert "no-such-encoder" in (tmp_path / "cells" / states[0].key / "error.txt").read_text()
    assert states[0].error is not None
    assert "no-such-encoder" in states[0].error
    ended: list[Outcome | None] = []
    run_sweep(broken, tmp_path, in_process, progress=lambda outcome, *_: ended.append(outcome))
    assert ended == [None]
    run_sweep(
        broken,
        tmp_path,
        in_process,
        retry_failed=True,
        progress=lambda outcome, *_: ended.append(outcome),
    )
    assert [outcome is not None and outcome.error is not None for outcome in ended[2:]] == [
        True,
        True,
    ]
    with pytest.raises(SweepError, match="no cell is finished yet \\(2 failed\\)"):
        collect(read_finished(broken, tmp_path))


def test_a_result_depends_on_the_cell_alone(
    asked: Asked, plan: Plan, folder: Path, kept: Kept, tmp_path: Path
) -> None:
    """Not on the cells that its process computed before it."""
    for place, cell in enumerate(plan.cells[::-1]):
        run_cell(cell, tmp_path / str(place))
        for name, data in kept(tmp_path / str(place)).items():
            assert (folder / name).read_bytes() == data, name


def test_what_is_left_is_estimated_from_what_is_done(plan: Plan, folder: Path) -> None:
    assert estimate(plan, folder).cells == 0
    more = replace(
        plan,
        cells=(*plan.cells, *(replace(cell, run=replace(cell.run, seed=9)) for cell in plan.cells)),
    )
    found = estimate(more, folder)
    assert (found.cells, found.trainings) == (4, 4)
    assert found.pictures == 2 * (4 + 12)  # two subjects; dti, and ti with two baselines
    assert found.source == "4 finished cells"
    assert found.seconds > 0
    assert found.bytes > 0
    watched = [
        replace(cell, evaluation=replace(cell.evaluation, checkpoints=(2,))) for cell in plan.cells
    ]
    # A checkpoint is painted from every picture seed.
    assert estimate(replace(plan, cells=(*plan.cells, *watched)), folder).pictures == 2 * (8 + 16)


def test_without_a_finished_cell_something_is_timed(plan: Plan, tmp_path: Path) -> None:
    found = estimate(plan, tmp_path)
    assert found.source.endswith("made here")
    assert found.seconds > 0
    assert found.bytes > 32 * 64  # no PNG is smaller


def test_the_folder_knows_its_plan(plan: Plan, folder: Path, tmp_path: Path) -> None:
    assert load_plan(folder) == plan
    assert read_states(plan, tmp_path)[0].state == "waiting"
    with pytest.raises(SweepError, match=r"has no plan\.json"):
        load_plan(tmp_path)


@pytest.mark.slow
def test_worker_processes_come_to_the_same_bytes(
    plan: Plan, folder: Path, kept: Kept, tmp_path: Path
) -> None:
    states = run_sweep(plan, tmp_path, LocalEngine(workers=2))
    assert {state.state for state in states} == {"done"}
    ours, theirs = kept(tmp_path), kept(folder)
    assert len(ours) >= 4 + 32
    assert {name: theirs[name] for name in ours} == ours
