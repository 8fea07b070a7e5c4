"""`dti-geom stagnation`."""

import math
from typing import TYPE_CHECKING

from . import options
from .output import print_line, print_table, working_progress
from .probing import open_for_probe, show

if TYPE_CHECKING:
    from dti_geom.probes import EncoderStagnation


def stagnation(
    model: options.Model = "mini",
    embedding: options.Embeddings = None,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = options.Numbers.float32,
    seed: options.Seed = 0,
) -> None:
    """How far the encoder turns a token's state, by its magnitude.

    A long token passes the residual blocks nearly unturned (the paper's Effect II). Prints, for each pre-norm text
    tower, the turn between the first state of words in prompts and the last, beside the bound on it, at norms from 1/4
    to 8192 times the mean, and what each branch adds. --out writes stagnation.json and index.html.
    """
    from dti_geom.probes import model_stagnation

    encoders, learned = open_for_probe(model, embedding, device, dtype)
    with working_progress() as progress:
        result = model_stagnation(model, encoders, learned, seed=seed, progress=progress)
    show(result, "stagnation", _print_encoder, out=out, json=json, overwrite=overwrite)


def _print_encoder(model: str, measured: "EncoderStagnation") -> None:
    print_line(
        f"{model} · {measured.name} · {measured.words} words in {len(measured.prompts)} prompts",
        "bold",
    )
    print_line(
        f"×1 is the mean norm, {measured.reference_norm:.4g}; longest updates add up to {measured.total_bound:.4g}\n"
    )
    ends = [(passage, passage.branches[-1]) for passage in (measured.natural, *measured.scales)]
    print_table(
        "Whole turn",
        ["norm", "|x_0|", "mean °", "largest °", "bound °", "÷ bound"],
        [
            (
                "their own" if passage.scale is None else f"×{passage.scale:g}",
                passage.start_norm,
                math.degrees(end.angle),
                math.degrees(end.largest_angle),
                None if end.bound is None else math.degrees(end.bound),
                end.tightness,
            )
            for passage, end in ends
        ],
    )
    print_table(
        "Branches, words at their own norms",
        ["block", "branch", "update", "÷ state", "turn °", "so far °", "longest"],
        [
            (
                one.block,
                one.kind,
                one.update,
                one.relative_update,
                math.degrees(one.turn),
                math.degrees(one.angle),
                longest.largest_update,
            )
            for one, longest in zip(measured.natural.branches, measured.bounds, strict=True)
        ],
    )
    if measured.learned:
        print_table(
            "Learned vectors, at their own norms",
            ["token", "index", "inflation", "turn °"],
            [
                (
                    one.token,
                    one.index,
                    f"×{one.inflation:.3g}",
                    math.degrees(one.natural.branches[-1].angle),
                )
                for one in measured.learned
            ],
            [one.path for one in measured.learned],
        )
