"""`dti-geom swap`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .inputs import read_lines
from .output import print_line, print_table, working_progress
from .probing import open_for_probe, show

if TYPE_CHECKING:
    from dti_geom.probes import EncoderSwap, PaintedSwap
    from dti_geom.probes.painted import PaintedSum
    from dti_geom.probes.swap import SwapSum
    from dti_geom.progress import Progress

OUTPUTS = {"token": "at the token", "pooled": "pooled", "end": "at the end"}


def swap(
    model: options.Model = "mini",
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help="A file of pairs to swap: two tokens a line, words or #id."),
    ] = None,
    category: Annotated[
        Path | None,
        typer.Option("--category", help="A file of words, one a line, to draw the pairs from."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many pairs to draw.")] = 32,
    images: Annotated[
        int,
        typer.Option(
            "--images",
            min=0,
            help="Also paint this many pairs and compare the pictures (mini only).",
        ),
    ] = 0,
    embedding: options.Embeddings = None,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = options.Numbers.float32,
    seed: options.Seed = 0,
) -> None:
    """Does the output follow a token's direction or its magnitude.

    Two tokens exchange their norms. Prints, for each text tower and output, how alike the output is to that of the
    token whose direction was taken and of the token whose norm was taken, how often direction wins, and what becomes of
    the output as the norm grows. Without --pairs, short words are paired with long ones. --out writes swap.json and
    index.html.
    """
    from dti_geom.probes import model_swap

    named = [_two(line, at, pairs) for at, line in read_lines(pairs)] if pairs is not None else None
    words = [line for _, line in read_lines(category)] if category is not None else None
    encoders, learned = open_for_probe(model, embedding, device, dtype)
    with working_progress() as progress:
        result = model_swap(
            model,
            encoders,
            learned,
            pairs=named,
            category=words,
            count=count,
            seed=seed,
            progress=progress,
        )
        if images:
            result = dataclasses.replace(
                result, painted=_paint(model, named, images, device, progress)
            )
    painted = result.painted
    show(
        result,
        "swap",
        _print_encoder,
        out=out,
        json=json,
        overwrite=overwrite,
        print_more=lambda: _print_painted(painted, images) if painted else None,
    )


def _print_painted(painted: "PaintedSwap", pairs: int) -> None:
    print_table(
        f"Pictures of {pairs} pairs, seeds {', '.join(map(str, painted.seeds))}",
        ["stretch", "norms", "direction", "magnitude", "wins", "of", "95 % interval"],
        [_wins(one) for one in painted.sums],
    )


def _wins(one: "SwapSum | PaintedSum") -> tuple[Any, ...]:
    """Cells of either table."""
    return (
        f"×{one.stretch:g}",
        f"×{one.ratio:.3g}",
        one.direction,
        one.magnitude,
        one.wins.right,
        one.wins.total,
        f"{100 * one.wins.low:.0f}–{100 * one.wins.high:.0f} %",
    )


def _paint(
    model: str, pairs: list[tuple[str, str]] | None, count: int, device: str, progress: "Progress"
) -> "PaintedSwap":
    from dti_geom.errors import DtiGeomError
    from dti_geom.models.pipelines import open_text_to_image
    from dti_geom.probes import painted_swap, scorer_of_mini

    if model != "mini":
        raise DtiGeomError(
            f"{model} brings no image encoder to compare pictures with; mini does. Leave --images out, or give "
            "dti_geom.probes.painted_swap an encoder of your own."
        )
    painter = open_text_to_image(model, device=device)
    return painted_swap(
        painter, scorer_of_mini(), pairs and pairs[:count], count=count, progress=progress
    )


def _two(line: str, number: int, path: Path | None) -> tuple[str, str]:
    from dti_geom.errors import DtiGeomError

    words = line.split()
    if len(words) != 2:
        raise DtiGeomError(
            f"{path}, line {number}: {len(words)} words; two tokens were expected, such as: cat dog. "
            "Name a token with spaces in it as #id."
        )
    return words[0], words[1]


def _print_encoder(model: str, measured: "EncoderSwap") -> None:
    print_line(
        f"{model} · {measured.name} · {len(measured.pairs)} pairs in {len(measured.carriers)} prompts",
        "bold",
    )
    if measured.left_out:
        print_line(f"left out, not one token here: {', '.join(measured.left_out)}")
    print_line()
    if measured.sums:
        print_table(
            "Pairs of words: similarity to either donor",
            ["output", "stretch", "norms", "direction", "magnitude", "wins", "of", "95 % interval"],
            [
                (
                    OUTPUTS[one.output],
                    *_wins(one),
                )
                for one in measured.sums
            ],
        )
    learned = [pair for pair in measured.pairs if pair.learned]
    if learned:
        print_table(
            "Learned vectors, at the token",
            ["first", "norm", "second", "norm", "direction", "magnitude"],
            [
                (
                    pair.first,
                    pair.norms[0],
                    pair.second,
                    pair.norms[1],
                    one.direction,
                    one.magnitude,
                )
                for pair in learned
                for one in pair.resemblances
                if one.output == "token"
            ],
        )
    words, *swept = measured.sweeps
    print_table(
        f"Similarity to itself at the mean norm, {words.directions} words",
        ["norm", *(OUTPUTS[one.output] for one in words.outputs)],
        [
            (f"×{scale:g}", *(one.similarity[at] for one in words.outputs))
            for at, scale in enumerate(words.scales)
        ],
    )
    if swept:
        print_table(
            "Similarity of learned vectors to themselves at the mean norm",
            ["token", "own norm", *(OUTPUTS[one.output] for one in swept[0].outputs)],
            [
                (
                    sweep.token,
                    f"×{sweep.inflation:.3g}",
                    *(
                        one.similarity[sweep.scales.index(sweep.inflation or 0)]
                        for one in sweep.outputs
                    ),
                )
                for sweep in swept
            ],
        )
