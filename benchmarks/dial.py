"""Train and paint on variants of the embedded model whose blocks add less to a word: `mini:gain=c`.

At every gain c, TI and DTI learn the test concepts. TI's rate is multiplied by c and its weight
decay divided by it, so that nothing but the ratio ‖x_L − x_0‖/‖x_0‖ of a word's states changes. At
one gain TI is also trained with its decay as it is, which is then c times as fast.

Painted are the class word, TI, TI at the vocabulary's mean norm and DTI: in pairs, alone, and in
prompts that ask for a background, a colour, an accessory or a number.

python benchmarks/dial.py --work build/dial --stage train
python benchmarks/dial.py --work build/dial --stage paint
python benchmarks/dial.py --work build/dial --stage summary --out reports/dial/result.json

The first two resume. Pictures are kept and read by the scorer in the summary.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from experiments import (
    WORD,
    Arms,
    correct,
    differences,
    heading,
    options_of,
    row_of,
    run_stage,
    write_summary,
)

from dti_geom import geometry
from dti_geom.geometry.inflation import Walk
from dti_geom.mini.concepts import Concept
from dti_geom.mini.scorer import shipped_scorer
from dti_geom.models import open_encoders
from dti_geom.models.pipelines import TrainingDefaults
from dti_geom.training import MethodConfig

GAINS = (1, 64, 8, 128, 32, 16)  # what is most needed first
FIXED_DECAY_GAIN = 64  # where TI's decay is also left as it is

TI, RESCALED, DTI = "TI", "TI at the mean norm", "DTI"
FIXED, FIXED_RESCALED = "TI, decay 0.01", "TI, decay 0.01, at the mean norm"
COMPARED = ((DTI, TI), (RESCALED, TI), (WORD, TI))


def methods_at(gain: float) -> dict[str, MethodConfig]:
    """Return what is trained at a gain, by the name of its variant."""
    methods = {TI: MethodConfig("ti"), DTI: MethodConfig("dti")}
    if gain == FIXED_DECAY_GAIN:
        methods[FIXED] = MethodConfig("ti", weight_decay=TrainingDefaults().weight_decay)
    return methods


def dial(work: Path, gain: float, steps: int | None = None) -> Arms:
    """Return what is trained and painted at a gain."""
    rescaled = {RESCALED: (TI, 1.0), FIXED_RESCALED: (FIXED, 1.0)}
    name = "mini" if gain == 1 else f"mini:gain={gain:g}"
    return Arms(work, name, methods_at(gain), rescaled, steps=steps)


def ratio(model: str, words: Sequence[str]) -> float:
    """Return the median of ‖x_L − x_0‖/‖x_0‖ over words in "a photo of a <word>".

    x_0 and x_L: the word's state before the first block and after the last.
    """
    (encoder,) = open_encoders(model)
    assert encoder.tokenizer is not None
    ratios = []
    for word in words:
        ids = encoder.tokenizer(f"a photo of a {word}", return_tensors="pt").input_ids
        place = ids[0].tolist().index(encoder.vocabulary.rows(word)[0])
        states = encoder.hidden_states(ids).states
        first, last = states[0][0, place], states[-1][0, place]
        ratios.append(float((last - first).norm() / first.norm()))
    return median(ratios)


def summary(
    arms_by_gain: Mapping[float, Arms], concepts: Sequence[Concept], seeds: Sequence[int]
) -> dict[str, Any]:
    """Return scores by gain and variant, and their differences corrected over all gains."""
    scorer = shipped_scorer()
    rows: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    words = [concept.initialiser for concept in concepts]
    for gain, arms in sorted(arms_by_gain.items()):
        found: list[dict[str, Any]] = []
        for seed in seeds:
            found += [{"gain": gain} | cell for cell in arms.cells(concepts, seed, scorer)]
        if not found:
            continue
        cells += found
        compared += [{"gain": gain} | row for row in differences(found, COMPARED)]
        rows.append(
            {
                "gain": gain,
                "ratio of a word": ratio(arms.name, words),
                "law, norm / mean": law(arms.name, words),
                "variants": {
                    variant: row_of(found, variant)
                    for variant in dict.fromkeys(cell["variant"] for cell in found)
                },
            }
        )
    correct(compared)
    return heading("dial.py", concepts, seeds) | {
        "gains": rows,
        "differences": compared,
        "cells": cells,
    }


def law(model: str, words: Sequence[str]) -> dict[str, float]:
    """Return the norm that TI has after 400 updates by the law and by the slowed walk, ÷ mean."""
    (encoder,) = open_encoders(model)
    table, usual = encoder.token_table.float(), TrainingDefaults().at_gain(encoder.gain)
    starts = [float(table[encoder.vocabulary.rows(word)[0]].norm()) for word in words]
    mean = geometry.summarize_norms(table).mean
    walks = [Walk(table.shape[1], start, usual.vector_rate, usual.weight_decay) for start in starts]
    steps = usual.steps
    return {
        "law": fmean(walk.norm(steps) for walk in walks) / mean,
        "slowed": fmean(walk.slowed_norms(steps)[-1] for walk in walks) / mean,
    }


def show(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    columns = (
        "gain",
        "‖x_L − x_0‖/‖x_0‖",
        "TI: norm",
        "likeness: TI",
        "TI rescaled",
        "rescaled − TI",
        "DTI",
        "both there: TI",
        "DTI",
        "text: TI",
        "DTI",
        "both there: word",
    )
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in found["gains"]:
        variants, gain = row["variants"], row["gain"]
        (lost,) = (
            difference["likeness"]
            for difference in found["differences"]
            if (difference["gain"], difference["difference"]) == (gain, f"{RESCALED} − {TI}")
        )
        shown = [variants[name]["likeness"]["mean"] for name in (TI, RESCALED, DTI)]
        shown += [variants[name][s]["mean"] for s in ("both", "text") for name in (TI, DTI)]
        likeness, rescaled, *others = (f"{value:.3f}" for value in shown)
        cells = [
            f"{gain:g}",
            f"{row['ratio of a word']:.3g}",
            f"×{variants[TI]['norm / mean']:.1f}",
            likeness,
            rescaled,
            _tested(lost),
            *others,
            f"{variants[WORD]['both']['mean']:.3f}",
        ]
        yield f"| {' | '.join(cells)} |"


def _tested(difference: dict[str, Any]) -> str:
    """Write a difference with its interval and p, where several concepts give it some."""
    mean = f"{difference['mean']:+.3f}"
    if difference["p"] is None:
        return mean
    ends = f"[{difference['low']:+.3f}, {difference['high']:+.3f}]"
    return f"{mean} {ends}, p = {difference['p, Holm']:.3f}"


def main() -> None:
    parser = options_of(__doc__, Path("build/dial"))
    parser.add_argument("--gains", type=float, nargs="+", default=list(GAINS))
    options = parser.parse_args()
    dials = {gain: dial(options.work, gain, options.steps) for gain in options.gains}
    if options.stage != "summary":
        run_stage(options, list(dials.values()))
        return
    found = summary(dials, options.concepts, options.seeds)
    write_summary(options.out, found)
    print("\n".join(show(found)))


if __name__ == "__main__":
    main()
