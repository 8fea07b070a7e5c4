"""Build a report: measure what is new, read what other commands left, and write one page."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import torch

from dti_geom.errors import DoesNotApply, DtiGeomError, ResultFileError
from dti_geom.files import EmbeddingFile, read_embeddings
from dti_geom.models import StoredEncoder, open_encoders
from dti_geom.probes.inspection import inspect_files
from dti_geom.probes.learned import LearnedVector, learned_vectors
from dti_geom.probes.measuring import measure_model
from dti_geom.probes.registry import PROBES, Needs, Probe
from dti_geom.progress import Progress, silent
from dti_geom.reporting.folder import (
    PAGE,
    Made,
    ReportFolder,
    key_of,
    read_report,
    read_result,
    result_file,
)
from dti_geom.reporting.opening import run_label
from dti_geom.reporting.report import Report
from dti_geom.training.story import TrainingRun, TrainingRuns, learned_files, read_run

DEFAULT_MODEL = "mini"


@dataclass(frozen=True)
class BuiltReport:
    """A report and the page it was written to."""

    report: Report
    page: Path
    reused: tuple[str, ...]  # sections that were kept from an earlier call


@dataclass(frozen=True)
class _Part:
    """One section to be."""

    name: str
    key: str  # of all that its result depends on
    make: Callable[[], Made]


@dataclass
class _Subject:
    """The model and the learned tokens that a report is about."""

    model: str  # as the page calls it
    encoders: list[StoredEncoder]
    files: list[EmbeddingFile]
    names: dict[Path, str]  # what the page calls the files: see `shown_paths`
    progress: Progress

    @cached_property
    def named_files(self) -> list[EmbeddingFile]:
        """The files, under the names that the page shows."""
        return [replace(file, path=Path(self.names[file.path])) for file in self.files]

    @cached_property
    def learned(self) -> list[LearnedVector]:
        """Every vector of the files."""
        return learned_vectors(self.named_files)

    @cached_property
    def widths(self) -> list[int]:
        """Widths of the encoders' token tables."""
        return sorted({encoder.token_table.shape[1] for encoder in self.encoders})

    @property
    def fitting(self) -> list[LearnedVector]:
        """The vectors that can stand in one of the token tables."""
        return [vector for vector in self.learned if vector.vector.shape[-1] in self.widths]

    @cached_property
    def key(self) -> str:
        """A key of what every measurement depends on: the weights and the files."""
        files = [(self.names[file.path], _digest(file.path)) for file in self.files]
        return key_of([encoder.identity for encoder in self.encoders], files)


def build_report(
    out: str | Path,
    *,
    model: str | None = None,
    embeddings: Sequence[EmbeddingFile] = (),
    words: Sequence[str] = (),
    runs: Sequence[str | Path] = (),
    saved: Mapping[str, str | Path] | None = None,
    full: bool = False,
    paint: int = 0,
    only: Sequence[str] = (),
    overwrite: bool = False,
    device: str = "cpu",
    progress: Progress = silent,
) -> BuiltReport:
    """Write everything known of one model as one page in the folder `out`.

    model: default: that of the runs, or mini. words: shown with their neighbours. runs: folders of
    finished training runs. saved: by section name, what another command left with --out. full:
    also run the encoder (swap, attenuation, …). paint: from so many seeds, paint what the runs
    learned at lengths from ×0.25 to ×64 of the mean norm. only: make these sections anew and leave
    the others.

    Each section's result is kept in `out` and measured again only when what it depends on has
    changed. Raises UnknownModel, FileExists, ResultFileError, DtiGeomError.
    """
    subject, finished = _open_subject(model, embeddings, runs, device, progress)
    parts = [*_measured_parts(subject, words, full=full or bool(only))]
    if finished:
        parts.append(_training_part(finished, subject))
    if paint:
        parts.append(_magnitudes_part(finished, subject, model, paint, device))
    for section, path in (saved or {}).items():
        parts.append(_saved_part(subject.model, section, Path(path)))
    _require_known(only, parts)
    folder = ReportFolder(Path(out), subject.model, overwrite=overwrite)
    if not only:
        given = [f"the run {subject.names[Path(run.folder)]}" for run in finished]
        given += [f"the {section}" for section in saved or ()]
        folder.take(given, [str(file.path) for file in subject.named_files])
    report, reused = _make(folder, parts, only)
    return BuiltReport(report, Path(out) / PAGE, tuple(reused))


def redraw_report(out: str | Path) -> BuiltReport:
    """Draw the page of a report again from the results kept beside it. Raises ResultFileError."""
    folder = ReportFolder(Path(out), read_report(out).model)
    return BuiltReport(folder.redraw(), Path(out) / PAGE, ())


def shown_paths(paths: Iterable[Path]) -> dict[Path, str]:
    """Return what a page calls these files or folders, without this machine's folders above them.

    A relative path stays and one below the working folder becomes relative. Of others the last
    parts stay, as many as tell them, and the folders they lie in, apart.
    """
    shown: dict[Path, str] = {}
    for path in paths:
        inside = path.is_absolute() and path.is_relative_to(Path.cwd())
        shown[path] = str(path.relative_to(Path.cwd()) if inside else path)
    far = [path for path in shown if Path(shown[path]).is_absolute()]
    parents = {path.parent for path in far}
    for parts in count(2):
        ends = {path: path.parts[-parts:] for path in far}
        folders = {end[:-1] for end in ends.values()}
        if len(set(ends.values())) == len(far) and len(folders) == len(parents):
            return shown | {path: "/".join(end) for path, end in ends.items()}
    raise AssertionError


def _open_subject(
    model: str | None,
    embeddings: Sequence[EmbeddingFile],
    runs: Sequence[str | Path],
    device: str,
    progress: Progress,
) -> tuple[_Subject, list[TrainingRun]]:
    finished = [read_run(folder) for folder in runs]
    model = model or _model_of(finished) or DEFAULT_MODEL
    files = list(embeddings)
    places = [model]
    for run in finished:
        config = run.result.config
        there = {file.path.resolve() for file in files}  # named as embeddings too
        learned = learned_files(run.folder, config)
        files += [read_embeddings(path) for path in learned if path.resolve() not in there]
        places += [config.model, run.folder, *(concept.images for concept in config.concepts)]
    names = shown_paths([*(file.path for file in files), *map(Path, places)])
    encoders = open_encoders(model, device=device, dtype=torch.float32, progress=progress)
    return _Subject(names[Path(model)], encoders, files, names, progress), finished


def _model_of(runs: Sequence[TrainingRun]) -> str | None:
    """Return the one model that the runs are of, or None without runs. Raises DtiGeomError."""
    models = dict.fromkeys(run.result.config.model for run in runs)
    if len(models) > 1:
        raise DtiGeomError(
            f"the runs are of {len(models)} models ({', '.join(models)}). A report shows one model."
        )
    return next(iter(models), None)


def _measured_parts(subject: _Subject, words: Sequence[str], *, full: bool) -> Iterator[_Part]:
    """Yield the sections that are measured on the encoders; full: also those that take long."""
    for probe in PROBES.values():
        if probe.alone or ((probe.needs.runs_encoder or probe.slow) and not full):
            continue
        if probe.needs is Needs.LEARNED and not subject.files:
            continue
        yield _probe_part(subject, probe, words if probe.takes_tokens else ())
    if subject.files:
        yield _Part("inspection", subject.key, lambda: _inspection(subject))


def _probe_part(subject: _Subject, probe: Probe, tokens: Sequence[str]) -> _Part:
    def make() -> Made:
        options: dict[str, Any] = {"tokens": tokens, "with_learned": True} if tokens else {}
        try:
            result = measure_model(
                probe,
                subject.model,
                subject.encoders,
                subject.fitting,
                progress=subject.progress,
                **options,
            )
        except DoesNotApply as reason:
            return Made(None, str(reason))
        if not result.encoders:
            return Made(None, " ".join(result.does_not_apply))
        return Made(result)

    return _Part(probe.name, key_of(subject.key, list(tokens)), make)


def _width_notes(subject: _Subject) -> tuple[str, ...]:
    strangers = len(subject.learned) - len(subject.fitting)
    if not strangers:
        return ()
    widths = ", ".join(map(str, subject.widths))
    return (
        f"{strangers} of {len(subject.learned)} learned vectors do not have the width of this "
        f"model's encoders ({widths}): they are inspected, but not placed among its tokens.",
    )


def _inspection(subject: _Subject) -> Made:
    files = inspect_files(subject.named_files, subject.encoders, subject.model)
    return Made(files, notes=_width_notes(subject))


def _training_part(runs: Sequence[TrainingRun], subject: _Subject) -> _Part:
    digests = []
    for run in runs:
        digests += [_digest(Path(run.folder) / name) for name in ("result.json", "events.jsonl")]
    renamed = tuple(_renamed(run, subject.names) for run in runs)
    pictures = [(run.folder, len(run.pictures)) for run in renamed]

    def make() -> Made:
        return Made(TrainingRuns.of(subject.model, renamed, subject.encoders))

    return _Part("training", key_of(subject.key, digests, pictures), make)


def _magnitudes_part(
    runs: Sequence[TrainingRun], subject: _Subject, model: str | None, seeds: int, device: str
) -> _Part:
    """Return the part that paints what the runs learned. Raises DtiGeomError without runs."""
    if not runs:
        raise DtiGeomError(
            "--paint is for what training runs learned, and no run was given. Name one with --run."
        )
    labels = _labels(runs, subject)

    def make() -> Made:
        from dti_geom.evaluation.learned import read_learned, token_files
        from dti_geom.evaluation.magnitudes import paint_magnitudes
        from dti_geom.models.pipelines import open_text_to_image

        painter = open_text_to_image(model or runs[0].result.config.model, device=device)
        learned = {}
        for label, run in zip(labels, runs, strict=True):
            of_run = read_learned(painter, token_files([run.folder]))
            for token in of_run.values():
                learned[label if len(of_run) == 1 else f"{label} · {token.name}"] = token
        painted = paint_magnitudes(painter, learned, seeds=range(seeds), progress=subject.progress)
        return Made(replace(painted, model=subject.model))

    return _Part("magnitudes", key_of(subject.key, labels, seeds), make)


def _labels(runs: Sequence[TrainingRun], subject: _Subject) -> list[str]:
    """Return a label for each run, with its folder where two runs would have the same one."""
    labels = [run_label(run) for run in runs]
    return [
        label if labels.count(label) == 1 else f"{label} · {subject.names[Path(run.folder)]}"
        for label, run in zip(labels, runs, strict=True)
    ]


def _renamed(run: TrainingRun, names: Mapping[Path, str]) -> TrainingRun:
    """Give the run's folder, its model and its images the names that the page shows."""
    config = run.result.config
    concepts = tuple(
        replace(concept, images=names[Path(concept.images)]) for concept in config.concepts
    )
    config = replace(config, model=names[Path(config.model)], concepts=concepts)
    return replace(run, folder=names[Path(run.folder)], result=replace(run.result, config=config))


def _saved_part(model: str, section: str, path: Path) -> _Part:
    def make() -> Made:
        result = read_result(path, section)
        measured = getattr(result, "model", model)  # a comparison is of several models
        if measured != model and Path(measured).resolve() != Path(model).resolve():
            raise ResultFileError(
                f"{path} is of {measured}, but the report is of {model}. Give the report "
                f"--model {measured}."
            )
        return Made(result)

    return _Part(section, key_of(_digest(result_file(path, section))), make)


def _require_known(only: Sequence[str], parts: Sequence[_Part]) -> None:
    known = [part.name for part in parts]
    for name in only:
        if name not in known:
            raise DtiGeomError(
                f"--only {name}: nothing was given to make that section from. Possible: "
                f"{', '.join(known)}. --embedding, --run, --interpolation, --evaluation, "
                "--comparison and --sweep add more."
            )


def _make(
    folder: ReportFolder, parts: Sequence[_Part], only: Sequence[str]
) -> tuple[Report, list[str]]:
    """Make or reuse every section, and write the page. Returns the names of the reused ones too."""
    sections: dict[str, Made] = folder.kept_sections() if only else {}
    reused = [name for name in sections if name not in only]
    for part in parts:
        if only and part.name not in only:
            continue
        made = None if only else folder.kept(part.name, part.key)
        if made is None:
            made = part.make()
            folder.keep(part.name, part.key, made)
        else:
            reused.append(part.name)
        sections[part.name] = made
    return folder.write(sections), reused


def _digest(file: Path) -> str:
    # Whoever reads the file says what is wrong with it.
    if not file.is_file():  # a pipe would be waited for
        return ""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""
