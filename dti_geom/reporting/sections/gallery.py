"""The section of painted pictures: a row for each prompt, a column for each seed."""

from dataclasses import replace

from dti_geom.evaluation.gallery import Gallery
from dti_geom.reporting.blocks import (
    Block,
    Finding,
    Limits,
    Note,
    Picture,
    PictureRow,
    Pictures,
    Section,
)
from dti_geom.reporting.text import listed, number, quoted, shown


def gallery_section(result: Gallery) -> Section:
    """Show the pictures of every prompt."""
    settings = result.settings
    blocks: list[Block] = [Finding(gallery_finding(result)), _pictures(result)]
    if result.left_out:
        blocks.append(
            Note(
                f"{number(result.left_out)} prompts are not shown, so that the page stays small. "
                "Their pictures are in the folder."
            )
        )
    blocks.append(
        Limits("How often a prompt is followed: these are the seeds that were asked for, unscored.")
    )
    return Section(
        title="Pictures",
        aside=f"{settings.steps} steps, guidance {settings.guidance:g}, {settings.size} px, "
        f"{settings.dtype}",
        blocks=blocks,
    )


def gallery_finding(result: Gallery) -> str:
    """Say how many pictures there are, and of which tokens."""
    count = sum(uri is not None for row in result.rows for uri in row.pictures)
    tokens = list(dict.fromkeys(row.token for row in result.rows if row.token is not None))
    of_tokens = f" of {listed([quoted(token) for token in tokens], 4)}" if tokens else ""
    return f"{number(count)} pictures{of_tokens}. Those of a column start from the same noise."


def gallery_data(result: Gallery) -> Gallery:
    """Return the result without its pictures, which the page shows already."""
    return replace(result, rows=tuple(replace(row, pictures=()) for row in result.rows))


def _pictures(result: Gallery) -> Pictures:
    rows = [
        PictureRow(
            row.prompt,
            [
                None if uri is None else Picture(uri, f"{shown(row.prompt, 200)}, seed {seed}")
                for seed, uri in zip(result.seeds, row.pictures, strict=True)
            ],
        )
        for row in result.rows
    ]
    return Pictures("Same seed, same noise", [f"seed {seed}" for seed in result.seeds], rows)
