import base64
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from dti_geom.errors import TrainingError
from dti_geom.files import dumps, from_json, save_result
from dti_geom.models.catalog import embedded_folder
from dti_geom.training import (
    ConceptConfig,
    PreviewConfig,
    RunConfig,
    read_run,
    train,
)
from dti_geom.training.run import load_events
from dti_geom.training.story import POINTS, TrainingRun, learned_files, thinned
from runs import write_run


@pytest.mark.parametrize(
    "count", [1, 2, POINTS - 1, POINTS, POINTS + 1, 2 * POINTS - 1, 2000, 100_003]
)
def test_thinning_keeps_the_ends_and_spreads_the_rest_evenly(count: int) -> None:
    places = thinned(count)
    assert (places[0], places[-1]) == (0, count - 1)
    assert len(places) == min(count, POINTS)
    gaps = np.diff(places)
    assert count == 1 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


def test_a_run_round_trips_through_json(tmp_path: Path) -> None:
    write_run(tmp_path, tokens=("<a>", "<b>"), towers=("one", "two"), vectors=2)
    run = read_run(tmp_path)
    assert from_json(TrainingRun, json.loads(dumps(run))) == run


def test_the_curves_are_the_events_of_each_vector(tmp_path: Path) -> None:
    write_run(tmp_path, tokens=("<a>", "<b>"), towers=("one", "two"), vectors=2)
    run, records = read_run(tmp_path), load_events(tmp_path)
    assert run.steps == tuple(range(1, 41))
    assert run.learning_rates == tuple(record.learning_rate for record in records)
    assert run.seconds == tuple(record.seconds for record in records)
    assert [one.token for one in run.losses] == ["<a>", "<b>"]
    assert run.losses[1].losses == tuple(record.losses["<b>"] for record in records)
    for number, curve in enumerate(run.vectors):
        course = [record.vectors[number] for record in records]
        assert {(one.token, one.tower, one.index) for one in course} == {
            (curve.token, curve.tower, curve.index)
        }
        assert curve.norms == tuple(one.norm for one in course)
        assert curve.angles_to_start == tuple(one.angle_to_start for one in course)
        assert curve.cosines_to_prior == tuple(one.cosine_to_prior for one in course)
        assert curve.gradient_norms == tuple(one.gradient_norm for one in course)


def test_medians_and_tenths_come_from_all_updates_of_a_thinned_run(tmp_path: Path) -> None:
    losses = np.random.default_rng(0).normal(1, 0.1, 2001)
    result = write_run(tmp_path, steps=2001, loss=lambda step: float(losses[step - 1]))
    run = read_run(tmp_path)
    (curve,) = run.losses
    assert len(curve.losses) == len(curve.medians) == len(run.steps) == POINTS
    assert run.window == 101
    for step, median in zip(run.steps, curve.medians, strict=True):
        assert median == pytest.approx(np.median(losses[max(0, step - 51) : step + 50]))
    assert (curve.first.updates, curve.last.updates) == (200, 200)
    assert curve.first.mean == pytest.approx(losses[:200].mean())
    assert curve.first.error == pytest.approx(losses[:200].std(ddof=1) / 200**0.5)
    assert curve.last.mean == pytest.approx(result.last_losses["<x>"])


def test_a_tenth_of_one_update_has_no_error(tmp_path: Path) -> None:
    write_run(tmp_path, steps=3)
    assert read_run(tmp_path).losses[0].first.error is None


def test_look_ups_that_found_the_same_words_are_one(tmp_path: Path) -> None:
    found = {1: ("dog",), 10: ("dog",), 20: ("cat", "dog"), 30: ("dog",), 40: ("dog",)}
    write_run(tmp_path, words=lambda step: found.get(step, ()))
    assert [(one.first_step, one.last_step, one.words) for one in read_run(tmp_path).words] == [
        (1, 10, ("dog",)),
        (20, 20, ("cat", "dog")),
        (30, 40, ("dog",)),
    ]


def test_pictures_hold_the_bytes_of_the_previews(tmp_path: Path) -> None:
    result = write_run(tmp_path, tokens=("<a>", "<b>"))
    pictures = read_run(tmp_path).pictures
    assert tuple(one.preview for one in pictures) == result.previews
    for one in pictures:
        kind, data = one.uri.split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) == (tmp_path / one.preview.file).read_bytes()


def test_a_preview_that_was_removed_is_left_out(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    (tmp_path / result.previews[2].file).unlink()
    expected = (*result.previews[:2], *result.previews[3:])
    assert tuple(one.preview for one in read_run(tmp_path).pictures) == expected


def test_only_pictures_of_the_run_itself_are_taken(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = write_run(folder)
    preview = folder / result.previews[0].file
    (tmp_path / "private.png").write_bytes(preview.read_bytes())
    preview.write_bytes(b"no picture")
    with pytest.raises(TrainingError, match="is not a PNG"):
        read_run(folder)
    preview.unlink()
    os.mkfifo(preview)  # nothing waits for its writer
    with pytest.raises(TrainingError, match="is not a PNG"):
        read_run(folder)
    preview.unlink()
    preview.symlink_to(tmp_path / "private.png")
    with pytest.raises(TrainingError, match="outside the run's folder"):
        read_run(folder)
    escaping = dataclasses.replace(result.previews[0], file="../private.png")
    save_result(
        folder / "result.json", dataclasses.replace(result, previews=(escaping,)), overwrite=True
    )
    with pytest.raises(TrainingError, match="outside the run's folder"):
        read_run(folder)


def test_what_is_no_finished_run_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no config\.json"):
        read_run(tmp_path)
    write_run(tmp_path / "run")
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "events.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(TrainingError, match=r"holds 39 updates, but result\.json counts 40"):
        read_run(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(TrainingError, match=r"not finished.*--resume"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("events.jsonl", '"norm": 0.4', '"norm": NaN'),
        ("events.jsonl", '{"<x>"', '{"<y>"'),
        ("result.json", '"<x>": 0.2', '"<y>": 0.2'),
        ("events.jsonl", '"step": 40', '"step": ' + "[" * 100_000),
    ],
)
def test_a_run_whose_files_were_changed_is_refused(
    file: str, old: str, new: str, tmp_path: Path
) -> None:
    write_run(tmp_path)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    with pytest.raises(TrainingError, match=r"events\.jsonl"):
        read_run(tmp_path)


def test_a_pipe_in_place_of_the_events_is_not_waited_for(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "events.jsonl").unlink()
    os.mkfifo(tmp_path / "events.jsonl")
    with pytest.raises(TrainingError, match="not a regular file"):
        read_run(tmp_path)


@pytest.mark.parametrize("tokens", [("<x>",), ("<b>", "<a>")])
def test_learned_files_come_in_the_order_of_the_concepts(tmp_path: Path, tokens: list[str]) -> None:
    config = write_run(tmp_path, tokens=tokens).config
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "learned_embeds.safetensors").write_bytes(b"of an earlier step")
    folders = [
        path.parent.relative_to(tmp_path).as_posix() for path in learned_files(tmp_path, config)
    ]
    assert folders == (["."] if len(tokens) == 1 else ["00-b", "01-a"])


def test_a_run_that_was_just_trained_reads_back(tmp_path: Path) -> None:
    images = embedded_folder() / "concepts" / "round-teapot"
    preview = PreviewConfig(every=2, seeds=(0,), steps=1)
    config = RunConfig(
        "mini",
        (ConceptConfig("<x>", str(images), "teapot"),),
        preview=preview,
        steps=2,
        dtype="float32",
    )
    result = train(config, tmp_path)
    run = read_run(tmp_path)
    assert run.result == result
    assert run.vectors[0].norms[-1] == result.vectors[0].norm
    assert [one.preview.step for one in run.pictures] == [2]
    assert run.words[-1].words == result.vectors[0].nearest
