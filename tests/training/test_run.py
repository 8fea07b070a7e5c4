import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dti_geom.errors import (
    FileExists,
    FolderInUse,
    OutOfMemory,
    TrainingDiverged,
    TrainingError,
    UnknownToken,
)
from dti_geom.files import load_result, read_embeddings
from dti_geom.files.run_layout import token_folder
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.training import (
    ConceptConfig,
    MethodConfig,
    PreviewConfig,
    RunConfig,
    resume,
    train,
)
from dti_geom.training.run import load_events, versions
from dti_geom.training.token_vectors import TokenVectors
from dti_geom.training.trainer import StepRecord

FAMILIES = ("sd15", "sd21", "sdxl", "sana")


def learned_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("learned_embeds*"))}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["dti", "ti", "crossinit"])
def test_every_family_learns_a_token_end_to_end(
    family: str,
    method: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    config: Callable[..., RunConfig],
) -> None:
    asked = config(
        model=str(request.getfixturevalue(f"{family}_pipeline")),
        method=MethodConfig(method),
        preview=PreviewConfig(every=6, seeds=(0,), steps=2),
    )
    result = train(asked, tmp_path / "run")
    moved = [one.angle_to_start for one in result.vectors]
    assert min(moved) > (0.001 if method == "crossinit" else 0.01)  # it starts from long vectors
    if method == "dti":
        assert [one.inflation for one in result.vectors] == pytest.approx(
            [1] * len(moved), rel=1e-5
        )
    files = learned_bytes(tmp_path / "run")
    assert len(files) == (2 if family == "sdxl" else 1)
    assert [preview.step for preview in result.previews] == [6]
    stored = [read_embeddings(tmp_path / "run" / name).tokens[0].vectors for name in files]
    norms = [float(row.norm()) for rows in stored for row in rows]
    assert norms == pytest.approx([one.norm for one in result.vectors], rel=1e-5)


def test_real_photographs_teach_a_token(
    shared_data: Path, tmp_path: Path, config: Callable[..., RunConfig]
) -> None:
    photos = ConceptConfig("<x>", str(shared_data / "dreambooth"), "dog", subject="dog")
    result = train(config(concepts=(photos,), steps=10), tmp_path / "run")
    assert result.steps == 10
    assert result.vectors[0].angle_to_start > 0.01


def test_a_run_leaves_what_it_promises(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(config(preview=PreviewConfig(every=3, seeds=(0, 1), steps=1)), out)
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "events.jsonl",
        "learned_embeds.safetensors",
        "previews",
        "result.json",
    ]
    events = load_events(out)
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6]
    assert all(event.seconds > 0 and event.peak_memory > 1e6 for event in events)
    assert events[-1].vectors[0].nearest == result.vectors[0].nearest
    assert sorted(path.name for path in (out / "checkpoints").glob("*.state")) == [
        f"step-00000{step}.state" for step in (2, 4, 6)
    ]
    assert len(result.previews) == 2 * 2
    metadata = read_embeddings(out / "learned_embeds.safetensors").metadata
    assert (metadata["token"], metadata["method"], metadata["step"], metadata["init"]) == (
        "<x>",
        "dti",
        "6",
        "dog",
    )
    assert resume(out) == result


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("vectors", [1, 3])
def test_the_saved_token_paints_in_diffusers_what_the_trainer_previewed(
    family: str,
    vectors: int,
    config: Callable[..., RunConfig],
    images: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    import diffusers

    folder = request.getfixturevalue(f"{family}_pipeline")
    out = tmp_path / "run"
    concept = ConceptConfig("<x>", str(images), "dog", vectors=vectors)
    preview = PreviewConfig(every=6, prompts=("a {} in the house",), seeds=(5,), steps=2)
    train(config(model=str(folder), concepts=(concept,), preview=preview), out)
    told = json.loads(read_embeddings(out / "learned_embeds.safetensors").metadata["preview"])

    pipeline: Any = diffusers.DiffusionPipeline
    pipeline = pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_textual_inversion(out, weight_name="learned_embeds.safetensors")
    if family == "sdxl":
        pipeline.load_textual_inversion(
            out,
            weight_name="learned_embeds_2.safetensors",
            text_encoder=pipeline.text_encoder_2,
            tokenizer=pipeline.tokenizer_2,
        )
    picture = pipeline(
        told["prompts"][0],
        num_inference_steps=told["steps"],
        guidance_scale=told["guidance"],
        height=told["size"],
        width=told["size"],
        generator=torch.Generator().manual_seed(told["seeds"][0]),
    ).images[0]
    previewed = np.asarray(Image.open(out / "previews" / "step-000006-00.png"), int)
    assert abs(np.asarray(picture, int) - previewed).max() <= 1


def test_a_run_with_several_concepts_keeps_each_in_a_folder_of_its_own(
    config: Callable[..., RunConfig], images: Path, tmp_path: Path
) -> None:
    tokens = ["<x>", "<y>"]
    concepts = tuple(
        ConceptConfig(token, str(images), word)
        for token, word in zip(tokens, ("dog", "cat"), strict=True)
    )
    result = train(
        config(concepts=concepts, preview=PreviewConfig(every=6, seeds=(0,), steps=1)),
        tmp_path / "run",
    )
    for token in tokens:
        folder = token_folder(tmp_path / "run", token, tokens)
        assert read_embeddings(folder / "learned_embeds.safetensors").tokens[0].token == token
    assert {preview.token for preview in result.previews} == set(tokens)


def test_without_a_folder_nothing_is_written(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert train(config()).steps == 6
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_never_overwritten_unasked_and_then_nothing_else_is_touched(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(config(), out)
    (out / "my notes.txt").write_text("keep me")
    with pytest.raises(FileExists, match="holds a run already"):
        train(config(), out)
    train(config(steps=2), out, overwrite=True)
    assert (out / "my notes.txt").read_text() == "keep me"
    assert [event.step for event in load_events(out)] == [1, 2]
    assert len(list((out / "checkpoints").glob("*.state"))) == 1


def test_a_run_that_diverged_keeps_its_last_checkpoint_and_goes_on_from_it(
    config: Callable[..., RunConfig], tiny: Callable[[], TextToImage], tmp_path: Path
) -> None:
    model = tiny()

    def spoil(record: StepRecord, _total: int) -> None:
        if record.step == 5:
            model.denoiser.conv_in.weight.data.fill_(float("nan"))

    with pytest.raises(
        TrainingDiverged, match="the loss of <x> is not finite at step 6; the vectors of step 5"
    ):
        train(config(), tmp_path / "run", model=model, progress=spoil)
    assert (tmp_path / "run" / "checkpoints" / "step-000004.state").exists()
    resume(tmp_path / "run")
    train(config(), tmp_path / "whole")
    assert learned_bytes(tmp_path / "run") == learned_bytes(tmp_path / "whole")


def test_a_resumed_folder_must_be_a_runs(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is not the folder of a run"):
        resume(tmp_path)


def test_a_run_at_work_is_left_alone_by_a_second(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dti_geom.training.run.WAIT", 0)
    out, refused = tmp_path / "run", []

    def start_again(record: StepRecord, _total: int) -> None:
        with pytest.raises(FolderInUse, match="another process is at work there"):
            resume(out)
        refused.append(record.step)
        with pytest.raises(FolderInUse, match="another process is at work there"):
            train(config(), out, overwrite=True)
        refused.append(record.step)

    train(config(steps=1), out, progress=start_again)
    assert refused == [1, 1]
    assert len(load_events(out)) == 1


def test_a_run_that_is_extended_ends_on_the_bytes_of_a_longer_run(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    train(config(steps=9), tmp_path / "long")
    train(config(), tmp_path / "run")
    result = resume(tmp_path / "run", steps=9)
    assert (result.steps, result.config.steps, result.config.extended_from) == (9, 9, (6,))
    assert load_result(tmp_path / "run" / "config.json", RunConfig) == result.config
    assert learned_bytes(tmp_path / "run") == learned_bytes(tmp_path / "long") != {}
    assert resume(tmp_path / "run", steps=9) == result


def test_a_run_is_not_extended_to_fewer_updates_or_beyond_the_end_of_its_schedule(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    train(config(method=MethodConfig(schedule="cosine"), steps=2), tmp_path / "run")
    before = (tmp_path / "run" / "result.json").read_bytes()
    with pytest.raises(TrainingError, match="asked for 2 updates; 1 are fewer"):
        resume(tmp_path / "run", steps=1)
    with pytest.raises(TrainingError, match="schedule 'cosine'"):
        resume(tmp_path / "run", steps=3)
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_a_run_says_before_its_first_update_that_its_norm_leaves_the_vocabulary(
    config: Callable[..., RunConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []

    def progress(record: StepRecord, _total: int) -> None:
        if record.step == 1:
            said.append(caplog.text)

    method = MethodConfig("ti", learning_rate=1.0)
    train(config(method=method, steps=1), tmp_path / "free", progress=progress)
    assert "ti leaves the norm free" in said[0]
    caplog.clear()
    resume(tmp_path / "free", steps=2)
    train(config(method=MethodConfig("dti"), steps=1), tmp_path / "held")
    assert "norm free" not in caplog.text


def test_emulated_bfloat16_is_told_before_a_run(
    config: Callable[..., RunConfig],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for best, told in ((torch.bfloat16, False), (torch.float32, True)):
        monkeypatch.setattr("dti_geom.training.run.default_dtype", lambda _, best=best: best)
        caplog.clear()
        train(config(steps=1, dtype="bfloat16"), tmp_path / str(best))
        assert ("bfloat16 is emulated" in caplog.text) == told


def test_a_run_whose_rate_does_not_end_is_extended(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    train(config(method=MethodConfig(schedule="angular:0.5"), steps=2), tmp_path / "run")
    assert resume(tmp_path / "run", steps=3).steps == 3


def test_a_damaged_last_state_is_named_and_the_one_before_it_is_used(
    config: Callable[..., RunConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(config(), tmp_path / "run")
    ended = learned_bytes(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    last = tmp_path / "run" / "checkpoints" / "step-000006.state"
    last.write_bytes(last.read_bytes()[:-8])
    resume(tmp_path / "run")
    assert "step-000006.state is damaged" in caplog.text
    assert learned_bytes(tmp_path / "run") == ended


def test_a_folder_that_another_run_took_meanwhile_is_left_alone(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    asked = config(steps=2)

    def build(*arguments: Any) -> TokenVectors:
        train(config(steps=1), tmp_path / "run")  # a second process that is faster
        return TokenVectors.build(*arguments)

    with pytest.raises(FileExists, match="holds a run already"):
        train(asked, tmp_path / "run", build=build)
    assert load_result(tmp_path / "run" / "config.json", RunConfig).steps == 1


def test_what_a_linked_folder_points_to_is_never_removed(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    train(config(steps=1), tmp_path / "run")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "run" / "checkpoints").rename(elsewhere)
    (tmp_path / "run" / "checkpoints").symlink_to(elsewhere)
    kept = sorted(path.name for path in elsewhere.iterdir())
    train(config(steps=2), tmp_path / "run", overwrite=True)
    assert sorted(path.name for path in elsewhere.iterdir()) == kept
    assert not (tmp_path / "run" / "checkpoints").is_symlink()


def test_a_concept_that_ships_is_trained_by_its_name_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    concept = ConceptConfig("<x>", "green-fox", "fox")
    asked = RunConfig("mini", (concept,), steps=1, preview=PreviewConfig(every=0))
    (trained,) = train(asked).config.concepts
    assert Path(trained.images).is_dir()
    assert Path(trained.images).name == "green-fox"


def test_what_takes_long_between_updates_is_named(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    stages: list[str] = []
    asked = config(steps=1, preview=PreviewConfig(every=1, seeds=(0,), steps=1))
    result = train(asked, tmp_path / "run", stage=stages.append)
    assert stages[:2] == [f"opening {asked.model}", "encoding images"]
    assert set(stages[2:]) == {"painting previews"}
    assert result.wall_seconds is not None
    assert result.wall_seconds > result.seconds


def test_a_full_disk_is_one_clear_line(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/checkpoints")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(
        TrainingError, match=r"No space left on device\. Make room.*dti-geom train --resume"
    ):
        train(config(), tmp_path / "run")


def test_a_token_that_is_a_word_is_refused_before_anything_is_encoded(
    config: Callable[..., RunConfig], images: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnknownToken, match="dog is a word of this model already"):
        train(config(concepts=(ConceptConfig("dog", str(images), "cat"),)), tmp_path / "run")


# --- Whole processes ---


def command(asked: RunConfig, out: Path, *more: str) -> list[str]:
    concept = asked.concepts[0]
    options = {
        "model": asked.model,
        "images": concept.images,
        "token": concept.token,
        "init": concept.init,
        "steps": asked.steps,
        "batch-size": asked.batch_size,
        "resolution": 64,
        "dtype": "float32",
        "checkpoint-every": 3,
        "preview-every": 0,
        "out": out,
    }
    return ["train", *(f"--{name}={value}" for name, value in options.items()), *more]


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dti_geom_cli", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [(), ("--method", "ti", "--average-last", "4", "--schedule", "cosine")], ids=str
)
def test_killed_and_resumed_a_run_ends_on_the_same_bytes(
    options: Any, config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    asked = config(steps=30)
    whole = run(command(asked, tmp_path / "whole", *options))
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "killed"
    for stop_after in (2, 10, 17):
        arguments = (
            command(asked, out, *options) if stop_after == 2 else ["train", "--resume", str(out)]
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "dti_geom_cli", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        events = out / "events.jsonl"
        while process.poll() is None and not (
            events.exists() and events.read_bytes().count(b"\n") >= stop_after
        ):
            time.sleep(0.002)
        assert process.poll() is None, "the run was over before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (out / "result.json").exists()
    ended = run(["train", "--resume", str(out)])
    assert ended.returncode == 0, ended.stderr
    assert learned_bytes(out) == learned_bytes(tmp_path / "whole")
    states = [folder / "checkpoints" / "step-000030.state" for folder in (out, tmp_path / "whole")]
    assert states[0].read_bytes() == states[1].read_bytes()
    assert [event.step for event in load_events(out)] == list(range(1, 31))
    figures = [
        [(event.losses, event.vectors) for event in load_events(folder)]
        for folder in (out, tmp_path / "whole")
    ]
    assert figures[0] == figures[1]


@pytest.mark.slow
def test_two_processes_make_the_update_of_one_with_twice_the_batch(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    asked = config(batch_size=2)
    # accelerate starts several processes on one machine by this option alone, GPUs or not.
    launched = [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launched += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "dti_geom_cli"]
    two = subprocess.run(
        [sys.executable, *launched, *command(asked, tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert two.returncode == 0, two.stderr
    one = run(command(replace(asked, batch_size=4), tmp_path / "one"))
    assert one.returncode == 0, one.stderr
    vectors = [
        read_embeddings(tmp_path / name / "learned_embeds.safetensors").tokens[0].vectors
        for name in ("one", "two")
    ]
    torch.testing.assert_close(*vectors, atol=1e-5, rtol=0)
    losses = [
        [event.losses["<x>"] for event in load_events(tmp_path / name)] for name in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_events_go_to_a_tracker_of_accelerates(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    train(config(), tmp_path / "run", tracker="tensorboard")
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))


@pytest.mark.parametrize("average_last", [0, 3])
def test_the_model_is_left_with_what_was_learned(
    tiny: Callable[[], TextToImage],
    config: Callable[..., RunConfig],
    tmp_path: Path,
    average_last: int,
) -> None:
    model = tiny()
    method = MethodConfig("ti", average_last=average_last)
    train(config(steps=4, method=method), tmp_path / "run", model=model)
    (written,) = read_embeddings(tmp_path / "run" / "learned_embeds.safetensors").tokens
    assert torch.equal(model.towers[0].learned["<x>"], written.vectors)
    assert not model.towers[0].learned["<x>"].requires_grad


def out_of_memory(*_args: object, **_kwargs: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.25 GiB.")


@pytest.mark.parametrize(
    ("part", "work", "helps"),
    [
        ("predict", "training", "--batch-size 1 --accumulate 4"),
        ("encode_images", "encoding the images", "--memory low"),
        ("generate", "painting previews", "--preview-every 0"),
    ],
)
def test_missing_memory_says_what_needed_it_and_what_helps(
    tiny: Callable[[], TextToImage],
    config: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    part: str,
    work: str,
    helps: str,
) -> None:
    model = tiny()
    monkeypatch.setattr(model, part, out_of_memory)
    run = config(batch_size=4, preview=PreviewConfig(every=1, steps=1))
    with pytest.raises(OutOfMemory, match=f"while {work}: 2.25 GiB") as caught:
        train(run, tmp_path / "run", model=model)
    assert helps in str(caught.value)


def test_no_option_is_named_that_the_run_uses_already(
    tiny: Callable[[], TextToImage],
    config: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny()
    monkeypatch.setattr(model, "predict", out_of_memory)
    with pytest.raises(OutOfMemory) as caught:
        train(config(batch_size=1, memory="low"), model=model)
    assert "--memory low" not in str(caught.value)
    assert "--batch-size" not in str(caught.value)


def test_a_result_names_the_commit_of_a_model_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_text_to_image("mini")
    assert "mini" not in versions(model)
    monkeypatch.setattr(model, "commit", "1" * 40)
    assert versions(model)["mini"] == "1" * 40
