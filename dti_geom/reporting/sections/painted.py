"""The section of painted swaps: whether pictures follow a token's direction or its norm."""

from dataclasses import replace

from dti_geom.probes.painted import PaintedPair, PaintedSwap
from dti_geom.reporting.blocks import (
    Finding,
    Limits,
    Note,
    Picture,
    PictureRow,
    Pictures,
    Section,
    Table,
)
from dti_geom.reporting.sections.swap import DONOR_COLUMNS, donor_cells
from dti_geom.reporting.text import number, quoted, shown, times

_ROLES = ("first", "second", "first, resized", "second, resized")


def painted_section(result: PaintedSwap) -> Section:
    """Show pictures of swapped pairs, and which donor they resemble."""
    rows = [donor_cells(total) for total in result.sums]
    return Section(
        title="Pictures of swapped pairs",
        aside=f"seeds {', '.join(map(str, result.seeds))}",
        blocks=[
            Finding(painted_finding(result)),
            Pictures("Pairs", _ROLES, [_picture_row(pair) for pair in result.pairs]),
            Note(
                f"{quoted(result.prompt)}; all pictures of a row start from the same noise. An "
                "image encoder compares them, mean over both swaps and all seeds; those of the "
                "first seed are shown. Resized: at the other's norm. ×: the multiple of its norm "
                "at which the second was taken."
            ),
            Table("Pictures, similarity to either donor", DONOR_COLUMNS, rows),
            Limits("What other words or other models would give. Few pairs were painted."),
        ],
    )


def painted_finding(result: PaintedSwap) -> str:
    """Say how often pictures follow direction, as stored and at the largest stretch."""
    plain, far = result.sums[0], result.sums[-1]
    return (
        f"{plain.wins.right} of {plain.wins.total} swapped pairs look more like the word whose "
        f"direction they took ({number(plain.direction, 3)} against "
        f"{number(plain.magnitude, 3)}) at norms that differ {times(plain.ratio)}. Where norms "
        f"differ {times(far.ratio)}, {far.wins.right} of {far.wins.total} do "
        f"({number(far.direction, 3)} against {number(far.magnitude, 3)})."
    )


def _picture_row(pair: PaintedPair) -> PictureRow:
    names = f"{shown(pair.first)}, {shown(pair.second)} ×{pair.stretch:g}"
    label = (
        f"{names}\nnorms {times(pair.ratio)}\nlike direction {number(pair.direction, 3)}\n"
        f"like magnitude {number(pair.magnitude, 3)}"
    )
    return PictureRow(
        label,
        [
            Picture(f"data:image/png;base64,{picture}", f"{role} of {names}")
            for role, picture in zip(_ROLES, pair.pictures, strict=True)
        ],
    )


def painted_data(result: PaintedSwap) -> PaintedSwap:
    """Return the result without its pictures, which the page shows already."""
    return replace(result, pairs=tuple(replace(pair, pictures=()) for pair in result.pairs))
