"""The study section: what people preferred, method by method."""

from dti_geom.reporting.blocks import Column, Finding, Note, Section, Table
from dti_geom.reporting.text import number
from dti_geom.study.build import BuiltStudy


def built_section(result: BuiltStudy) -> Section:
    """Show what a new study holds, and what to do with its files."""
    return Section(
        "Study",
        [
            Finding(
                f"{number(result.raters)} raters see {result.screens} screens each, "
                f"{result.catch_trials} of them catch trials, with {result.shown} of "
                f"{len(result.methods)} methods: {', '.join(result.methods)}."
            ),
            Table(
                "Size",
                [Column("cases"), Column("pictures"), Column("MB", digits=3), Column("seed")],
                [[result.cases, result.pictures, result.bytes / 1e6, str(result.seed)]],
            ),
            Note(
                "Serve or send public/ only. key.json says what every picture is; keep it until "
                "you score."
            ),
        ],
    )
