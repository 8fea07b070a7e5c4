"""`dti-geom attenuation`."""

from typing import TYPE_CHECKING

from . import options
from .inputs import read_embeddings_or_skip
from .output import keep_report, print_json, print_line, print_table, working_progress

if TYPE_CHECKING:
    from dti_geom.probes import EncoderAttenuation


def attenuation(
    model: options.Model = "mini",
    embedding: options.Embeddings = None,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = options.Numbers.float32,
    seed: options.Seed = 0,
) -> None:
    """Positional attenuation: how much of a token's position is left after the first normalisation, against magnitude.

    Prints, for each text tower with absolute positions, the share of variance and of attention logits that position
    explains, the accuracy of a position classifier on held-out words, and how far a position moves a token, beside the
    bound on it; at norms from 1/16 to 256 times the mean. --out writes attenuation.json and index.html.
    """
    import torch

    from dti_geom.errors import DoesNotApply
    from dti_geom.models import open_encoders
    from dti_geom.probes import learned_vectors, model_attenuation, require_some_fit

    learned = learned_vectors(read_embeddings_or_skip(embedding))
    encoders = open_encoders(model, device=device, dtype=getattr(torch, dtype.value))
    require_some_fit(learned, [encoder.token_table.shape[1] for encoder in encoders], model)
    with working_progress() as progress:
        result = model_attenuation(model, encoders, learned, seed=seed, progress=progress)
    if not result.encoders:
        raise DoesNotApply("\n".join(result.does_not_apply))
    if out is not None:
        from dti_geom.reporting import Report

        keep_report(out, Report(model, attenuation=result), "attenuation.json", overwrite=overwrite)
    if json:
        print_json(result)
        return
    for measured in result.encoders:
        _print_encoder(model, measured)
    for reason in result.does_not_apply:
        print_line(reason)
    if out is not None:
        print_line(str(out / "index.html"))


def _print_encoder(model: str, measured: "EncoderAttenuation") -> None:
    print_line(f"{model} · {measured.name} · {measured.words} words at {measured.positions} positions", "bold")
    print_line(f"×1 is the mean norm, {measured.reference_norm:.4g}; chance is {measured.chance:.4g}\n")
    print_table(
        "Left of position",
        ["norm", "variance", "logits", "cosine", "accuracy", "distance", "bound"],
        [
            (
                "their own" if one.scale is None else f"×{one.scale:g}",
                one.position_share,
                one.logit_share,
                one.cosine,
                one.accuracy,
                one.largest_distance,
                one.bound,
            )
            for one in (measured.natural, *measured.scales)
        ],
    )
    if measured.fitted is None:
        print_line("No slope: fewer than three of these norms are where theory applies.\n")
    else:
        low, high = measured.fitted
        print_line(
            f"Slopes from ×{low:g} to ×{high:g}: variance {measured.share_slope:.3f}, distance "
            f"{measured.distance_slope:.3f}; theory says −2 and −1.\n"
        )
    if measured.learned:
        print_table(
            "Learned vectors",
            ["token", "index", "inflation", "cosine", "accuracy", "distance", "file"],
            [
                (
                    one.token,
                    one.index,
                    f"×{one.inflation:.3g}",
                    one.cosine,
                    one.accuracy,
                    one.largest_distance,
                    one.path,
                )
                for one in measured.learned
            ],
        )
