"""A training run and the folder it leaves.

run/
  config.json           what was asked, every option filled in
  events.jsonl          one line per update
  checkpoints/          learned tokens during training, and what a resumed run reads
  previews/             pictures painted during training
  class_images/         what the model paints for prior preservation
  learned_embeds*.safetensors
  result.json           its presence says that the run is finished
"""

import errno
import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path

import torch

from dti_geom import __version__
from dti_geom.errors import (
    FileExists,
    OutOfMemory,
    TrainingError,
    TrainingStopped,
    first_line,
    missing_memory,
)
from dti_geom.files import (
    LearnedToken,
    alone_in,
    atomic_path,
    from_json,
    load_result,
    save_result,
    to_json,
    write_text,
)
from dti_geom.files.adapters import BUNDLE_FILE, adapter_files, write_bundle
from dti_geom.files.run_layout import (
    checkpoint_folder,
    learned_in,
    state_file,
    state_files,
    token_folder,
)
from dti_geom.geometry import norms
from dti_geom.models.pipelines import TextToImage, default_dtype, open_text_to_image
from dti_geom.models.pipelines.memory import spend_memory
from dti_geom.progress import Progress as DownloadProgress
from dti_geom.progress import notice, silent
from dti_geom.training.checks import check_before_loading
from dti_geom.training.class_images import class_images, painted_for
from dti_geom.training.config import PreviewConfig, RunConfig, parse_schedule
from dti_geom.training.data import located
from dti_geom.training.estimates import choose_memory
from dti_geom.training.inflation import inflation_notice, predict_run
from dti_geom.training.kernels import kernels
from dti_geom.training.old_states import with_old_defaults
from dti_geom.training.peak_memory import reset_peak_memory
from dti_geom.training.processes import Processes
from dti_geom.training.stopping import stop_between_updates
from dti_geom.training.token_vectors import TokenVectors
from dti_geom.training.trainable import Build, LearnedVectorResult, Values
from dti_geom.training.trainer import Concept, StepRecord, Trainer

# Seconds to wait for another process to leave the folder: a worker that lost its cluster ends.
WAIT = 10.0

Progress = Callable[[StepRecord, int], None]  # an update, and how many there are in all
Stage = Callable[[str], None]  # what begins


@dataclass(frozen=True)
class PreviewPicture:
    """A picture painted during training."""

    file: str  # relative to the run's folder
    token: str
    step: int
    prompt: str
    seed: int


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run reports."""

    config: RunConfig
    versions: dict[str, str]
    steps: int
    seconds_per_step: float  # median
    seconds: float  # of all updates together; loading, previews and files not counted
    # From the start of loading to the result, in the process that ended the run. None before 0.2.
    wall_seconds: float | None = field(default=None, kw_only=True)
    peak_memory: int  # bytes
    last_losses: dict[str, float]  # of each token, mean over the last tenth of the run
    vectors: tuple[LearnedVectorResult, ...]
    previews: tuple[PreviewPicture, ...]


def train(
    config: RunConfig,
    out: str | Path | None = None,
    *,
    model: TextToImage | None = None,
    overwrite: bool = False,
    progress: Progress = lambda record, total: None,
    stage: Stage = lambda name: None,
    download: DownloadProgress = silent,
    tracker: str | None = None,
    build: Build = TokenVectors.build,
) -> TrainingResult:
    """Learn the tokens of a configuration.

    out: folder for everything the run leaves; None writes nothing.
    model: an open model, which keeps the run's memory setting; by default `config.model` is opened.
    progress: called after each update with its record and the number of updates.
    stage: called with what begins, such as "painting previews", where no update is made.
    download: called with the bytes of a model that is not on this machine yet.
    tracker: tensorboard or wandb, through accelerate.
    build: makes what learns a concept; by default the vectors of its token.

    Ctrl-C and SIGTERM end the run after the current update, with a checkpoint. Raises
    TrainingStopped then, TrainingError, TrainingDiverged, MagnitudeError, UnknownToken,
    FolderInUse, and FileExists if `out` holds a run and `overwrite` is not set.
    """
    folder, processes = None if out is None else Path(out), Processes()
    if folder is not None and processes.is_main:
        _start_folder(folder, overwrite=overwrite)
    processes.wait()
    config = located(config)
    listeners = _Listeners(progress, stage, download, tracker)
    with kernels(config.device, deterministic=config.deterministic):
        return _train(config, folder, listeners, model=model, build=build, fresh=True)


def resume(
    out: str | Path,
    *,
    steps: int | None = None,
    model: TextToImage | None = None,
    progress: Progress = lambda record, total: None,
    stage: Stage = lambda name: None,
    download: DownloadProgress = silent,
    tracker: str | None = None,
    build: Build = TokenVectors.build,
) -> TrainingResult:
    """Continue a stopped run from its last checkpoint.

    steps: a larger number of updates than the run was asked for; config.json keeps the earlier
    numbers in `extended_from`. The learned vectors are byte-identical to those of a run without
    the stop, on a CPU and with `deterministic` on a GPU. A finished run returns its result, unless
    it is extended. Raises TrainingError if `out` is not the folder of a run or cannot be extended,
    and what `train` raises.
    """
    folder = Path(out)
    if not (folder / "config.json").is_file():
        raise TrainingError(f"{folder} is not the folder of a run: it has no config.json.")
    config = load_result(folder / "config.json", RunConfig)
    extended = config if steps is None else _extended(config, steps)
    if extended == config and (folder / "result.json").is_file():
        return load_result(folder / "result.json", TrainingResult)
    if extended != config and Processes().is_main:
        with alone_in(folder, WAIT):
            (folder / "result.json").unlink(missing_ok=True)
            save_result(folder / "config.json", extended, overwrite=True)
    listeners = _Listeners(progress, stage, download, tracker)
    with kernels(extended.device, deterministic=extended.deterministic):
        return _train(extended, folder, listeners, model=model, build=build, fresh=False)


def _extended(config: RunConfig, steps: int) -> RunConfig:
    """Return the configuration with more updates. Raises TrainingError for fewer of them."""
    asked = config.steps or 0
    if steps == asked:
        return config
    if steps < asked:
        raise TrainingError(
            f"the run was asked for {asked} updates; {steps} are fewer. Its checkpoints hold "
            "earlier tokens, or train again into another folder."
        )
    if parse_schedule(config.method.schedule or "constant").ends:
        raise TrainingError(
            f"the rate of this run falls to 0 at update {asked} (schedule "
            f"'{config.method.schedule}'), so more updates would be another run. Train again with "
            f"--steps {steps} into another folder."
        )
    return replace(config, steps=steps, extended_from=(*config.extended_from, asked))


def load_events(folder: str | Path) -> list[StepRecord]:
    """Return the updates of a run, in order. Raises TrainingError if they cannot be read."""
    path = Path(folder) / "events.jsonl"
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise TrainingError(f"{path} is not a regular file; expected the events of a run.")
    try:
        return [
            from_json(StepRecord, json.loads(line))
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(
            f"{path} does not hold the events of a run ({first_line(error)})."
        ) from error


@dataclass(frozen=True)
class _Listeners:
    """Who is told how far a run is."""

    progress: Progress
    stage: Stage
    download: DownloadProgress
    tracker: str | None


def _train(
    config: RunConfig,
    folder: Path | None,
    listeners: _Listeners,
    *,
    model: TextToImage | None,
    build: Build,
    fresh: bool,
) -> TrainingResult:
    """Make the updates that are left. fresh: no run may be in the folder yet."""
    started = time.monotonic()
    dtype = None if config.dtype is None else getattr(torch, config.dtype)
    opened_here = model is None
    if opened_here:
        check_before_loading(config)
        listeners.stage(f"opening {config.model}")
    config = _with_memory_chosen(config)
    with _explain_out_of_memory("loading the model", config):
        model = model or open_text_to_image(
            config.model, device=config.device, dtype=dtype, progress=listeners.download
        )
    if not fresh:
        config = with_old_defaults(config, model)
    reset_peak_memory(model.device)
    spend_memory(model, config.memory)
    listeners.stage("encoding images")
    with _explain_out_of_memory("encoding the images", config):
        classes = class_images(model, config, folder, listeners.stage)
        trainer = Trainer(model, config, build=build, class_images=classes)
    if opened_here and not (config.preview.every or config.data.random_crops):
        model.free_vae()
    else:
        model.rest_vae()
    config = trainer.config
    if fresh and opened_here and trainer.processes.is_main:
        _say_inflation(trainer)
        _say_if_emulated(model)
    writer = _RunWriter(folder, trainer, listeners.stage)
    records: list[StepRecord] = []
    alone = (
        alone_in(folder, WAIT)
        if folder is not None and trainer.processes.is_main
        else nullcontext()
    )
    with (
        alone,
        _explain_full_disk(folder),
        _tracking(listeners.tracker, folder, config) as track,
        stop_between_updates(trainer.processes.count) as stop,
    ):
        if folder is not None:
            if fresh and trainer.processes.is_main and (folder / "config.json").exists():
                raise _holds_a_run(folder)  # another process has started one meanwhile
            writer.restore()
            records = load_events(folder) if trainer.step else []
        with _explain_out_of_memory("training", config):
            for record in trainer.updates():
                records.append(record)
                track(record)
                listeners.progress(record, config.steps or 0)
                writer.keep(record)
                if stop.signal is not None and record.step != config.steps:
                    writer.stop(record.step, stop.signal)
        return writer.finish(records, started)


def _with_memory_chosen(config: RunConfig) -> RunConfig:
    """Return the configuration with `auto` memory decided, and say what was chosen for a card."""
    chosen = choose_memory(config)
    if chosen != config and torch.device(config.device).type == "cuda" and Processes().is_main:
        notice(f"memory: {chosen.memory}, because {chosen.memory_reason}.")
    return chosen


def _say_inflation(trainer: Trainer) -> None:
    """Say before a run whether its tokens will leave the range of the vocabulary's norms."""
    starts: list[list[float]] = []
    for concept in trainer.concepts:
        if isinstance(concept.trainable, TokenVectors):
            vectors = concept.trainable.vectors
            starts.append([float(norms(tower.start).max()) for tower in vectors])
    if len(starts) < len(trainer.concepts):
        return  # something else learns
    longest = [max(tower) for tower in zip(*starts, strict=True)]
    predicted = predict_run(trainer.config, trainer.model.towers, longest)
    said = inflation_notice(predicted) if predicted else None
    if said:
        notice(said)


def _say_if_emulated(model: TextToImage) -> None:
    """Say before a run that its number type is slower here than float32."""
    if model.dtype == torch.bfloat16 and default_dtype(str(model.device)) == torch.float32:
        notice(
            "bfloat16 is emulated on this device: an update may take many times what it takes in "
            "float32. Leave --dtype out to have the device's best."
        )


class _RunWriter:
    """Writes what a trainer does into the run's folder; without a folder it only sums up."""

    def __init__(self, folder: Path | None, trainer: Trainer, stage: Stage) -> None:
        self.folder = folder if trainer.processes.is_main else None  # other processes only read
        self.read_from, self.trainer, self.config = folder, trainer, trainer.config
        self.stage = stage
        self.tokens = [concept.config.token for concept in trainer.concepts]

    def restore(self) -> None:
        """Load the last whole checkpoint and drop the events after it; start a new run's files."""
        assert self.read_from is not None
        self._load_last_state(self.read_from)
        self.trainer.processes.wait()  # until all have read, nobody writes
        if self.folder is None:
            return
        if not (self.folder / "config.json").exists():
            save_result(self.folder / "config.json", self.config)
        events = self.folder / "events.jsonl"
        lines = events.read_text(encoding="utf-8").splitlines() if events.exists() else []
        kept = [line + "\n" for line in lines[: self.trainer.step]]
        write_text(events, "".join(kept), overwrite=True)

    def _load_last_state(self, folder: Path) -> None:
        """Load the latest state that is whole. A crash of the disk may damage the last one."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for path in reversed(state_files(folder)):
            try:
                state = load_file(path)
            except (SafetensorError, OSError) as error:
                notice(f"{path} is damaged ({first_line(error)}); trying the checkpoint before it.")
                continue
            self.trainer.load_state(state)
            return

    def stop(self, step: int, signal: int) -> None:
        """Write a checkpoint and raise TrainingStopped, which says how to resume."""
        done = f"stopped after update {step} of {self.config.steps}"
        if self.folder is None:
            raise TrainingStopped(f"{done}; the run has no folder, so nothing was kept.", signal)
        if not state_file(self.folder, step).exists():
            self._checkpoint(step)
        raise TrainingStopped(
            f"{done}. Continue with: dti-geom train --resume {self.folder}", signal
        )

    def keep(self, record: StepRecord) -> None:
        """Write the event of an update, and the preview and the checkpoint if they are due."""
        if self.folder is None:
            return
        with open(self.folder / "events.jsonl", "a", encoding="utf-8") as events:
            events.write(json.dumps(to_json(record), ensure_ascii=False) + "\n")
        last = record.step == self.config.steps
        every = self.config.preview.every
        if every and (last or record.step % every == 0):
            self._preview(record.step)
        if last or record.step % self.config.checkpoint_every == 0:
            self._checkpoint(record.step)

    def finish(self, records: Sequence[StepRecord], started: float) -> TrainingResult:
        """Return the result; write what was learned, and leave it in the model.

        started: by `time.monotonic`, when this process began.
        """
        learned = self.trainer.learned()
        vectors: list[LearnedVectorResult] = []
        for trainable, values in zip(self.trainer.trainables, learned, strict=True):
            trainable.place_values(self.trainer.model, values)
            vectors += trainable.results(values)
        self.trainer.hand_adapter_over(learned)
        tail = records[-max(1, len(records) // 10) :]
        seconds = sorted(record.seconds for record in records)
        result = TrainingResult(
            config=self.config,
            versions=versions(self.trainer.model),
            steps=len(records),
            seconds_per_step=seconds[len(seconds) // 2],
            seconds=sum(seconds),
            wall_seconds=time.monotonic() - started,
            peak_memory=max(record.peak_memory for record in records),
            last_losses={
                token: sum(record.losses[token] for record in tail) / len(tail)
                for token in self.tokens
            },
            vectors=tuple(vectors),
            previews=self._previews(),
        )
        if self.folder is not None:
            self._write_learned(self.folder, learned, len(records))
            save_result(self.folder / "result.json", result, overwrite=True)
        return result

    def _checkpoint(self, step: int) -> None:
        """Write what is learned as files that other tools load, then the state.

        The state file comes last: its presence says that the checkpoint is complete.
        """
        from safetensors.torch import save_file

        assert self.folder is not None
        self._write_learned(checkpoint_folder(self.folder, step), self.trainer.learned(), step)
        state = {name: value.contiguous() for name, value in self.trainer.state().items()}
        with atomic_path(state_file(self.folder, step), overwrite=True) as temporary:
            save_file(state, temporary)

    def _write_learned(self, folder: Path, learned: Sequence[Values], step: int) -> None:
        """Write every concept's values into `folder`, or each into a folder of its own in it."""
        # The adapter's values come last.
        for concept, values in zip(self.trainer.concepts, learned, strict=False):
            place = token_folder(folder, concept.config.token, self.tokens)
            concept.trainable.save(place, values, self._metadata(concept, step))
        if self.trainer.adapter is not None:
            metadata = self._metadata(self.trainer.concepts[0], step)
            metadata["token"] = " ".join(self.tokens)
            self.trainer.adapter.save(folder, learned[-1], metadata)
            self._write_bundle(folder, learned, metadata)

    def _write_bundle(
        self, folder: Path, learned: Sequence[Values], metadata: dict[str, str]
    ) -> None:
        """Write the adapter and the tokens as one file, where other tools read such files."""
        assert self.trainer.adapter is not None
        adapter = self.trainer.adapter.adapter(learned[-1], metadata)
        if adapter.shape.kind != "lora" or adapter.part != "unet":
            return
        tokens: list[LearnedToken] = []
        for token, values in zip(self.tokens, learned, strict=False):
            tokens += [LearnedToken(token, tower, rows) for tower, rows in values.items()]
        write_bundle(folder / BUNDLE_FILE, adapter, tokens, overwrite=True)

    def _metadata(self, concept: Concept, step: int) -> dict[str, str]:
        """Return what a learned file says about its origin, all as text."""
        preview, method, model = self.config.preview, self.config.method, self.trainer.model
        token = concept.config.token
        # Prompts, seeds and sampler settings: enough to paint the preview again.
        repeatable = {
            "prompts": [prompt.replace("{}", token) for prompt in preview.prompts],
            "seeds": preview.seeds,
            "steps": preview.steps,
            "guidance": model.guidance if preview.guidance is None else preview.guidance,
            "size": self.config.data.resolution,
            "dtype": self.config.dtype,
            "instruction": model.instruction,
        }
        return {
            "tool": f"dti-geom {__version__}",
            "base_model": self.config.model,
            "token": token,
            "method": method.name,
            "init": concept.config.init,
            "magnitude": method.magnitude or "free",
            "step": str(step),
            "seed": str(self.config.seed),
            "preview": json.dumps(repeatable),
        }

    def _preview(self, step: int) -> None:
        """Paint every concept's previews with what is learned so far."""
        preview, model = self.config.preview, self.trainer.model
        if self.folder is None or not preview.every:
            return
        self.stage("painting previews")
        wanted = _preview_prompts(preview)
        learned = self.trainer.learned()
        for trainable, values in zip(self.trainer.trainables, learned, strict=True):
            trainable.place_values(model, values)
        for token in self.tokens:
            with _explain_out_of_memory("painting previews", self.config):
                pictures = model.generate(
                    [prompt.replace("{}", token) for prompt, _ in wanted],
                    [seed for _, seed in wanted],
                    steps=preview.steps,
                    guidance=preview.guidance,
                    size=self.config.data.resolution,
                )
            place = token_folder(self.folder, token, self.tokens) / "previews"
            for number, picture in enumerate(pictures):
                path = place / f"step-{step:06d}-{number:02d}.png"
                with atomic_path(path, overwrite=True) as temporary:
                    picture.save(temporary)
        model.rest_vae()

    def _previews(self) -> tuple[PreviewPicture, ...]:
        """Return the previews in the folder, token by token, in order of steps."""
        if self.folder is None:
            return ()
        wanted = _preview_prompts(self.config.preview)
        previews = []
        for token in self.tokens:
            place = token_folder(self.folder, token, self.tokens) / "previews"
            for path in sorted(place.glob("step-*.png")):
                _, step, number = path.stem.split("-")
                prompt, seed = wanted[int(number)]
                previews.append(
                    PreviewPicture(
                        file=path.relative_to(self.folder).as_posix(),
                        token=token,
                        step=int(step),
                        prompt=prompt.replace("{}", token),
                        seed=seed,
                    )
                )
        return tuple(previews)


def _preview_prompts(preview: PreviewConfig) -> list[tuple[str, int]]:
    """Return each prompt with each seed, in the order in which previews are numbered."""
    return list(product(preview.prompts, preview.seeds))


def versions(model: TextToImage) -> dict[str, str]:
    """Return the versions of the software that a result depends on, and a Hub model's commit."""
    packages = ("torch", "transformers", "diffusers", "peft", "numpy")
    found = {"dti-geom": __version__, "python": platform.python_version()}
    if model.commit is not None:
        found[model.name] = model.commit
    return found | {name: version(name) for name in packages}


def _start_folder(folder: Path, *, overwrite: bool) -> None:
    """Make sure that no run is in the folder; `overwrite` removes an earlier run's own files."""
    if not (folder / "config.json").exists():
        return
    if not overwrite:
        raise _holds_a_run(folder)
    with alone_in(folder, WAIT):
        _forget_run(folder)


def _holds_a_run(folder: Path) -> FileExists:
    return FileExists(
        f"{folder} holds a run already. Continue it with --resume {folder}, choose another "
        "--out, or pass --overwrite."
    )


def _forget_run(folder: Path) -> None:
    """Remove what a run left, and nothing else."""
    config = load_result(folder / "config.json", RunConfig)
    tokens = [concept.token for concept in config.concepts]
    for place in {folder, *(token_folder(folder, token, tokens) for token in tokens)}:
        for name in ("checkpoints", "previews"):
            if (place / name).is_symlink():  # what it points to is somebody else's
                (place / name).unlink()
            shutil.rmtree(place / name, ignore_errors=True)
        for path in learned_in(place):
            path.unlink()
    for path in adapter_files(folder):
        path.unlink()
    shutil.rmtree(painted_for(folder), ignore_errors=True)
    for name in ("events.jsonl", "result.json", "index.html", "config.json"):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def _explain_full_disk(folder: Path | None) -> Iterator[None]:
    """Turn the error of a full disk into a TrainingError that says how to continue."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise TrainingError(
            f"{error.filename or folder}: {error.strerror}. Make room, then continue with: "
            f"dti-geom train --resume {folder}"
        ) from error


@contextmanager
def _explain_out_of_memory(work: str, config: RunConfig) -> Iterator[None]:
    """Turn an error of missing memory into one that says what needed it and what helps."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        missing = missing_memory(error)
        if missing is None:
            raise
        raise OutOfMemory(
            f"out of memory while {work}: {missing}. {_advice(work, config)}"
        ) from None


def _advice(work: str, config: RunConfig) -> str:
    """Return which options take less memory than this run's, for the work that failed."""
    options: list[str] = []
    if work == "loading the model" and config.dtype == "float32":
        options.append("--dtype bfloat16")
    if work != "loading the model":
        if config.memory != "low":
            options.append("--memory low")
        if work == "training" and config.batch_size > 1:
            accumulate = config.batch_size * config.accumulate
            options.append(f"--batch-size 1 --accumulate {accumulate} (the same updates)")
        if work == "painting previews":
            options.append("--preview-every 0")
        options.append("a smaller --resolution")
    options.append("a card or machine with more memory")
    return f"What helps: {', or '.join(options)}. --dry-run estimates the need."


@contextmanager
def _tracking(
    name: str | None, folder: Path | None, config: RunConfig
) -> Iterator[Callable[[StepRecord], None]]:
    """Give a function that sends an update to one of accelerate's trackers."""
    if name is None:
        yield lambda record: None
        return
    from accelerate import Accelerator

    accelerator = Accelerator(log_with=name, project_dir=folder, cpu=config.device == "cpu")
    accelerator.init_trackers("dti-geom")

    def track(record: StepRecord) -> None:
        figures = {f"loss/{token}": loss for token, loss in record.losses.items()}
        for token, terms in record.terms.items():
            figures |= {f"loss/{token}/{name}": loss for name, loss in terms.items()}
        for vector in record.vectors:
            figures[f"norm/{vector.token}/{vector.tower}/{vector.index}"] = vector.norm
        accelerator.log(figures | {"learning_rate": record.learning_rate}, step=record.step)

    try:
        yield track
    finally:
        accelerator.end_training()
