r"""Train DTI at one magnitude and show its token at another, on the embedded model.

DTI learns the test concepts at ½, 1, 2, 4 and 10 times the vocabulary's mean norm. Every token is
then painted at all five. If length itself spoils a picture, it does so in every row of the table;
if the change of length does, the diagonal is as good everywhere.

python benchmarks/magnitudes.py --work build/dial --stage train
python benchmarks/magnitudes.py --work build/dial --stage paint
python benchmarks/magnitudes.py --work build/dial --stage summary \
    --out reports/magnitudes/result.json

The first two resume. DTI at the mean norm is that of dial.py at gain 1: in its folder it is not
trained again. What was expected stands in reports/magnitudes/README.md.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from experiments import (
    WORD,
    Arms,
    difference_lines,
    options_of,
    run_stage,
    summarised,
    write_summary,
)

from dti_geom import geometry
from dti_geom.mini.concepts import Concept
from dti_geom.mini.scorer import shipped_scorer
from dti_geom.models import open_encoders
from dti_geom.training import MethodConfig

MULTIPLES = (1.0, 10.0, 4.0, 2.0, 0.5)  # of the mean norm


def trained(multiple: float) -> str:
    """Return the name of the arm that learns at this multiple of the mean norm."""
    return f"m = {multiple:g}"


def shown(learned: float, painted: float) -> str:
    """Return the name of a token learned at one multiple and painted at another."""
    return trained(learned) if learned == painted else f"{trained(learned)}, shown at {painted:g}"


def arms(work: Path, steps: int | None = None) -> Arms:
    """Return what is trained and painted."""
    (encoder,) = open_encoders("mini")
    mean = geometry.summarize_norms(encoder.token_table).mean
    methods = {
        trained(multiple): MethodConfig(
            "dti", magnitude=None if multiple == 1 else f"{multiple * mean:.4f}"
        )
        for multiple in MULTIPLES
    }
    others = {
        shown(learned, painted): (trained(learned), painted)
        for learned, painted in product(MULTIPLES, repeat=2)
        if learned != painted
    }
    return Arms(work, "mini", methods, others, steps=steps)


def compared() -> list[tuple[str, str]]:
    """Return the differences that are tested: of length where it was learned, and of a change."""
    longer = [multiple for multiple in MULTIPLES if multiple != 1]
    return [
        *((trained(multiple), trained(1)) for multiple in longer),
        *((shown(1, multiple), trained(1)) for multiple in longer),
        *((shown(multiple, 1), trained(multiple)) for multiple in longer),
    ]


def summary(arms: Arms, concepts: Sequence[Concept], seeds: Sequence[int]) -> dict[str, Any]:
    """Return scores by magnitude learned and shown, and differences corrected over all rows."""
    scorer, cells = shipped_scorer(), []
    for seed in seeds:
        cells += list(arms.cells(concepts, seed, scorer))
    return summarised("magnitudes.py", cells, compared(), concepts, seeds)


def show(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of three tables in Markdown."""
    for score in ("likeness", "present"):
        yield (
            f"| {score}: learned at, shown at | "
            + " | ".join(f"{m:g}" for m in sorted(MULTIPLES))
            + " |"
        )
        yield "|" + "---|" * (1 + len(MULTIPLES))
        for learned in sorted(MULTIPLES):
            values = [
                found["variants"][shown(learned, painted)][score]["mean"]
                for painted in sorted(MULTIPLES)
            ]
            yield f"| {learned:g} | " + " | ".join(f"{value:.3f}" for value in values) + " |"
        yield f"| {WORD} | {found['variants'][WORD][score]['mean']:.3f} |" + " |" * (
            len(MULTIPLES) - 1
        )
        yield ""
    yield from difference_lines(found["differences"])


def main() -> None:
    options = options_of(__doc__, Path("build/dial")).parse_args()
    learned = arms(options.work, options.steps)
    if options.stage != "summary":
        run_stage(options, [learned])
        return
    found = summary(learned, options.concepts, options.seeds)
    write_summary(options.out, found)
    print("\n".join(show(found)))


if __name__ == "__main__":
    main()
