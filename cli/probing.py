"""What every command of a probe does before and after it measures."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options
from .inputs import read_embeddings_or_skip
from .output import keep_report, print_json, print_line

if TYPE_CHECKING:
    from dti_geom.models import StoredEncoder
    from dti_geom.probes import LearnedVector


def open_for_probe(
    model: str, embedding: list[Path] | None, device: str, dtype: options.Numbers
) -> "tuple[list[StoredEncoder], list[LearnedVector]]":
    """The model's encoders, and the learned vectors of these files, of which some must fit."""
    import torch

    from dti_geom.models import open_encoders
    from dti_geom.probes import learned_vectors, require_some_fit

    learned = learned_vectors(read_embeddings_or_skip(embedding))
    encoders = open_encoders(model, device=device, dtype=getattr(torch, dtype.value))
    require_some_fit(learned, [encoder.token_table.shape[1] for encoder in encoders], model)
    return encoders, learned


def show(
    result: Any,
    name: str,
    print_encoder: Callable[[str, Any], None],
    *,
    out: Path | None,
    json: bool,
    overwrite: bool,
    print_more: Callable[[], None] = lambda: None,
) -> None:
    """Keep and print a probe's result. `name` is that of its field in Report, and of its file."""
    from dti_geom.errors import DoesNotApply

    reasons = getattr(result, "does_not_apply", ())
    if not result.encoders:
        raise DoesNotApply("\n".join(reasons))
    if out is not None:
        from dti_geom.reporting import Report

        keep_report(
            out, Report(result.model, **{name: result}), f"{name}.json", overwrite=overwrite
        )
    if json:
        print_json(result)
        return
    for measured in result.encoders:
        print_encoder(result.model, measured)
    print_more()
    for reason in reasons:
        print_line(reason)
    if out is not None:
        print_line(str(out / "index.html"))
