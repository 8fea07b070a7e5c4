"""The estimate section: what a run would download, need and compute."""

from dti_geom.models.downloads import in_units
from dti_geom.reporting.blocks import Block, Column, Finding, Limits, Note, Section, Table
from dti_geom.reporting.text import number, quoted
from dti_geom.training.estimates import GAPS, GIB, RESERVE, Estimate

_PART_COLUMNS = (
    Column("part", kind="text"),
    Column("dtype", kind="text"),
    Column("parameters"),
    Column("GiB", digits=3),
)
_MEMORY_COLUMNS = (
    Column("GiB in use", kind="text"),
    Column("fast", digits=3),
    Column("low", digits=3),
)
_ROWS = {  # fields of an estimate, as people call them
    "weights": "weights of denoiser and text encoders",
    "activations": "kept for the backward pass",
    "working": "working buffers at the peak",
    "latents": "latents of the images, and what learns",
    "training": "an update, in all",
    "loading": "loading",
    "encoding": "encoding the images",
    "painting": "painting previews",
    "peak": "the largest of these",
    "needed": "a card's size, with the reserve",
}
_CARD_COLUMNS = (Column("card, GiB"), Column("fits with --memory", kind="text"))
_FILE_COLUMNS = (
    Column("file", kind="path"),
    Column("size", kind="text"),
    Column("here", kind="text"),
)


def estimate_section(estimate: Estimate) -> Section:
    """Show what a run would do, and what it would take."""
    config = estimate.config
    blocks: list[Block] = [
        Finding(_run(estimate)),
        Finding(_download(estimate)),
        Finding(_cards(estimate)),
        Finding(_operations(estimate)),
        Table("Memory by phase", _MEMORY_COLUMNS, _memory_rows(estimate)),
        Note(
            f"The reserve is {RESERVE // GIB} GiB for the driver and its libraries, and "
            f"{GAPS:.0%} for gaps between allocations. Fast keeps all that the backward pass "
            "reads. Low computes blocks again, and moves parts off the card while they wait."
        ),
        Table(
            "Weights",
            _PART_COLUMNS,
            [[part.name, part.dtype, part.parameters, part.bytes / GIB] for part in estimate.parts],
        ),
        Table("Cards", _CARD_COLUMNS, [[card.gib, card.memory or "–"] for card in estimate.cards]),
        Table(
            "Files",
            _FILE_COLUMNS,
            [
                [file.name, in_units(file.bytes), "yes" if file.cached else "no"]
                for file in estimate.files
            ],
        ),
        Limits(
            "Workspaces inside a kernel, and what other programs have on the card. Attention "
            "counts as a fused kernel."
        ),
    ]
    return Section(f"Estimate of {config.method.name} on {config.model}", blocks)


def _run(estimate: Estimate) -> str:
    config = estimate.config
    tokens = ", ".join(quoted(concept.token) for concept in config.concepts)
    batch = f"{config.batch_size} images of each concept"
    if config.accumulate > 1:
        batch += f" in each of {config.accumulate} backward passes"
    return (
        f"{number(config.steps)} updates of {tokens} at {config.data.resolution} px, {batch}, at "
        f"rate {config.method.learning_rate:g}, in {config.dtype}: {number(estimate.trainable)} "
        f"numbers learn from {estimate.images} images."
    )


def _download(estimate: Estimate) -> str:
    missing = [file for file in estimate.files if not file.cached]
    if not missing:
        return f"Nothing is downloaded: all {in_units(estimate.bytes)} are on this machine."
    return (
        f"{in_units(estimate.bytes_to_download)} in {len(missing)} files are downloaded, of "
        f"{in_units(estimate.bytes)} that are read."
    )


def _cards(estimate: Estimate) -> str:
    """Say the smallest card for each setting."""
    sizes: dict[str, int] = {}
    for part in estimate.memory:
        fitting = [card.gib for card in estimate.cards if part.needed <= card.gib * GIB]
        if fitting:
            sizes[part.memory] = min(fitting)
    if not sizes:
        return f"No card of {max(card.gib for card in estimate.cards)} GiB or less holds this run."
    parts = [f"{size} GiB with --memory {memory}" for memory, size in sizes.items()]
    return f"The smallest common card that holds it: {', '.join(parts)}."


def _operations(estimate: Estimate) -> str:
    fast, low = (part.flops / 1e12 for part in estimate.memory)
    return (
        f"An update takes {number(fast, 3)} TFLOP with fast memory, {number(low, 3)} with low, "
        "which computes blocks twice."
    )


def _memory_rows(estimate: Estimate) -> list[list[str | float]]:
    rows: list[list[str | float]] = []
    for field, title in _ROWS.items():
        rows.append([title, *(getattr(part, field) / GIB for part in estimate.memory)])
    return rows
