"""The harden section: prompts of real words in the place of tokens, and how near they come."""

from dti_geom.probes.harden import FRAMES, RANDOM, HardenedToken, HardenResult
from dti_geom.reporting.blocks import Column, Finding, Limits, Note, Section, Table, Value
from dti_geom.reporting.text import number, percent, quoted, shown

_COLUMNS = (
    Column("token", kind="token"),
    Column("norm", digits=3),
    Column("prompt", kind="token"),
    Column("share", "%", digits=3),
    Column("cosine", digits=3),
    Column("best word", kind="token"),
    Column("share", "%", digits=3),
    Column("nearest words", kind="token"),
    Column("share", "%", digits=3),
    Column("best of random", "%", digits=3),
)
_FILE_COLUMNS = (Column("step"), Column("file", kind="path"))


def harden_section(result: HardenResult) -> Section:
    """Show the best prompt of each token beside the best word and random prompts."""
    learned = any(token.path is not None for token in result.tokens)
    columns = (*_COLUMNS, *(_FILE_COLUMNS if learned else ()))
    return Section(
        title="Real words for tokens",
        aside=f"{result.words} words of {number(result.candidates)}, {result.read}",
        blocks=[
            Finding(harden_finding(result)),
            Note(
                f"States are compared in {len(FRAMES)} prompts, such as “{FRAMES[0]}”: at the "
                "words, around them and at the end, each less its mean over random words. A share "
                "of 100 % means the same states, 0 % no nearer than that mean."
            ),
            Table("Prompts", columns, [_row(token, learned) for token in result.tokens]),
            Limits(
                "What the prompt paints: only a part of the concept may have words. The search is "
                "not exhaustive; other starts or more words may come nearer."
            ),
        ],
    )


def harden_finding(result: HardenResult) -> str:
    """Say what the best prompt reaches."""
    best = max(result.tokens, key=lambda token: token.prompt.share)
    return (
        f"The words nearest to {quoted(best.query)} are {quoted(best.prompt.text)}: they reach "
        f"{percent(100 * best.prompt.share)} of its states, the best of {RANDOM} random prompts "
        f"{percent(100 * best.random)}."
    )


def _row(token: HardenedToken, learned: bool) -> list[Value]:
    row: list[Value] = [
        shown(token.query),
        token.norm,
        token.prompt.text,
        100 * token.prompt.share,
        token.prompt.cosine,
        token.word.text,
        100 * token.word.share,
        token.nearest.text,
        100 * token.nearest.share,
        100 * token.random,
    ]
    return [*row, token.step, token.path] if learned else row
