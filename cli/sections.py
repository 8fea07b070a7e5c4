"""The sections of a report: what each is made from, and how."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dti_geom.files import EmbeddingFile
    from dti_geom.models import StoredEncoder
    from dti_geom.probes import LearnedVector, Query
    from dti_geom.progress import Progress
    from dti_geom.reporting import Report
    from dti_geom.training import TrainingRun

# Looked around when the user names no word; those that the model has as one token each are shown.
WORDS = ("dog", "cat", "house", "red", "two", "fox", "beach", "happy")
LEARNED_SHOWN = 12  # neighbour tables of learned vectors: more than this is no longer read


@dataclass(frozen=True)
class Part:
    """One section to be."""

    name: str
    key: str  # of all that its result depends on
    make: "Callable[[], Report]"  # a report of this section alone, with its result or the reason why there is none


@dataclass
class Subject:
    """The model and the learned tokens that a report is of."""

    model: str
    encoders: "list[StoredEncoder]"
    files: "list[EmbeddingFile]"
    names: dict[Path, str]  # what the page calls the files: see `shown_paths`
    progress: "Progress"

    @cached_property
    def named(self) -> "list[EmbeddingFile]":
        """The files, under the names that the page shows."""
        return [replace(file, path=Path(self.names[file.path])) for file in self.files]

    @cached_property
    def learned(self) -> "list[LearnedVector]":
        """Every vector of the files."""
        from dti_geom.probes import learned_vectors

        return learned_vectors(self.named)

    @cached_property
    def widths(self) -> list[int]:
        """Of the encoders' token tables."""
        return sorted({encoder.token_table.shape[1] for encoder in self.encoders})

    @property
    def fitting(self) -> "list[LearnedVector]":
        """The vectors that can stand in one of the token tables."""
        return [one for one in self.learned if one.vector.shape[-1] in self.widths]

    @cached_property
    def key(self) -> str:
        """Of what every measurement depends on: the weights, and the files."""
        from dti_geom.reporting.results import key_of

        files = [(self.names[file.path], _digest(file.path)) for file in self.files]
        return key_of([encoder.identity for encoder in self.encoders], files)


def measured_parts(subject: Subject, words: Sequence[str], *, full: bool) -> Iterator[Part]:
    """The sections that are measured on the encoders; `full`: also those that run them."""
    from dti_geom.probes import model_attention, model_attenuation, model_stagnation, model_swap
    from dti_geom.reporting.results import key_of

    yield Part("norms", subject.key, lambda: _norms(subject))
    if full:
        yield _probe(subject, "swap", model_swap)
        yield _probe(subject, "attenuation", model_attenuation)
        yield _probe(subject, "stagnation", model_stagnation)
        yield _probe(subject, "attention", model_attention)
    if subject.files:
        yield Part("inspection", subject.key, lambda: _inspection(subject))
        yield Part("angles", subject.key, lambda: _angles(subject))
    yield Part("neighbors", key_of(subject.key, words), lambda: _neighbors(subject, words))


def training_part(model: str, runs: "Sequence[TrainingRun]", names: dict[Path, str]) -> Part:
    """The section of finished runs; `names` as in `Subject`."""
    from dti_geom.reporting import Report
    from dti_geom.reporting.results import key_of

    read = [
        _digest(Path(run.folder) / name) for run in runs for name in ("result.json", "events.jsonl")
    ]
    shown = [_renamed(run, names) for run in runs]
    pictures = [(run.folder, len(run.pictures)) for run in shown]
    return Part("training", key_of(read, pictures), lambda: Report(model, training=tuple(shown)))


def read_part(model: str, section: str, path: Path) -> Part:
    """A section that another command has measured; `path` is what it left. Making it raises ResultFileError."""
    from dti_geom.errors import ResultFileError
    from dti_geom.reporting import Report, read_section, section_file
    from dti_geom.reporting.results import key_of

    def make() -> "Report":
        result = read_section(path, section)
        of = getattr(result, "model", model)  # a comparison is of several
        if of != model and Path(of).resolve() != Path(model).resolve():
            raise ResultFileError(
                f"{path} is of {of}, but the report is of {model}. Give the report --model {of}."
            )
        return Report(model, **{section: result})

    return Part(section, key_of(_digest(section_file(path, section))), make)


def shown_paths(paths: Iterable[Path]) -> dict[Path, str]:
    """What a page calls these files or folders, without the folders of this machine above them.

    A relative path stays, one below the working folder becomes relative, and of others the last parts that tell them,
    and the folders they lie in, apart.
    """
    shown: dict[Path, str] = {}
    for path in paths:
        inside = path.is_absolute() and path.is_relative_to(Path.cwd())
        shown[path] = str(path.relative_to(Path.cwd()) if inside else path)
    far = [path for path in shown if Path(shown[path]).is_absolute()]
    for parts in count(2):
        ends = {path: path.parts[-parts:] for path in far}
        if len(set(ends.values())) == len(far) and len({end[:-1] for end in ends.values()}) == len(
            {path.parent for path in far}
        ):
            return shown | {path: "/".join(end) for path, end in ends.items()}
    raise AssertionError


def _renamed(run: "TrainingRun", names: dict[Path, str]) -> "TrainingRun":
    """The run, with its folder, its model's and those of its images under the names that the page shows."""
    config = run.result.config
    concepts = tuple(replace(one, images=names[Path(one.images)]) for one in config.concepts)
    config = replace(config, model=names[Path(config.model)], concepts=concepts)
    return replace(run, folder=names[Path(run.folder)], result=replace(run.result, config=config))


def _norms(subject: Subject) -> "Report":
    from dti_geom.probes import Norms, encoder_norms
    from dti_geom.reporting import Report

    strangers = len(subject.learned) - len(subject.fitting)
    notes = (
        f"{strangers} of {len(subject.learned)} learned vectors have another width than this model's encoders "
        f"({', '.join(map(str, subject.widths))}): they are inspected, but not placed among its tokens.",
    )
    measured = tuple(encoder_norms(encoder, subject.learned) for encoder in subject.encoders)
    return Report(
        subject.model, norms=Norms(subject.model, measured), notes=notes if strangers else ()
    )


def _neighbors(subject: Subject, words: Sequence[str]) -> "Report":
    from dti_geom.probes import find_neighbors, of_width
    from dti_geom.reporting import Report

    found = tuple(
        one
        for encoder in subject.encoders
        for one in find_neighbors(
            encoder,
            _queries(encoder, words, of_width(subject.learned, encoder.token_table.shape[1])),
        )
    )
    if not found:
        reason = f"none of the words {', '.join(WORDS)} is a single token of this model; --word names one that is."
        return Report(subject.model, does_not_apply={"neighbors": reason})
    return Report(subject.model, neighbors=found)


def _queries(
    encoder: "StoredEncoder", words: Sequence[str], learned: "list[LearnedVector]"
) -> "list[Query]":
    """The user's words, or the default ones this model has as single tokens; and the first learned vectors."""
    from dti_geom.errors import UnknownToken
    from dti_geom.probes import Query, parse_queries

    queries = parse_queries(encoder, words, learned)
    if not words:
        for word in WORDS:
            try:
                found = parse_queries(encoder, [word])
            except UnknownToken:
                continue
            queries += found if len(found) == 1 else []
    shown = {query.label for query in queries}
    return queries + [
        Query(one.label, one.vector) for one in learned[:LEARNED_SHOWN] if one.label not in shown
    ]


def _inspection(subject: Subject) -> "Report":
    from dti_geom.probes import inspect_files
    from dti_geom.reporting import Report

    return Report(
        subject.model, inspected=inspect_files(subject.named, subject.encoders, subject.model)
    )


def _angles(subject: Subject) -> "Report":
    from dti_geom.probes import model_angles
    from dti_geom.reporting import Report

    if any(one.init for one in subject.fitting):
        return Report(
            subject.model, angles=model_angles(subject.model, subject.encoders, subject.fitting)
        )
    reason = "no file says which word of this model its token started from; `dti-geom angles --init WORD` is told."
    return Report(subject.model, does_not_apply={"angles": reason})


def _probe(subject: Subject, name: str, probe: Callable[..., Any]) -> Part:
    def make() -> "Report":
        from dti_geom.errors import DoesNotApply
        from dti_geom.reporting import Report

        try:
            result = probe(
                subject.model, subject.encoders, subject.fitting, progress=subject.progress
            )
        except DoesNotApply as error:
            return Report(subject.model, does_not_apply={name: str(error)})
        if not result.encoders:
            return Report(subject.model, does_not_apply={name: " ".join(result.does_not_apply)})
        return Report(subject.model, **{name: result})

    return Part(name, subject.key, make)


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""  # whoever reads it has more to say
