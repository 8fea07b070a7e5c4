"""A run and the folder it leaves: configuration, events, checkpoints, previews, learned tokens, result."""

import errno
import json
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dti_geom import __version__, geometry
from dti_geom.errors import FileExists, TrainingError
from dti_geom.files import (
    LearnedToken,
    alone_in,
    atomic_path,
    from_json,
    load_result,
    save_result,
    to_json,
    write_embeddings,
    write_text,
)
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.training.config import RunConfig
from dti_geom.training.processes import Processes
from dti_geom.training.trainer import StepRecord, Trainer

WAIT = 10.0  # seconds for a worker that lost its cluster to end, before its run is given to another
NEAREST = 5  # words named beside a vector
NEAREST_TIMES = 20  # how often in a run the nearest words are looked up

Progress = Callable[[StepRecord, int], None]  # an update, and how many there are in all


@dataclass(frozen=True)
class LearnedVectorResult:
    """One vector as a run leaves it; geometry in embedding units and radians."""

    token: str
    tower: str
    index: int
    norm: float
    inflation: float  # norm / mean norm of the vocabulary's non-zero rows
    angle_to_start: float
    cosine_to_prior: float
    nearest: tuple[str, ...]  # by direction, nearest first


@dataclass(frozen=True)
class Preview:
    """A picture painted on the way."""

    file: str  # relative to the run's folder
    token: str
    step: int
    prompt: str
    seed: int


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to."""

    config: RunConfig
    versions: dict[str, str]
    steps: int
    seconds_per_step: float  # median
    seconds: float  # of all updates together; loading, previews and files not counted
    peak_memory: int  # bytes
    last_losses: dict[str, float]  # of each token, mean over the last tenth of the run
    vectors: tuple[LearnedVectorResult, ...]
    previews: tuple[Preview, ...]


def train(
    config: RunConfig,
    out: str | Path | None = None,
    *,
    model: TextToImage | None = None,
    overwrite: bool = False,
    progress: Progress = lambda record, total: None,
    tracker: str | None = None,
) -> TrainingResult:
    """Learn the tokens of `config`; with `out`, keep everything in that folder.

    model: one that is open already; by default `config.model` is opened. tracker: tensorboard or wandb, by accelerate.
    Raises TrainingError, TrainingDiverged, UnknownToken, FileExists (unless `overwrite`), FolderInUse.
    """
    folder, processes = None if out is None else Path(out), Processes()
    if folder is not None and processes.is_main:
        _start_folder(folder, overwrite=overwrite)
    processes.wait()
    return _train(config, folder, model, progress, tracker)


def resume(
    out: str | Path,
    *,
    model: TextToImage | None = None,
    progress: Progress = lambda record, total: None,
    tracker: str | None = None,
) -> TrainingResult:
    """Go on with a run that stopped, from its last checkpoint, to the same vectors as without the stop."""
    folder = Path(out)
    if not (folder / "config.json").is_file():
        raise TrainingError(f"{folder} is not the folder of a run: it has no config.json.")
    if (folder / "result.json").is_file():
        return load_result(folder / "result.json", TrainingResult)
    return _train(load_result(folder / "config.json", RunConfig), folder, model, progress, tracker)


def load_events(folder: str | Path) -> list[StepRecord]:
    """The updates of a run, in order."""
    path = Path(folder) / "events.jsonl"
    try:
        return [
            from_json(StepRecord, json.loads(line))
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} does not hold the events of a run ({error}).") from error


def token_folder(out: Path, token: str, tokens: Sequence[str]) -> Path:
    """Where a run keeps a token: the folder itself, or one of its own among several."""
    if len(tokens) == 1:
        return out
    return (
        out / f"{list(tokens).index(token):02d}-{re.sub(r'[^A-Za-z0-9_-]+', '', token) or 'token'}"
    )


def _train(
    config: RunConfig,
    folder: Path | None,
    model: TextToImage | None,
    progress: Progress,
    tracker: str | None,
) -> TrainingResult:
    dtype = None if config.dtype is None else getattr(torch, config.dtype)
    ours = model is None
    model = model or open_text_to_image(config.model, device=config.device, dtype=dtype)
    trainer = Trainer(model, config)
    if ours and not config.preview.every:
        model.free_vae()
    else:
        model.rest_vae()
    config = trainer.config
    writer = _Folder(folder, trainer)
    records: list[StepRecord] = []
    alone = (
        alone_in(folder, WAIT)
        if folder is not None and trainer.processes.is_main
        else nullcontext()
    )
    with alone, _full_disk_told(folder), _tracking(tracker, folder, config) as track:
        if folder is not None:
            writer.restore()
            records = load_events(folder) if trainer.step else []
        for record in trainer.updates():
            record = writer.keep(record)
            records.append(record)
            track(record)
            progress(record, config.steps or 0)
        result = writer.finish(records)
    return result


class _Folder:
    """Listens to a trainer and keeps what it does; without a folder it only looks up what the result needs."""

    def __init__(self, folder: Path | None, trainer: Trainer) -> None:
        self.folder = folder if trainer.processes.is_main else None  # the others only read
        self.read_from, self.trainer, self.config = folder, trainer, trainer.config
        self.tokens, self.towers = (
            [concept.config.token for concept in trainer.concepts],
            trainer.model.towers,
        )
        total = self.config.steps or 1
        self.nearest_every = max(1, total // NEAREST_TIMES)

    def restore(self) -> None:
        """Load the last checkpoint, and forget the events after it; a new run writes down what it was asked."""
        assert self.read_from is not None
        states = sorted(self.read_from.glob("checkpoints/step-*.state"))
        if states:
            from safetensors.torch import load_file

            self.trainer.load_state(load_file(states[-1]))
        self.trainer.processes.wait()  # until all have read, nobody writes
        if self.folder is None:
            return
        if not (self.folder / "config.json").exists():
            save_result(self.folder / "config.json", self.config)
        events = self.folder / "events.jsonl"
        lines = (
            events.read_text(encoding="utf-8").splitlines()[: self.trainer.step]
            if events.exists()
            else []
        )
        write_text(events, "".join(line + "\n" for line in lines), overwrite=True)
        if self.trainer.step == 0:
            self._preview(0)

    def keep(self, record: StepRecord) -> StepRecord:
        """One update: its event, and what is due at it."""
        last = record.step == self.config.steps
        if last or record.step == 1 or record.step % self.nearest_every == 0:
            record = self._with_nearest(record)
        if self.folder is None:
            return record
        with open(self.folder / "events.jsonl", "a", encoding="utf-8") as events:
            events.write(json.dumps(to_json(record), ensure_ascii=False) + "\n")
        every = self.config.preview.every
        if every and (last or record.step % every == 0):
            self._preview(record.step)
        if last or record.step % self.config.checkpoint_every == 0:
            self._checkpoint(record.step)
        return record

    def finish(self, records: Sequence[StepRecord]) -> TrainingResult:
        """The result, and the learned tokens where they are looked for."""
        vectors = self.trainer.vectors()
        tail = records[-max(1, len(records) // 10) :]
        seconds = sorted(record.seconds for record in records)
        result = TrainingResult(
            config=self.config,
            versions=versions(),
            steps=len(records),
            seconds_per_step=seconds[len(seconds) // 2],
            seconds=sum(seconds),
            peak_memory=max(record.peak_memory for record in records),
            last_losses={
                token: sum(r.losses[token] for r in tail) / len(tail) for token in self.tokens
            },
            vectors=tuple(self._final(vectors)),
            previews=self._previews(),
        )
        if self.folder is not None:
            for token, towers in vectors.items():
                self._write_token(
                    token_folder(self.folder, token, self.tokens), token, towers, len(records)
                )
            save_result(self.folder / "result.json", result, overwrite=True)
        return result

    def _final(self, vectors: dict[str, list[Tensor]]) -> Iterator[LearnedVectorResult]:
        for concept in self.trainer.concepts:
            token = concept.config.token
            for tower, learned, rows in zip(
                self.towers, concept.learned, vectors[token], strict=True
            ):
                directions = geometry.normalize(rows)
                start = geometry.normalize(learned.start.cpu())
                for index, row in enumerate(rows):
                    yield LearnedVectorResult(
                        token=token,
                        tower=tower.name,
                        index=index,
                        norm=float(geometry.norms(row)),
                        inflation=float(geometry.norms(row)) / learned.reference.norms.mean,
                        angle_to_start=float(geometry.angle(directions[index], start[index])),
                        cosine_to_prior=float(directions[index] @ learned.prior[index].cpu()),
                        nearest=nearest_words(tower, row),
                    )

    def _with_nearest(self, record: StepRecord) -> StepRecord:
        found: dict[tuple[str, str, int], tuple[str, ...]] = {}
        for concept in self.trainer.concepts:
            for tower, learned in zip(self.towers, concept.learned, strict=True):
                for index, row in enumerate(learned.vectors().detach()):
                    found[concept.config.token, tower.name, index] = nearest_words(tower, row)
        return replace(
            record,
            vectors=tuple(
                replace(one, nearest=found[one.token, one.tower, one.index])
                for one in record.vectors
            ),
        )

    def _checkpoint(self, step: int) -> None:
        """The tokens as files that other tools load, then the state: its presence says that the checkpoint is whole."""
        from safetensors.torch import save_file

        assert self.folder is not None
        place = self.folder / "checkpoints" / f"step-{step:06d}"
        for token, towers in self.trainer.vectors().items():
            self._write_token(token_folder(place, token, self.tokens), token, towers, step)
        with atomic_path(place.with_suffix(".state"), overwrite=True) as beside:
            save_file(
                {name: value.contiguous() for name, value in self.trainer.state().items()}, beside
            )

    def _write_token(self, folder: Path, token: str, towers: list[Tensor], step: int) -> None:
        concept = next(one.config for one in self.trainer.concepts if one.config.token == token)
        names = [tower.name for tower in self.towers]
        preview, method = self.config.preview, self.config.method
        metadata = {
            "tool": f"dti-geom {__version__}",
            "base_model": self.config.model,
            "token": token,
            "method": method.name,
            "init": concept.init,
            "magnitude": method.magnitude or "free",
            "step": str(step),
            "seed": str(self.config.seed),
            # What makes the preview again: prompt, seed, sampler settings.
            "preview": json.dumps(
                {
                    "prompts": [prompt.replace("{}", token) for prompt in preview.prompts],
                    "seeds": preview.seeds,
                    "steps": preview.steps or self.trainer.model.sampling_steps,
                    "guidance": self.trainer.model.guidance
                    if preview.guidance is None
                    else preview.guidance,
                    "size": self.config.data.resolution,
                    "dtype": self.config.dtype,
                }
            ),
        }
        tokens = [LearnedToken(token, name, rows) for name, rows in zip(names, towers, strict=True)]
        write_embeddings(folder, tokens, metadata=metadata, overwrite=True)

    def _preview(self, step: int) -> None:
        preview = self.config.preview
        if self.folder is None or not preview.every:
            return
        model = self.trainer.model
        for token, vectors in self.trainer.vectors().items():
            model.place(token, [rows.to(model.device) for rows in vectors])
            asked = [(prompt, seed) for prompt in preview.prompts for seed in preview.seeds]
            pictures = model.generate(
                [prompt.replace("{}", token) for prompt, _ in asked],
                [seed for _, seed in asked],
                steps=preview.steps,
                guidance=preview.guidance,
                size=self.config.data.resolution,
            )
            place = token_folder(self.folder, token, self.tokens) / "previews"
            for number, picture in enumerate(pictures):
                with atomic_path(
                    place / f"step-{step:06d}-{number:02d}.png", overwrite=True
                ) as beside:
                    picture.save(beside)
        model.rest_vae()

    def _previews(self) -> tuple[Preview, ...]:
        if self.folder is None:
            return ()
        preview = self.config.preview
        asked = [(prompt, seed) for prompt in preview.prompts for seed in preview.seeds]
        found = []
        for token in self.tokens:
            place = token_folder(self.folder, token, self.tokens) / "previews"
            for path in sorted(place.glob("step-*.png")):
                _, step, number = path.stem.split("-")
                prompt, seed = asked[int(number)]
                file = path.relative_to(self.folder).as_posix()
                found.append(Preview(file, token, int(step), prompt.replace("{}", token), seed))
        return tuple(found)


def nearest_words(tower: Any, vector: Tensor) -> tuple[str, ...]:
    """The vocabulary's words nearest by direction, nearest first."""
    rows = geometry.nearest(vector[None].to(tower.token_table), tower.token_table, NEAREST).indices[
        0
    ]
    return tuple(tower.vocabulary.tokens(rows.tolist()))


def versions() -> dict[str, str]:
    """Of what a number may depend on."""
    packages = ("torch", "transformers", "diffusers", "numpy")
    return {"dti-geom": __version__, "python": platform.python_version()} | {
        name: version(name) for name in packages
    }


def _start_folder(folder: Path, *, overwrite: bool) -> None:
    """An empty place for a run; with `overwrite`, what an earlier run left there is removed, and nothing else."""
    if not (folder / "config.json").exists():
        return
    if not overwrite:
        raise FileExists(
            f"{folder} holds a run already. Go on with it by --resume {folder}, choose another --out, "
            "or pass --overwrite."
        )
    with alone_in(folder, WAIT):
        _forget_run(folder)


def _forget_run(folder: Path) -> None:
    config = load_result(folder / "config.json", RunConfig)
    tokens = [concept.token for concept in config.concepts]
    for place in {folder, *(token_folder(folder, token, tokens) for token in tokens)}:
        for name in ("checkpoints", "previews"):
            shutil.rmtree(place / name, ignore_errors=True)
        for path in [*place.glob("learned_embeds*.safetensors")]:
            path.unlink()
    for name in ("events.jsonl", "result.json", "index.html", "config.json"):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def _full_disk_told(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise TrainingError(
            f"{error.filename or folder}: {error.strerror}. Make room, then go on with: "
            f"dti-geom train --resume {folder}"
        ) from error


@contextmanager
def _tracking(
    name: str | None, folder: Path | None, config: RunConfig
) -> Iterator[Callable[[StepRecord], None]]:
    """A listener that sends every update to a tracker of accelerate's."""
    if name is None:
        yield lambda record: None
        return
    from accelerate import Accelerator

    accelerator = Accelerator(log_with=name, project_dir=folder, cpu=config.device == "cpu")
    accelerator.init_trackers("dti-geom")

    def track(record: StepRecord) -> None:
        figures = {f"loss/{token}": loss for token, loss in record.losses.items()}
        figures |= {f"norm/{one.token}/{one.tower}/{one.index}": one.norm for one in record.vectors}
        accelerator.log(figures | {"learning_rate": record.learning_rate}, step=record.step)

    try:
        yield track
    finally:
        accelerator.end_training()
