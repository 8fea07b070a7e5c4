"""The section of painted magnitudes: one direction at many lengths, moved by a slider."""

from dataclasses import replace
from itertools import product

from dti_geom.evaluation.magnitudes import PaintedMagnitudes, TokenPictures
from dti_geom.reporting.blocks import (
    Column,
    Finding,
    Limits,
    Note,
    Picture,
    PictureRow,
    Pictures,
    Section,
    Table,
    Value,
)
from dti_geom.reporting.text import shown, times


def magnitudes_section(result: PaintedMagnitudes) -> Section:
    """Show pictures of each token at the length that a slider chooses."""
    columns = [f"×{multiple:g}" for multiple in result.multiples]
    rows: list[PictureRow] = []
    for token in result.tokens:
        rows += _rows(result, token)
    learned: list[list[Value]] = [[token.label, token.inflation] for token in result.tokens]
    return Section(
        title="The same direction at every length",
        aside=f"seeds {', '.join(map(str, result.seeds))}",
        blocks=[
            Finding(lengths_finding(result)),
            Note(
                "The slider changes the tokens' length alone, in multiples of the vocabulary's "
                "mean norm. Directions, prompts and noise stay. A line follows it on the plots "
                "against the norm, as far as their axes go."
            ),
            Pictures("Length of the token", columns, rows, magnitudes=result.multiples),
            Table(
                "Length that each token learned",
                [Column("token", kind="text"), Column("÷ mean", "×", digits=3)],
                learned,
            ),
            Limits(
                "Which length is best: few pictures are shown and none is scored. Lengths between "
                "the steps of the slider were not painted."
            ),
        ],
    )


def lengths_finding(result: PaintedMagnitudes) -> str:
    """Say at which length each token was learned, and between which it was painted."""
    learned = [f"{shown(token.label)} at {times(token.inflation)}" for token in result.tokens]
    return (
        f"Learned: {', '.join(learned)} the mean norm. Painted here from ×{result.multiples[0]:g} "
        f"to ×{result.multiples[-1]:g}."
    )


def _rows(result: PaintedMagnitudes, token: TokenPictures) -> list[PictureRow]:
    """Return the pictures of a token, a row for each prompt and seed."""
    rows = []
    places = product(result.prompts, result.seeds)
    for (prompt, seed), uris in zip(places, token.pictures, strict=True):
        label = f"{shown(token.label)}\n{shown(prompt, 200).replace('{}', '…')}, seed {seed}"
        pictures = [
            Picture(uri, f"{label} at ×{multiple:g}".replace("\n", ", "))
            for uri, multiple in zip(uris, result.multiples, strict=True)
        ]
        rows.append(PictureRow(label, pictures))
    return rows


def magnitudes_data(result: PaintedMagnitudes) -> PaintedMagnitudes:
    """Return the result without its pictures, which the page shows already."""
    return replace(result, tokens=tuple(replace(token, pictures=()) for token in result.tokens))
