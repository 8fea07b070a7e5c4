import csv
from dataclasses import replace

import pytest

from dti_geom.errors import SweepError
from dti_geom.sweeps import (
    LocalEngine,
    Outcome,
    collect,
    estimate,
    load_plan,
    plan_of,
    read_finished,
    read_states,
    run_sweep,
    save_table,
)
from dti_geom.sweeps.cells import run_cell, try_cell


def here(cells, folder):
    """An engine without processes."""
    for cell in cells:
        yield Outcome(cell, try_cell(cell, folder))


@pytest.fixture(scope="module")
def plan(asked):
    return plan_of(
        asked(methods=["dti", {"name": "ti", "label": "free", "baselines": True}]), "tiny"
    )


@pytest.fixture(scope="module")
def folder(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    states = run_sweep(plan, folder, here)
    assert [state.state for state in states] == ["done"] * 4, [state.error for state in states]
    return folder


def test_a_cell_that_is_done_is_not_computed_again(plan, folder):
    told = []
    run_sweep(plan, folder, here, progress=lambda *each: told.append(each))
    assert told == [(None, 4, 4)]


def test_all_cells_are_scored_together_under_the_plans_labels(plan, folder):
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


def test_learned_norms_and_courses_name_their_subjects(plan, folder):
    sweep = collect(read_finished(plan, folder))
    assert {(one.label, one.subject) for one in sweep.norms} == {
        (label, subject) for label in ("dti", "free") for subject in ("dog", "cat")
    }
    for one in sweep.norms:
        assert (abs(one.inflation - 1) < 1e-5) == (one.label == "dti")
    assert {one.step for one in sweep.courses} == {4}


def test_checkpoints_are_painted_too_and_the_training_is_not_repeated(
    asked, plan, folder, monkeypatch
):
    monkeypatch.setattr("dti_geom.sweeps.cells.train", None)  # would fail
    more = plan_of(asked(methods=["ti"], evaluate={"checkpoints": [2]}), "more")
    assert {state.state for state in run_sweep(more, folder, here)} == {"done"}
    sweep = collect(read_finished(more, folder))
    steps = {one.step: one.inflation for one in sweep.courses if one.subject == "dog"}
    assert list(steps) == [2, 4]
    assert steps[2] != steps[4]
    run_sweep(plan, folder, here)  # leaves its own plan in the folder


def test_the_table_has_a_row_for_every_picture(plan, folder, tmp_path):
    save_table(tmp_path / "results.csv", read_finished(plan, folder))
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert len(rows) == 32
    assert {row["method"] for row in rows} == {"dti", "free", "free-rescaled", "class word"}
    assert all(-1 <= float(row["subject_score"]) <= 1 for row in rows)


def test_a_failed_cell_leaves_its_log_and_is_retried_only_when_asked(asked, tmp_path):
    broken = plan_of(
        asked(methods=["dti"], evaluate={"image_encoder": "./no-such-encoder"}), "broken"
    )
    states = run_sweep(broken, tmp_path, here)
    assert [state.state for state in states] == ["failed", "failed"]
    assert "no-such-encoder" in (tmp_path / "cells" / states[0].key / "error.txt").read_text()
    assert "no-such-encoder" in states[0].error
    ended = []
    run_sweep(broken, tmp_path, here, progress=lambda outcome, *_: ended.append(outcome))
    assert ended == [None]
    run_sweep(
        broken,
        tmp_path,
        here,
        retry_failed=True,
        progress=lambda outcome, *_: ended.append(outcome),
    )
    assert [outcome.error is not None for outcome in ended[2:]] == [True, True]
    with pytest.raises(SweepError, match="no cell is finished yet \\(2 failed\\)"):
        collect(read_finished(broken, tmp_path))


def test_a_result_depends_on_the_cell_alone(asked, plan, folder, kept, tmp_path):
    """Not on the cells that its process computed before it."""
    for place, cell in enumerate(plan.cells[::-1]):
        run_cell(cell, tmp_path / str(place))
        for name, data in kept(tmp_path / str(place)).items():
            assert (folder / name).read_bytes() == data, name


def test_what_is_left_is_estimated_from_what_is_done(plan, folder):
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


def test_without_a_finished_cell_something_is_timed(plan, tmp_path):
    found = estimate(plan, tmp_path)
    assert found.source.endswith("made here")
    assert found.seconds > 0
    assert found.bytes > 32 * 64  # no PNG is smaller


def test_the_folder_knows_its_plan(plan, folder, tmp_path):
    assert load_plan(folder) == plan
    assert read_states(plan, tmp_path)[0].state == "waiting"
    with pytest.raises(SweepError, match=r"has no plan\.json"):
        load_plan(tmp_path)


def test_worker_processes_come_to_the_same_bytes(plan, folder, kept, tmp_path):
    states = run_sweep(plan, tmp_path, LocalEngine(workers=2))
    assert {state.state for state in states} == {"done"}
    ours, theirs = kept(tmp_path), kept(folder)
    assert len(ours) >= 4 + 32
    assert {name: theirs[name] for name in ours} == ours
