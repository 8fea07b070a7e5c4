"""One command for every registered probe."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dti_geom.probes.registry import Needs, Option, Probe

from . import options
from .inputs import read_embeddings_or_skip
from .output import print_json, print_line, print_section
from .progress import reading_progress, working_progress

if TYPE_CHECKING:
    from dti_geom.models import StoredEncoder
    from dti_geom.probes.measuring import Measurement
    from dti_geom.progress import Progress

FILES = typer.Argument(metavar="FILE|DIR", help="Embedding files, or folders of them.")


def probe_command(probe: Probe) -> Callable[..., None]:
    """Return the command of a probe; its parameters are the common ones and the probe's own."""

    def command(**values: Any) -> None:
        _run(probe, values)

    parameters = _parameters(probe)
    command.__name__ = probe.name
    command.__doc__ = f"{probe.question}\n\n{probe.details} {_kept(probe)}"
    # typer reads both to build the command
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {
        "return": None
    }
    return command


def _kept(probe: Probe) -> str:
    arrays = ", one .npy array for each encoder" if probe.arrays else ""
    return f"--out writes {probe.name}.json{arrays} and the page index.html."


def _parameters(probe: Probe) -> list[inspect.Parameter]:
    """Arguments first, then the probe's own options, then those that all probes share."""
    arguments = [option for option in probe.options if option.argument]
    own = [option for option in probe.options if not option.argument]
    parameters = [_parameter(option.name, _own(option)) for option in arguments]
    if probe.needs is Needs.LEARNED:
        parameters.append(_parameter("embedding", Annotated[list[Path], FILES]))
    parameters.append(_parameter("model", options.Model, "mini"))
    parameters += [_parameter(option.name, _own(option), option.default) for option in own]
    if probe.needs is not Needs.LEARNED:
        parameters.append(_parameter("embedding", options.Embeddings, None))
    parameters += [
        _parameter("out", options.Out, None),
        _parameter("json", options.Json, False),
        _parameter("overwrite", options.Overwrite, False),
        _parameter("device", options.Device, "cpu"),
    ]
    if probe.needs.runs_encoder:
        parameters.append(_parameter("dtype", options.Dtype, options.Numbers.float32))
    if probe.samples:
        parameters.append(_parameter("seed", options.Seed, 0))
    return parameters


def _parameter(
    name: str, annotation: Any, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _own(option: Option) -> Any:
    """The annotation of one of a probe's own options, as typer reads it."""
    kind = list[option.type] if option.several else option.type  # type: ignore[name-defined]
    if option.argument:
        return Annotated[kind, typer.Argument(metavar=option.metavar, help=option.help)]
    names = (option.short,) if option.short else (f"--{option.name}",)
    hint = kind if option.default is not None else kind | None
    return Annotated[
        hint, typer.Option(*names, min=option.minimum, metavar=option.metavar, help=option.help)
    ]


def _run(probe: Probe, values: dict[str, Any]) -> None:
    """Open the encoders, measure, keep and show."""
    from dti_geom.errors import DoesNotApply
    from dti_geom.probes.learned import learned_vectors
    from dti_geom.probes.measuring import measure_model

    own = _own_values(probe, values)
    model, device = values["model"], values["device"]
    learned = learned_vectors(read_embeddings_or_skip(values["embedding"]))
    long = probe.needs.runs_encoder or probe.slow
    progress_bars = working_progress if long else reading_progress
    with progress_bars() as progress:
        encoders = _open(model, device, values.get("dtype"), progress)
        result = measure_model(
            probe,
            model,
            encoders,
            learned,
            seed=values.get("seed", 0),
            progress=progress,
            **own,
        )
        if not result.encoders:
            raise DoesNotApply("\n".join(result.does_not_apply))
        companions = _companions(probe, values, own, progress)
    _keep_and_show(
        probe, result, companions, encoders, out=values["out"], overwrite=values["overwrite"],
        json=values["json"],
    )  # fmt: skip


def _own_values(probe: Probe, values: dict[str, Any]) -> dict[str, Any]:
    """The probe's own options as its function takes them: files are read, lists are tuples."""
    own = {}
    for option in probe.options:
        value = values[option.name]
        if option.companion is not None:
            continue
        if option.read is not None and value is not None:
            value = option.read(value)
        own[option.name] = tuple(value) if option.several else value
    return own


def _open(
    model: str, device: str, dtype: "options.Numbers | None", progress: "Progress"
) -> "Sequence[StoredEncoder]":
    import torch

    from dti_geom.models import open_encoders

    return open_encoders(
        model,
        device=device,
        dtype=None if dtype is None else getattr(torch, dtype.value),
        progress=progress,
    )


def _companions(
    probe: Probe, values: dict[str, Any], own: dict[str, Any], progress: "Progress"
) -> dict[str, Any]:
    """Results of the measurements that options of this probe ask for beside its own."""
    results = {}
    for option in probe.options:
        count = values[option.name]
        if option.companion is None or not count:
            continue
        module = importlib.import_module(f"dti_geom.probes.{option.companion}")
        measure = getattr(module, f"measure_{option.companion}")
        results[option.companion] = measure(
            values["model"],
            count=count,
            pairs=own.get("pairs"),
            device=values["device"],
            progress=progress,
        )
    return results


def _keep_and_show(
    probe: Probe,
    result: "Measurement[Any]",
    companions: dict[str, Any],
    encoders: "Sequence[StoredEncoder]",
    *,
    out: Path | None,
    overwrite: bool,
    json: bool,
) -> None:
    from dti_geom.files import to_json
    from dti_geom.reporting.folder import write_results_page
    from dti_geom.reporting.registry import section_of

    results = {probe.name: result} | companions
    page = None
    if out is not None:
        page = write_results_page(out, result.model, results, overwrite=overwrite)
        if probe.arrays:
            _keep_arrays(probe, encoders, out, overwrite=overwrite)
    if json:
        print_json(to_json(result) | to_json(companions))
        return
    for shown in results.values():
        print_section(section_of(shown))
    if page is not None:
        print_line(str(page))


def _keep_arrays(
    probe: Probe, encoders: "Sequence[StoredEncoder]", out: Path, *, overwrite: bool
) -> None:
    import numpy

    from dti_geom.files import atomic_path

    module = importlib.import_module(f"dti_geom.probes.{probe.name}")
    arrays: Callable[[StoredEncoder], dict[str, Any]] = getattr(module, f"{probe.name}_arrays")
    for encoder in encoders:
        for name, array in arrays(encoder).items():
            with atomic_path(out / f"{name}.npy", overwrite=overwrite) as path:
                numpy.save(path, array)
