"""Know every section: its name, the type of its result, and the function that shows it.

Probes come first, in the order of `PROBES`; the results of other commands follow. A section called
NAME is `NAME_section` in `sections/NAME.py`.
"""

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dti_geom.errors import DtiGeomError
from dti_geom.probes.measuring import Measurement
from dti_geom.probes.registry import PROBES
from dti_geom.reporting.blocks import Limits, Note, Section

# What is not a probe: where the type of each result is defined.
OTHER_RESULTS = {
    "magnitudes": "dti_geom.evaluation.magnitudes:PaintedMagnitudes",
    "inspection": "dti_geom.probes.inspection:Inspection",
    "similarity": "dti_geom.editing.similarity:Similarity",
    "painted": "dti_geom.probes.painted:PaintedSwap",
    "inflation": "dti_geom.training.inflation:PredictedInflation",
    "training": "dti_geom.training.story:TrainingRuns",
    "gallery": "dti_geom.evaluation.gallery:Gallery",
    "interpolation": "dti_geom.evaluation.interpolation:Interpolation",
    "evaluation": "dti_geom.evaluation.evaluation:Evaluation",
    "comparison": "dti_geom.evaluation.reference:Comparison",
    "sweep": "dti_geom.sweeps.sweep:Sweep",
    "study": "dti_geom.study.scoring:StudyScore",
}
SECTIONS: tuple[str, ...] = (*PROBES, *OTHER_RESULTS)


def result_type(name: str) -> Any:
    """Return the type of a section's result, as `load_result` takes it."""
    if name in PROBES:
        return Measurement[PROBES[name].result_type]  # type: ignore[misc]
    module, _, cls = OTHER_RESULTS[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def section_name(result: object) -> str:
    """Return the name of the section that shows a result. Raises DtiGeomError if none does."""
    if isinstance(result, Measurement):
        return result.probe
    cls = type(result)
    for name, place in OTHER_RESULTS.items():
        if place == f"{cls.__module__}:{cls.__name__}":
            return name
    name = cls.__module__.removeprefix("dti_geom.probes.")
    if name not in PROBES:
        raise DtiGeomError(
            f"nothing here shows a {cls.__name__}. Expected a result of a probe, a training run, "
            "an evaluation, an interpolation, a sweep or a study."
        )
    return name


def section_of(result: object) -> Section:
    """Return a result as blocks. Raises DtiGeomError for what is not a result."""
    if isinstance(result, Measurement):
        return _measurement_section(result)
    result = _grouped(result)
    return _function(section_name(result), "section")(result)


def section_data(result: object) -> object:
    """Return what the page offers for download: the result, without what it shows besides."""
    name = section_name(result)
    module = importlib.import_module(f"dti_geom.reporting.sections.{name}")
    shorten: Callable[[Any], Any] | None = getattr(module, f"{name}_data", None)
    if shorten is None:
        return result
    if isinstance(result, Measurement):
        return replace(result, encoders=tuple(map(shorten, result.encoders)))
    return shorten(result)


def _grouped(result: object) -> object:
    """Return a run or one token's neighbours as a group of one, and other results as they are."""
    from dti_geom.probes.neighbors import NeighborsResult, TokenNeighbors
    from dti_geom.training.story import TrainingRun, TrainingRuns

    if isinstance(result, TokenNeighbors):
        return NeighborsResult(result.encoder, (result,))
    if isinstance(result, TrainingRun):
        return TrainingRuns(result.result.config.model, (result,))
    return result


def _measurement_section(result: Measurement[Any]) -> Section:
    """Nest the encoders' sections; what none of them shows is said once, at the end."""
    show = _function(result.probe, "section")
    sections = [(encoder.name, show(encoder)) for encoder in result.encoders]
    limits = dict.fromkeys(
        block for _, section in sections for block in section.blocks if isinstance(block, Limits)
    )
    parts = [
        replace(
            section,
            title=name,
            blocks=[block for block in section.blocks if not isinstance(block, Limits)],
        )
        for name, section in sections
    ]
    title = sections[0][1].title if sections else PROBES[result.probe].question
    reasons = [Note(f"Does not apply: {reason}") for reason in result.does_not_apply]
    return Section(title, [*parts, *reasons, *limits], aside=result.model)


def _function(name: str, kind: str) -> Callable[[Any], Section]:
    module = importlib.import_module(f"dti_geom.reporting.sections.{name}")
    function: Callable[[Any], Section] = getattr(module, f"{name}_{kind}")
    return function
