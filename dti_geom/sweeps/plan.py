"""Sweep files: concepts × methods × seeds × settings, and the cells that they stand for."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache, cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from dti_geom.errors import DecodingError, DtiGeomError, SweepError, nearest_name
from dti_geom.files.decoding import check_keys, decode
from dti_geom.files.yaml_files import read_yaml
from dti_geom.training import (
    AdapterConfig,
    ConceptConfig,
    DataConfig,
    MethodConfig,
    ObjectiveConfig,
    PreviewConfig,
    RunConfig,
)
from dti_geom.training.data import image_files, located, located_concept

# Formats of a run's and of a cell's folder, part of their addresses. Raise one when a run, or the
# scores of a cell, would come out differently with the same settings, so that old results are not
# taken for new ones. A new format of cells leaves the runs, which take longest, as they are.
RUN_FORMAT = 2
CELL_FORMAT = 3
MAX_CELLS = 20_000  # of a sweep; planning them takes seconds
MAX_SEEDS = 1000  # pictures of a prompt


@dataclass(frozen=True)
class EvaluationConfig:
    """How a cell's tokens are painted and scored.

    None takes the default of the model, as `dti-geom evaluate` does.
    """

    prompts: str | None = None  # a set of `PROMPT_SETS`, or a file
    dreambooth: str | None = None
    seeds: int = 4  # pictures of each prompt
    steps: int | None = None
    guidance: float | None = None
    image_encoder: str | None = None
    text_encoder: str | None = None
    baselines: bool = False  # also the class word, and tokens at the vocabulary's mean norm
    masked: bool = False  # compare with the references on white, cut out by masks/NAME.png
    checkpoints: tuple[int, ...] = ()  # also paint after these updates

    def __post_init__(self) -> None:
        """Raise SweepError for values that no cell can use."""
        if not 1 <= self.seeds <= MAX_SEEDS:
            raise SweepError(f"evaluate: seeds is {self.seeds}; expected 1 to {MAX_SEEDS}.")
        if any(step < 1 for step in self.checkpoints):
            raise SweepError(
                f"evaluate: checkpoints are {self.checkpoints}; expected updates, from 1."
            )


@dataclass(frozen=True)
class Cell:
    """One training run and its evaluation."""

    label: str  # the method, and the values that vary
    run: RunConfig  # `images` of a concept may be the name of a concept that ships with `mini`
    evaluation: EvaluationConfig

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the concepts, which are trained together in one batch."""
        return tuple(concept.subject or Path(concept.images).name for concept in self.run.concepts)

    @cached_property
    def run_key(self) -> str:
        """Address of the training run: a hash of its settings and of the bytes of its images."""
        concepts = [
            replace(concept, images=_digest(tuple(image_files(concept))))
            for concept in located(self.run).concepts
        ]
        content = _non_defaults(replace(self.run, concepts=tuple(concepts)))
        return _address(RUN_FORMAT, content)

    @cached_property
    def key(self) -> str:
        """Address of the whole cell: a hash of everything but its label."""
        content = [self.run_key, self.subjects, _non_defaults(self.evaluation)]
        return _address(CELL_FORMAT, content)


@dataclass(frozen=True)
class Plan:
    """All cells of a sweep, in the order in which they start."""

    name: str
    model: str
    cells: tuple[Cell, ...]


def read_plan(path: str | Path) -> Plan:
    """Return the plan that a YAML file describes.

    Raises SweepError, which names the file, the wrong key and the nearest right one.
    """
    path = Path(path)
    try:
        content = read_yaml(path)
    except DecodingError as error:
        raise SweepError(str(error)) from error
    try:
        return plan_of(content, path.stem)
    except DtiGeomError as error:
        raise SweepError(f"{path}: {error}") from error


def plan_of(content: Any, name: str) -> Plan:
    """Return the plan that a mapping with the keys of `SweepFile` describes.

    The seed varies slowest, so a sweep that stops early is a complete sweep over fewer seeds.
    Raises SweepError for a wrong key or value, and TrainingError for settings no run can use.
    """
    try:
        return _plan(decode(SweepFile, content, from_yaml=True), name)
    except DecodingError as error:
        raise SweepError(str(error)) from error


# --- The file ---


@dataclass(frozen=True)
class SweepFile:
    """The keys of a sweep file. A list of values where one is expected makes a grid."""

    concepts: list[Any]  # names or mappings; an inner list is trained together
    # Names or mappings of `MethodConfig`, `label`, `baselines`, `adapter` and `objective`.
    methods: list[Any]
    model: str = "mini"
    seeds: tuple[int, ...] = (0,)
    # A mapping of lists means every combination; a list of mappings means just those.
    settings: Any = field(default_factory=dict)
    # Fields of a run and its data, the same for every cell.
    train: dict[str, Any] = field(default_factory=dict)
    evaluate: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        """Raise SweepError if there would be no cell."""
        if not self.concepts or not self.methods or not self.seeds:
            raise SweepError(
                "there is nothing to do: expected at least one concept, one method and one seed."
            )


@dataclass(frozen=True)
class _MethodEntry:
    """A method with one value for each of its settings."""

    label: str
    method: MethodConfig
    baselines: bool
    adapter: AdapterConfig | None
    objective: ObjectiveConfig


_RUN_KEYS = (
    "steps",
    "batch_size",
    "accumulate",
    "min_snr",
    "checkpoint_every",
    "device",
    "dtype",
    "compile",
)
_DATA_KEYS = tuple(item.name for item in fields(DataConfig))
_METHOD_KEYS = tuple(item.name for item in fields(MethodConfig))
_CONCEPT_KEYS = tuple(item.name for item in fields(ConceptConfig))


def _plan(file: SweepFile, name: str) -> Plan:
    groups = [_concepts(group) for group in file.concepts]
    methods: list[_MethodEntry] = []
    for item in file.methods:
        methods += _methods(item)
    _check_labels([entry.label for entry in methods])
    columns = _settings(file.settings)
    _check_number(len(file.seeds) * len(groups) * len(methods) * len(columns))
    cells = []
    for seed, concepts, entry, (suffix, settings) in product(file.seeds, groups, methods, columns):
        run = _run(file.model, concepts, entry, {**file.train, **settings, "seed": seed})
        _check_checkpoints(file.evaluate, run)
        baselines = file.evaluate.baselines or entry.baselines
        evaluation = replace(file.evaluate, baselines=baselines)
        cells.append(Cell(entry.label + suffix, run, evaluation))
    _check_cells_differ(cells)
    return Plan(name, file.model, tuple(cells))


def _check_labels(labels: list[str]) -> None:
    for label, count in Counter(labels).items():
        if count > 1:
            raise SweepError(f"methods: {count} are called '{label}'. Give each its own label.")


def _check_number(cells: int) -> None:
    if not cells:
        raise SweepError("a list of values is empty, so there is no cell. Give it a value.")
    if cells > MAX_CELLS:
        raise SweepError(
            f"these are {cells} cells; expected at most {MAX_CELLS}. Vary less in one file."
        )


def _check_checkpoints(evaluation: EvaluationConfig, run: RunConfig) -> None:
    if any(step % run.checkpoint_every for step in evaluation.checkpoints):
        raise SweepError(
            f"evaluate: checkpoints are {', '.join(map(str, evaluation.checkpoints))}; a run has "
            f"one every {run.checkpoint_every} updates. Set checkpoint_every under train."
        )


def _check_cells_differ(cells: list[Cell]) -> None:
    # Cells with the same run share its folder, and two workers must not write to one folder.
    known: dict[str, Cell] = {}
    for cell in cells:
        first = known.setdefault(cell.run_key, cell)
        if first.label != cell.label:
            raise SweepError(
                f"methods: '{first.label}' and '{cell.label}' are the same training. Leave one out."
            )
        if first is not cell:
            raise SweepError(
                f"two cells are equal: {cell.label}, seed {cell.run.seed}, "
                f"{' '.join(cell.subjects)}. Name each seed, concept and value once."
            )


def _concepts(group: Any) -> tuple[ConceptConfig, ...]:
    """Return one concept, or several that are trained together."""
    items = group if isinstance(group, list) else [group]
    return tuple(
        _shipped_concept(item) if isinstance(item, str) else _own_concept(item) for item in items
    )


def _shipped_concept(name: str) -> ConceptConfig:
    from dti_geom.models.catalog import known_concepts

    initialisers = {concept.name: concept.init for concept in known_concepts().values()}
    if name not in initialisers:
        raise SweepError(
            f"no concept called '{name}'.{nearest_name(name, initialisers)} "
            f"Known: {', '.join(initialisers)}; or give a mapping with images and init."
        )
    return ConceptConfig(f"<{name}>", images=name, init=initialisers[name])


def _own_concept(entry: Any) -> ConceptConfig:
    check_keys(entry, _CONCEPT_KEYS, "concepts")
    subject = str(entry.get("subject") or Path(str(entry.get("images", "x"))).name)
    token = f"<{re.sub(r'[^a-z0-9]+', '-', subject.lower())}>"
    concept = decode(ConceptConfig, {"token": token} | entry, "concepts", from_yaml=True)
    # Missing images raise now, rather than hours into the sweep.
    image_files(located_concept(concept))
    return concept


def _methods(entry: Any) -> Iterator[_MethodEntry]:
    """Yield a method for every combination of the settings that are lists."""
    entry = {"name": entry} if isinstance(entry, str) else entry
    own = ("label", "baselines", "adapter", "objective")
    check_keys(entry, (*_METHOD_KEYS, *own), "methods")
    adapter = entry.get("adapter")
    if adapter is not None:
        adapter = decode(AdapterConfig, adapter, "methods: adapter", from_yaml=True)
    objective = entry.get("objective", {})
    objective = decode(ObjectiveConfig, objective, "methods: objective", from_yaml=True)
    settings = {key: value for key, value in entry.items() if key in _METHOD_KEYS}
    for suffix, values in _grid(settings):
        method = decode(MethodConfig, values, "methods", from_yaml=True)
        _check_method(method)
        label = f"{entry.get('label', method.name)}{suffix}"
        yield _MethodEntry(
            label=label,
            method=method,
            baselines=bool(entry.get("baselines", False)),
            adapter=adapter,
            objective=objective,
        )


def _check_method(method: MethodConfig) -> None:
    from dti_geom.training.methods.base import decide
    from dti_geom.training.methods.registry import method_named

    decide(method_named(method.name), method)


def _settings(content: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the settings of each column of the sweep, after the text that labels them."""
    for entry in content if isinstance(content, list) else [content]:
        check_keys(entry, (*_RUN_KEYS, *_DATA_KEYS), "settings")
    if isinstance(content, list):
        return [(_suffix(entry), entry) for entry in content] or [("", {})]
    return list(_grid(content))


def _grid(settings: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every combination of the values that are lists, after the text that labels it."""
    # `templates` is a list of prompts that belong to one setting.
    lists = {
        key: value
        for key, value in settings.items()
        if isinstance(value, list) and key != "templates"
    }
    _check_number(prod(map(len, lists.values())))
    for values in product(*lists.values()):
        combination = dict(zip(lists, values, strict=True))
        varying = {key: value for key, value in combination.items() if len(lists[key]) > 1}
        yield _suffix(varying), {**settings, **combination}


def _suffix(values: Mapping[str, Any]) -> str:
    return "".join(f" {key}={value}" for key, value in values.items())


def _run(
    model: str,
    concepts: tuple[ConceptConfig, ...],
    entry: _MethodEntry,
    settings: Mapping[str, Any],
) -> RunConfig:
    check_keys(settings, (*_RUN_KEYS, *_DATA_KEYS, "seed"), "train")
    data = {key: value for key, value in settings.items() if key in _DATA_KEYS}
    run = {key: value for key, value in settings.items() if key not in _DATA_KEYS}
    run |= {
        "model": model,
        "concepts": concepts,
        "method": entry.method,
        "adapter": entry.adapter,
        "objective": entry.objective,
        "data": decode(DataConfig, data, "train", from_yaml=True),
        "preview": PreviewConfig(every=0),
    }
    return decode(RunConfig, run, "train", from_yaml=True)


# --- Addresses ---


def _non_defaults(config: Any) -> Any:
    """Return a configuration as JSON values, without the fields that are at their defaults.

    A field that is added later then leaves the addresses of old cells as they are.
    """
    if isinstance(config, tuple):
        return [_non_defaults(item) for item in config]
    if not is_dataclass(config):
        return config
    values = {}
    for item in fields(config):
        value = getattr(config, item.name)
        factory = item.default_factory
        default = item.default if factory is MISSING else factory()
        if value != default:
            values[item.name] = _non_defaults(value)
    return values


def _address(version: int, content: Any) -> str:
    text = json.dumps([version, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _digest(files: tuple[Path, ...]) -> str:
    """Return a hash of the names and bytes of files. Raises SweepError."""
    digest = hashlib.sha256()
    for path in files:
        if not path.is_file():  # a pipe would be waited for
            raise SweepError(f"{path} is not a regular file; expected an image. Remove it.")
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
