"""The first screen of a page about training runs: the pictures, how long the tokens are, and why.

What follows it measures; this says what the page is of.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dti_geom.reporting.blocks import Block, Finding, Note, Picture, PictureRow, Pictures, Section
from dti_geom.reporting.methods import method_name
from dti_geom.reporting.report import Report
from dti_geom.reporting.text import listed, quoted, shown, times
from dti_geom.training.story import EmbeddedPreview, TrainingRun, TrainingRuns

NAMED = 3  # concepts in the title
ROWS = 4  # of pictures: what a screen has room for

WHY = (
    "Textual Inversion (TI) learns a new word from a few pictures, and the word’s vector grows far "
    "beyond those of ordinary words. Kim et al. (ICLR 2026, arXiv 2512.13672) say that the length "
    "carries no meaning and hides where in a prompt the word stands. Their Directional Textual "
    "Inversion (DTI) keeps the length of an ordinary word and learns the direction alone."
)


@dataclass(frozen=True)
class Opening:
    """What a page opens with."""

    title: str  # what the page is of
    section: Section


def opening_of(report: Report) -> Opening | None:
    """Return the first screen of a report; None without training runs."""
    trained = report.results.get("training")
    if not isinstance(trained, TrainingRuns):
        return None
    runs = trained.runs
    blocks: list[Block] = [Note(WHY)]
    pictures = _pictures(runs)
    if pictures.rows:
        blocks.append(pictures)
    blocks.append(Finding(_lengths(runs)))
    methods = listed(list(dict.fromkeys(_method(run) for run in runs)))
    concepts = dict.fromkeys(name for run in runs for name in _concepts(run))
    title = f"{listed(list(concepts), NAMED)} by {methods}"
    return Opening(title, Section("The result", blocks, aside=report.model))


def run_label(run: TrainingRun) -> str:
    """Return what a page calls what a run learned: concept and method, as “green-fox · TI”."""
    return f"{listed(_concepts(run), NAMED)} · {_method(run)}"


def _method(run: TrainingRun) -> str:
    return method_name(run.result.config.method.name)


def _concepts(run: TrainingRun) -> list[str]:
    return [Path(concept.images).name for concept in run.result.config.concepts]


def _inflation(run: TrainingRun) -> float:
    return max(vector.inflation for vector in run.result.vectors)


def _lengths(runs: Sequence[TrainingRun]) -> str:
    ends = [
        f"{quoted(run.result.config.concepts[0].token)} by {_method(run)} {times(_inflation(run))}"
        for run in runs
    ]
    return f"How long the tokens became, beside the vocabulary’s mean: {', '.join(ends)}."


def _pictures(runs: Sequence[TrainingRun]) -> Pictures:
    """Return the last previews of all runs, prompt by prompt and seed by seed, and references."""
    by_run = [dict(_last_previews(run)) for run in runs]
    references = list(dict.fromkeys(uri for run in runs for uri in run.references))
    places = list(dict.fromkeys(place for of_run in by_run for place in of_run))
    prompts = list(dict.fromkeys(prompt for prompt, _ in places))
    rows = []
    for number, (prompt, seed) in enumerate(places[:ROWS]):
        pictures: list[Picture | None] = []
        if references:
            uri = references[number] if number < len(references) else None
            pictures.append(Picture(uri, "a reference picture") if uri else None)
        for run, of_run in zip(runs, by_run, strict=True):
            found = of_run.get((prompt, seed))
            alt = f"{shown(prompt, 200)}, seed {seed}, by {_method(run)}"
            pictures.append(Picture(found.uri, alt) if found else None)
        label = f"seed {seed}" if len(prompts) == 1 else f"{shown(prompt, 200)}\nseed {seed}"
        rows.append(PictureRow(label, pictures))
    columns = [f"{_method(run)}, {times(_inflation(run))}" for run in runs]
    if references:
        columns.insert(0, "a reference")
    title = "Same prompt and seed, with the token’s length beside the vocabulary’s mean"
    if len(prompts) == 1:
        title = f"{shown(prompts[0], 200).replace('{}', '…')}: {title[0].lower()}{title[1:]}"
    return Pictures(title, columns, rows)


def _last_previews(run: TrainingRun) -> Iterator[tuple[tuple[str, int], EmbeddedPreview]]:
    """Yield the previews of a run's last step, by prompt with {} for the token, and seed."""
    last = max((picture.preview.step for picture in run.pictures), default=0)
    for picture in run.pictures:
        preview = picture.preview
        if preview.step == last:
            yield (preview.prompt.replace(preview.token, "{}"), preview.seed), picture
