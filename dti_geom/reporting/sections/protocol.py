"""What the paper's protocol would cost on a model."""

from dti_geom.reporting.blocks import Column, Finding, Limits, Note, Section, Table
from dti_geom.reporting.text import number
from dti_geom.sweeps.protocol import ProtocolEstimate

_COLUMNS = (Column("cards"), Column("hours", digits=3), Column("hours of all cards", digits=3))


def protocol_section(estimate: ProtocolEstimate) -> Section:
    """Show time and memory of the protocol on some numbers of cards."""
    rows = [[cards, hours, cards * hours] for cards, hours in estimate.by_cards.items()]
    update, picture = estimate.update_flops / 1e12, estimate.picture_flops / 1e12
    return Section(
        "The paper's protocol",
        [
            Finding(protocol_finding(estimate)),
            Table("Time", _COLUMNS, rows),
            Note(
                f"An update takes {number(update)} · 10¹² operations and a picture "
                f"{number(picture)} · 10¹², counted on the model's configuration. A card is taken "
                f"to do {number(estimate.teraflops)} · 10¹² in a second (--teraflops): an "
                "assumption. Every cell runs on one card."
            ),
            Limits(
                "Loading, encoding and scoring are not counted, and no card has confirmed the time."
            ),
        ],
    )


def protocol_finding(estimate: ProtocolEstimate) -> str:
    """Say in two sentences how much work it is."""
    return (
        f"{estimate.cells} trainings of {estimate.subjects} subjects, {estimate.updates:,} updates "
        f"and {estimate.pictures:,} pictures: about {number(estimate.hours)} hours of one card. "
        f"Training needs {number(estimate.gib)} GiB of it, or {number(estimate.gib_low)} with "
        f"--memory low; the model is {number(estimate.download / 1e9)} GB of files, the pictures "
        f"about {number(estimate.disk / 1e9, 2)}."
    )
