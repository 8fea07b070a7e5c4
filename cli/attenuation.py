"""`dti-geom attenuation`."""

from typing import TYPE_CHECKING

from . import options
from .output import print_line, print_table, working_progress
from .probing import open_for_probe, show

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
    """What is left of a token's position, against its magnitude.

    Position fades in the first normalisation as the token grows (the paper's Effect I). Prints, for each text tower
    with absolute positions, the share of variance and of attention logits that position explains, the accuracy of a
    position classifier on held-out words, and how far a position moves a token, beside the bound on it; at norms from
    1/16 to 256 times the mean. --out writes attenuation.json and index.html.
    """
    from dti_geom.probes import model_attenuation

    encoders, learned = open_for_probe(model, embedding, device, dtype)
    with working_progress() as progress:
        result = model_attenuation(model, encoders, learned, seed=seed, progress=progress)
    show(result, "attenuation", _print_encoder, out=out, json=json, overwrite=overwrite)


def _print_encoder(model: str, measured: "EncoderAttenuation") -> None:
    print_line(
        f"{model} · {measured.name} · {measured.words} words at {measured.positions} positions",
        "bold",
    )
    print_line(
        f"×1 is the mean norm, {measured.reference_norm:.4g}; chance is {measured.chance:.4g}\n"
    )
    print_table(
        "Left of position: shares of variance and of attention logits; distance of normalised states, and its bound",
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
            ["token", "index", "inflation", "cosine", "accuracy", "distance"],
            [
                (
                    one.token,
                    one.index,
                    f"×{one.inflation:.3g}",
                    one.cosine,
                    one.accuracy,
                    one.largest_distance,
                )
                for one in measured.learned
            ],
            [one.path for one in measured.learned],
        )
