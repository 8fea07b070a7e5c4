"""`dti-geom angles`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .inputs import read_embeddings_or_skip
from .output import print_line, print_table, reading_progress
from .probing import show

if TYPE_CHECKING:
    from dti_geom.probes import EncoderAngles


def angles(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR", help="Embedding files, or folders of them.")
    ],
    model: options.Model = "mini",
    init: Annotated[
        str | None,
        typer.Option(
            "--init", help="The word that tokens started from whose file does not say it."
        ),
    ] = None,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
) -> None:
    """How far learned tokens have turned from where they started.

    Prints each vector's angles to its first word and to the nearest token beside those that words have among each
    other. Vectors whose initialiser is not known are listed without that angle. --out writes angles.json and
    index.html.
    """
    from dti_geom.models import open_encoders
    from dti_geom.probes import learned_vectors, model_angles

    learned = learned_vectors(read_embeddings_or_skip(paths))
    with reading_progress() as progress:
        encoders = open_encoders(model, device=device, progress=progress)
        result = model_angles(model, encoders, learned, init=init, seed=seed)
    show(result, "angles", _print_encoder, out=out, json=json, overwrite=overwrite)


def _print_encoder(model: str, measured: "EncoderAngles") -> None:
    low, middle, high = (math.degrees(angle) for angle in measured.between_words)
    print_line(f"{model} · {measured.name} · {len(measured.learned)} learned vectors", "bold")
    print_line(
        f"{measured.words} words among each other: {middle:.1f}°, nine tenths from {low:.1f}° to {high:.1f}°; "
        f"to the nearest token {math.degrees(measured.to_nearest):.1f}°\n"
    )
    print_table(
        "Angles",
        ["token", "index", "from", "angle °", "nearest", "angle °", "norm"],
        [
            (
                one.token,
                one.index,
                one.init,
                None if one.angle is None else math.degrees(one.angle),
                one.nearest,
                math.degrees(one.nearest_angle),
                one.norm,
            )
            for one in measured.learned
        ],
        [one.path for one in measured.learned],
    )
    for one in measured.learned:
        if one.unknown is not None:
            print_line(f"{one.token}[{one.index}]: {one.unknown}")
