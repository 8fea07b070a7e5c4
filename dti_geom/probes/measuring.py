"""Measure one encoder, or every encoder of a model, with a registered probe."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dti_geom.errors import DoesNotApply
from dti_geom.models import TextEncoder
from dti_geom.probes.learned import LearnedVector, require_some_fit
from dti_geom.probes.registry import PROBES, Probe, probe_named
from dti_geom.progress import Progress, silent
from dti_geom.result import Result

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Measurement(Result, Generic[Measured]):
    """One probe's results over the text encoders of a model.

    It is read as a sequence of them. Where there is one, its fields are read directly.
    """

    probe: str
    model: str
    encoders: tuple[Measured, ...]
    does_not_apply: tuple[str, ...]  # a sentence for each encoder it says nothing about

    def __len__(self) -> int:
        """Return how many encoders have a result."""
        return len(self.encoders)

    def __getitem__(self, number: int) -> Measured:
        """Return the result of an encoder, counted from 0."""
        return self.encoders[number]

    def __iter__(self) -> Iterator[Measured]:
        """Yield the result of each encoder."""
        return iter(self.encoders)

    if not TYPE_CHECKING:  # a type checker shall know the fields above and no others

        def __getattr__(self, name: str) -> Any:
            """Return a field of the only result. Raises AttributeError where there are several."""
            if name.startswith("_"):  # of Python's own protocols
                raise AttributeError(name)
            if len(self.encoders) != 1:
                raise AttributeError(
                    f"{self.model} has {len(self.encoders)} results of {self.probe}, one for each "
                    f"text encoder: read .{name} of [0], [1], …"
                )
            return getattr(self.encoders[0], name)


def measure(
    encoder: TextEncoder,
    probe: str,
    learned: Sequence[LearnedVector] = (),
    *,
    seed: int = 0,
    progress: Progress = silent,
    **options: Any,
) -> Any:
    """Return the result of one probe on one encoder.

    probe: a name of `PROBES`. options: those of its `measure_NAME` function. Raises DoesNotApply
    where the probe has no meaning, DtiGeomError for an unknown name.
    """
    found = probe_named(probe)
    found.needs.check(encoder, learned)
    common = {"seed": seed, "progress": progress}
    taken = inspect.signature(found.measure).parameters
    common = {name: value for name, value in common.items() if name in taken}
    return found.measure(encoder, learned, **common, **options)


@dataclass(frozen=True)
class Measurements:
    """Every probe of a report on one encoder."""

    encoder: str
    results: dict[str, Any]  # by probe
    does_not_apply: dict[str, str]  # by probe: why it has no result


def measure_all(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Measurements:
    """Measure one encoder with every probe that needs no options of its own."""
    results: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for probe in PROBES.values():
        if any(option.argument for option in probe.options):
            continue
        try:
            results[probe.name] = measure(
                encoder, probe.name, learned, seed=seed, progress=progress
            )
        except DoesNotApply as reason:
            reasons[probe.name] = str(reason)
    return Measurements(encoder.name, results, reasons)


def measure_model(
    probe: Probe,
    model: str,
    encoders: Sequence[TextEncoder],
    learned: Sequence[LearnedVector] = (),
    *,
    seed: int = 0,
    progress: Progress = silent,
    **options: Any,
) -> Measurement[Any]:
    """Measure every encoder of a model that the probe applies to.

    Raises EmbeddingFileError if there are vectors and none has the width of an encoder.
    """
    require_some_fit(learned, [encoder.token_table.shape[1] for encoder in encoders], model)
    results: list[Any] = []
    reasons: list[str] = []
    for encoder in encoders:
        try:
            results.append(
                measure(encoder, probe.name, learned, seed=seed, progress=progress, **options)
            )
        except DoesNotApply as reason:
            reasons.append(str(reason))
    return Measurement(probe.name, model, tuple(results), tuple(reasons))
