"""Ask whether Textual Inversion is DTI with a falling angle, and whether the fall alone matters.

A free vector of norm n turns by η√d/n in an update. It grows, so it turns by less and less: by
θ/√(1 + θ²·t), θ = η√d/n_0, as the law in docs/inflation.md says. Optimisers of directions are
trained with that schedule, and in equal steps of the same total angle (the sum over the updates):

    TI                        a free vector by AdamW: its norm makes the schedule
    AdamW, falling            AdamW on the sphere with TI's first angle and that schedule
    AdamW, equal steps        the same total angle
    DTI, TI's fall            Riemannian SGD with TI's first angle and that schedule
    DTI, TI's total           the same total angle in equal steps
    DTI                       as published: 0.04 radians in each update
    DTI, falling              DTI's total angle by that schedule

TI and DTI are those of dial.py at gain 1: in its folder they are not trained again.

python benchmarks/schedule.py --work build/dial --stage train
python benchmarks/schedule.py --work build/dial --stage paint
python benchmarks/schedule.py --work build/dial --stage summary

The first two resume. What was expected stands in reports/inflation/README.md.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments import (
    SCORES,
    Arms,
    difference_lines,
    in_table,
    options_of,
    run_stage,
    summarised,
    write_summary,
)

from dti_geom import geometry
from dti_geom.mini.concepts import Concept
from dti_geom.mini.scorer import shipped_scorer
from dti_geom.models import open_encoders
from dti_geom.models.pipelines import TrainingDefaults
from dti_geom.training import MethodConfig
from dti_geom.training.methods.base import decide
from dti_geom.training.methods.registry import METHODS
from dti_geom.training.schedules import learning_rate_share

USUAL = TrainingDefaults()
COMPARED = (
    ("AdamW, falling", "TI"),
    ("AdamW, falling", "AdamW, equal steps"),
    ("DTI, TI's fall", "TI"),
    ("DTI, TI's fall", "DTI, TI's total"),
    ("DTI, falling", "DTI"),
    ("DTI", "TI"),
)


def methods() -> dict[str, MethodConfig]:
    """Return the method of each arm."""
    (encoder,) = open_encoders("mini")
    mean, width = (
        geometry.summarize_norms(encoder.token_table).mean,
        encoder.token_table.shape[1],
    )
    first = USUAL.vector_rate * width**0.5 / mean  # radians: TI's, from the mean norm
    # Rounded for the name of the run; a thousandth of a radian changes nothing.
    fall = f"angular:{first:.3f}"
    share = mean_share(fall)
    # A direction has norm 1: AdamW's rate turns it by rate·√d.
    sphere = USUAL.vector_rate / mean
    return {
        "TI": MethodConfig("ti"),
        "AdamW, falling": MethodConfig("adamw-sphere", learning_rate=sphere, schedule=fall),
        "AdamW, equal steps": MethodConfig("adamw-sphere", learning_rate=sphere * share),
        "DTI, TI's fall": MethodConfig("dti", learning_rate=first, schedule=fall),
        "DTI, TI's total": MethodConfig("dti", learning_rate=first * share),
        "DTI": MethodConfig("dti"),
        "DTI, falling": MethodConfig(
            "dti", learning_rate=USUAL.direction_rate / share, schedule=fall
        ),
    }


def mean_share(schedule: str) -> float:
    """Return the mean over a run of a schedule's factor."""
    settings = decide(METHODS["dti"], MethodConfig("dti", schedule=schedule))
    return fmean(learning_rate_share(settings, step, USUAL.steps) for step in range(USUAL.steps))


def summary(arms: Arms, concepts: Sequence[Concept], seeds: Sequence[int]) -> dict[str, Any]:
    """Return scores by arm, and their differences corrected over all rows."""
    scorer, cells = shipped_scorer(), []
    for seed in seeds:
        cells += list(arms.cells(concepts, seed, scorer))
    methods = {
        name: {"rate": method.learning_rate, "schedule": method.schedule}
        for name, method in arms.methods.items()
    }
    return summarised("schedule.py", cells, COMPARED, concepts, seeds) | {"methods": methods}


def show(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of two tables in Markdown."""
    yield "| arm | norm ÷ mean | angle to the word | " + " | ".join(SCORES) + " |"
    yield "|" + "---|" * (3 + len(SCORES))
    for arm, values in found["variants"].items():
        size = f"×{values['norm / mean']:.2f} | {values['angle']:.0f}°"
        yield f"| {arm} | {size} | {in_table(values)} |"
    yield ""
    yield from difference_lines(found["differences"])


def main() -> None:
    options = options_of(__doc__, Path("build/dial")).parse_args()
    if options.out == options.work / "result.json":
        options.out = options.work / "schedule.json"
    arms = Arms(options.work, "mini", methods(), steps=options.steps)
    if options.stage != "summary":
        run_stage(options, [arms])
        return
    found = summary(arms, options.concepts, options.seeds)
    write_summary(options.out, found)
    print("\n".join(show(found)))


if __name__ == "__main__":
    main()
