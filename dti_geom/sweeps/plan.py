"""What a sweep is asked for: a file of concepts × methods × seeds × settings, and the cells it stands for."""

import hashlib
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from dti_geom.errors import DtiGeomError, SweepError
from dti_geom.training import ConceptConfig, DataConfig, MethodConfig, PreviewConfig, RunConfig
from dti_geom.training.data import image_files

FORMAT = 1  # of what a cell leaves; raised when an old cell is no longer what its address promises


@dataclass(frozen=True)
class EvaluationConfig:
    """How a cell's tokens are painted and scored; None takes the model's own, as `dti-geom evaluate` does."""

    prompts: str | None = None  # a set of `PROMPT_SETS`, or a file
    dreambooth: str | None = None
    seeds: int = 4  # pictures of each prompt
    steps: int | None = None
    guidance: float | None = None
    image_encoder: str | None = None
    text_encoder: str | None = None
    baselines: bool = False  # also the class word, and tokens at the vocabulary's mean norm
    checkpoints: tuple[
        int, ...
    ] = ()  # updates after which the tokens are painted too, each prompt once

    def __post_init__(self) -> None:
        """Refuse what no cell could do."""
        if self.seeds < 1:
            raise SweepError(f"evaluate: seeds is {self.seeds}; expected 1 or more.")
        if any(step < 1 for step in self.checkpoints):
            raise SweepError(
                f"evaluate: checkpoints are {self.checkpoints}; expected updates, from 1."
            )


@dataclass(frozen=True)
class Cell:
    """One training and its evaluation."""

    label: str  # the method, and what it is tried with
    run: RunConfig  # a concept's `images` may be the name of one that ships with `mini`
    evaluation: EvaluationConfig

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the concepts, which share batches."""
        return tuple(concept.subject or Path(concept.images).name for concept in self.run.concepts)

    @property
    def run_key(self) -> str:
        """Address of the training: settings and the bytes of the images."""
        concepts = [
            replace(one, images=_digest(tuple(image_files(one))))
            for one in located(self.run).concepts
        ]
        return _address(_chosen(replace(self.run, concepts=tuple(concepts))))

    @property
    def key(self) -> str:
        """Address of the whole cell; its label is not part of it."""
        return _address([self.run_key, self.subjects, _chosen(self.evaluation)])


@dataclass(frozen=True)
class Plan:
    """All cells of a sweep, in the order they are started."""

    name: str
    model: str
    cells: tuple[Cell, ...]


def read_plan(path: str | Path) -> Plan:
    """The plan that a YAML file stands for. Raises SweepError, naming the nearest right key for a wrong one."""
    import yaml

    path = Path(path)
    try:
        asked = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SweepError(
            f"{path} is no readable YAML file: {' '.join(str(error).split())}"
        ) from error
    try:
        return plan_of(asked, path.stem)
    except DtiGeomError as error:
        raise SweepError(f"{path}: {error}") from error


def plan_of(asked: Any, name: str) -> Plan:
    """The plan of a mapping with the keys of `_File`; seed first, so that a stopped sweep is a smaller whole one."""
    file = _build(_File, asked, "")
    if not file.concepts or not file.methods or not file.seeds:
        raise SweepError(
            "there is nothing to do: expected at least one of concepts, methods and seeds each."
        )
    groups = [_concepts(group) for group in file.concepts]
    methods = [one for entry in file.methods for one in _methods(entry)]
    labels = [label for label, _, _ in methods]
    doubled = next((label for label in labels if labels.count(label) > 1), None)
    if doubled:
        raise SweepError(f"methods: two are called '{doubled}'. Give one a label of its own.")
    cells = []
    for seed, concepts, (label, method, baselines), (suffix, shared) in product(
        file.seeds, groups, methods, _settings(file.settings)
    ):
        run = _run(file.model, concepts, method, {**file.train, **shared, "seed": seed})
        if any(step % run.checkpoint_every for step in file.evaluate.checkpoints):
            raise SweepError(
                f"evaluate: checkpoints are {', '.join(map(str, file.evaluate.checkpoints))}; a run has one every "
                f"{run.checkpoint_every} updates. Set checkpoint_every under train."
            )
        evaluation = replace(file.evaluate, baselines=file.evaluate.baselines or baselines)
        cells.append(Cell(label + suffix, run, evaluation))
    first: dict[str, str] = {}
    for cell in cells:  # two workers in one run's folder would spoil it
        if (label := first.setdefault(cell.run_key, cell.label)) != cell.label:
            raise SweepError(
                f"methods: '{label}' and '{cell.label}' are the same training. Leave one out."
            )
    return Plan(name, file.model, tuple(cells))


def located(run: RunConfig) -> RunConfig:
    """The run with folders in the place of the names of concepts that ship with `mini`."""
    from dti_geom.models.catalog import embedded_folder

    def find(concept: ConceptConfig) -> ConceptConfig:
        shipped = embedded_folder() / "concepts" / concept.images
        if Path(concept.images).exists() or not shipped.is_dir():
            return concept
        return replace(concept, images=str(shipped))

    return replace(run, concepts=tuple(map(find, run.concepts)))


# --- The file ---


@dataclass(frozen=True)
class _File:
    """The keys of a sweep file; lists of values make grids."""

    concepts: list[Any]
    methods: list[Any]
    model: str = "mini"
    seeds: tuple[int, ...] = (0,)
    settings: Any = field(
        default_factory=dict
    )  # a mapping of lists: their grid; a list of mappings: those
    train: dict[str, Any] = field(
        default_factory=dict
    )  # fields of a run and its data, the same for all
    evaluate: EvaluationConfig = field(default_factory=EvaluationConfig)


_SHARED = (
    "steps",
    "batch_size",
    "accumulate",
    "min_snr",
    "checkpoint_every",
    "device",
    "dtype",
    "compile",
)
_DATA = tuple(one.name for one in fields(DataConfig))
_METHOD = tuple(one.name for one in fields(MethodConfig))


def _concepts(group: Any) -> tuple[ConceptConfig, ...]:
    """A concept, or several that are learned together."""
    entries = group if isinstance(group, list) else [group]
    return tuple(_shipped(entry) if isinstance(entry, str) else _own(entry) for entry in entries)


def _shipped(name: str) -> ConceptConfig:
    from dti_geom.mini.concepts import load_concepts
    from dti_geom.models.catalog import embedded_folder

    known = {
        concept.name: concept.initialiser
        for concept in load_concepts(embedded_folder() / "concepts")
    }
    if name not in known:
        raise SweepError(
            f"no concept called '{name}'.{_nearest(name, known)} Known: {', '.join(known)}; or give a mapping with "
            "images and init."
        )
    return ConceptConfig(f"<{name}>", name, known[name])


def _own(entry: Any) -> ConceptConfig:
    _known(entry, [one.name for one in fields(ConceptConfig)], "concepts")
    subject = entry.get("subject") or Path(str(entry.get("images", "x"))).name
    token = f"<{re.sub(r'[^a-z0-9]+', '-', subject.lower())}>"
    concept = _build(ConceptConfig, {"token": token} | entry, "concepts")
    image_files(concept)  # better missing now than in the middle of a night
    return concept


def _methods(entry: Any) -> Iterator[tuple[str, MethodConfig, bool]]:
    """Label, method, and whether its baselines are wanted; for every combination of the values given as lists."""
    entry = {"name": entry} if isinstance(entry, str) else entry
    _known(entry, (*_METHOD, "label", "baselines"), "methods")
    held = {key: value for key, value in entry.items() if key not in ("label", "baselines")}
    for suffix, values in _grid(held):
        method = _build(MethodConfig, values, "methods")
        _check_method(method)
        yield entry.get("label", method.name) + suffix, method, bool(entry.get("baselines", False))


def _check_method(method: MethodConfig) -> None:
    from dti_geom.training.methods import method_named, refuse_what_has_no_effect

    refuse_what_has_no_effect(method, method_named(method.name))


def _settings(asked: Any) -> list[tuple[str, dict[str, Any]]]:
    for one in asked if isinstance(asked, list) else [asked]:
        _known(one, (*_SHARED, *_DATA), "settings")
    if isinstance(asked, list):
        return [(_suffix(one), one) for one in asked] or [("", {})]
    return list(_grid(asked))


def _grid(asked: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every combination of the values that are lists, and what tells it from the others."""
    varied = {
        key: value for key, value in asked.items() if isinstance(value, list) and key != "templates"
    }
    for values in product(*varied.values()):
        chosen = dict(zip(varied, values, strict=True))
        yield (
            _suffix({key: value for key, value in chosen.items() if len(varied[key]) > 1}),
            {**asked, **chosen},
        )


def _suffix(values: Mapping[str, Any]) -> str:
    return "".join(f" {key}={value}" for key, value in values.items())


def _run(
    model: str, concepts: tuple[ConceptConfig, ...], method: MethodConfig, shared: Mapping[str, Any]
) -> RunConfig:
    _known(shared, (*_SHARED, *_DATA, "seed"), "train")
    data = _build(
        DataConfig, {key: value for key, value in shared.items() if key in _DATA}, "train"
    )
    rest = {key: value for key, value in shared.items() if key not in _DATA}
    given = {
        "model": model,
        "concepts": concepts,
        "method": method,
        "data": data,
        "preview": PreviewConfig(every=0),
    }
    return _build(RunConfig, given | rest, "train")


Built = TypeVar("Built")


def _build(cls: type[Built], asked: Any, where: str) -> Built:
    """A dataclass from a mapping, every key known and every value of the type its annotation says."""
    hints = typing.get_type_hints(cls)
    _known(asked, tuple(hints), where)
    values = {
        key: _typed(hints[key], value, f"{where}: {key}" if where else key)
        for key, value in asked.items()
    }
    missing = [
        one.name
        for one in fields(cls)  # type: ignore[arg-type]
        if one.name not in values and one.default is MISSING and one.default_factory is MISSING
    ]
    if missing:
        raise SweepError(f"{where or 'the file'} lacks {' and '.join(missing)}.")
    return cls(**values)


def _typed(hint: Any, value: Any, where: str) -> Any:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = typing.get_args(hint) if union else (hint,)
    for option in options:
        kind: Any = typing.get_origin(option) or option
        if kind is Any or (value is None and kind is type(None)):
            return value
        if isinstance(kind, type) and is_dataclass(kind):
            return value if isinstance(value, kind) else _build(kind, value, where)
        if kind is tuple and isinstance(value, (list, tuple)):
            return tuple(_typed(typing.get_args(option)[0], item, where) for item in value)
        if (
            kind in (float, str)
            and isinstance(value, (int, float, str))
            and not isinstance(value, bool)
        ):
            with suppress(ValueError):  # 1e-4 is text to YAML; a magnitude is a word or a number
                return kind(value)
        elif kind in (int, bool, list, dict) and type(value) is kind:
            return value
    wanted = " or ".join(
        getattr(option, "__name__", str(option)) for option in options if option is not type(None)
    )
    raise SweepError(f"{where} is {value!r}; expected {wanted}.")


def _known(asked: Any, keys: Iterable[str], where: str) -> None:
    keys = list(keys)
    if not isinstance(asked, Mapping):
        raise SweepError(
            f"{where or 'the file'} is {asked!r}; expected a mapping with keys of {', '.join(keys)}."
        )
    for key in asked:
        if key not in keys:
            near = _nearest(str(key), keys)
            raise SweepError(
                f"{where + ': ' if where else ''}no key '{key}'.{near} Known: {', '.join(keys)}."
            )


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1, 0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


# --- Addresses ---


def _chosen(config: Any) -> Any:
    """A configuration as JSON without what is at its default: a field added later leaves old addresses as they are."""
    if isinstance(config, tuple):
        return [_chosen(one) for one in config]
    if not is_dataclass(config):
        return config
    held = {one.name: (getattr(config, one.name), one) for one in fields(config)}
    return {
        name: _chosen(value)
        for name, (value, one) in held.items()
        if value != (one.default if one.default_factory is MISSING else one.default_factory())
    }


def _address(what: Any) -> str:
    return hashlib.sha256(json.dumps([FORMAT, what], sort_keys=True).encode()).hexdigest()[:16]


@cache
def _digest(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
