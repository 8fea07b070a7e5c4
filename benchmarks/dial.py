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

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from experiments import (
    Group,
    Question,
    Reading,
    alone,
    concepts_of,
    embedded_references,
    groups_of,
    keep_painted,
    load_painted,
    questions,
    read,
)
from torch import Tensor

from dti_geom import geometry
from dti_geom.files import atomic_path
from dti_geom.geometry.inflation import Walk
from dti_geom.mini.checks import both_right, order_right
from dti_geom.mini.concepts import Concept
from dti_geom.mini.prompts import ScenePrompt, mini_prompts
from dti_geom.mini.scorer import Scorer, shipped_scorer
from dti_geom.models import open_encoders
from dti_geom.models.pipelines import TextToImage, TrainingDefaults, open_text_to_image
from dti_geom.statistics import Interval, holm, paired_test, student_interval
from dti_geom.training import MethodConfig

GAINS = (1, 64, 8, 128, 32, 16)  # what is most needed first
FIXED_DECAY_GAIN = 64  # where TI's decay is also left as it is
PAIRS, ALONE = 16, 8
PICTURE_SEED = 1000

WORD, TI, RESCALED, DTI = "word", "TI", "TI at the mean norm", "DTI"
FIXED, FIXED_RESCALED = "TI, decay 0.01", "TI, decay 0.01, at the mean norm"
COMPARED = ((DTI, TI), (RESCALED, TI), (WORD, TI))
SCORES = ("likeness", "alone", "present", "both", "order", "text")


def methods_at(gain: float) -> dict[str, MethodConfig]:
    """Return what is trained at a gain, by the name of its variant."""
    methods = {TI: MethodConfig("ti"), DTI: MethodConfig("dti")}
    if gain == FIXED_DECAY_GAIN:
        methods[FIXED] = MethodConfig("ti", weight_decay=TrainingDefaults().weight_decay)
    return methods


@dataclass(frozen=True)
class Asked:
    """The prompts of a concept: pairs, then alone, then those whose text is scored."""

    pairs: list[Question]
    alone: list[str]
    scenes: list[ScenePrompt]

    @classmethod
    def of(cls, concept: Concept, thing: str, seed: int) -> "Asked":
        """thing: what the scorer calls what is painted."""
        scenes = [prompt for prompt in mini_prompts(thing) if prompt.expected.scene.second is None]
        return cls(questions(concept, seed, PAIRS), alone(ALONE), scenes)

    @property
    def prompts(self) -> list[str]:
        """All prompts, {} for what is painted."""
        return [
            *(question.prompt for question in self.pairs),
            *self.alone,
            *(prompt.text for prompt in self.scenes),
        ]

    def scores(self, read: Sequence[Reading], thing: str) -> dict[str, float]:
        """Return the mean of each score over these pictures.

        present: the thing is in the pair, on either side.
        """
        pairs, alone = read[: len(self.pairs)], read[len(self.pairs) :][: len(self.alone)]
        single = read[len(self.pairs) + len(self.alone) :]
        answers = [reading.answers for reading in pairs]
        asked = [question.scene(thing) for question in self.pairs]
        checked: list[bool] = []
        for prompt, reading in zip(self.scenes, single, strict=True):
            checked += prompt.expected.check(reading.answers, thing, None).values()
        return {
            "likeness": fmean(reading.likeness for reading in alone),
            "alone": fmean(reading.answers["first"] == thing for reading in alone),
            "present": fmean(thing in (a["first"], a["second"]) for a in answers),
            "both": fmean(both_right(s, a) for s, a in zip(asked, answers, strict=True)),
            "order": fmean(order_right(s, a) for s, a in zip(asked, answers, strict=True)),
            "text": fmean(checked),
        }


class Dial:
    """One gain of the model, with its tokens and pictures in a folder."""

    def __init__(self, work: Path, gain: float) -> None:
        self.work, self.gain, self.name = work, gain, f"mini:gain={gain:g}"
        self._model: TextToImage | None = None

    @property
    def model(self) -> TextToImage:
        """The open model, from when it is needed."""
        if self._model is None:
            self._model = open_text_to_image(self.name, dtype=torch.bfloat16)
        return self._model

    def groups(self, concepts: Sequence[Concept], seed: int) -> dict[str, list[Group]]:
        """Return the runs of each variant."""
        return {
            variant: groups_of(self.work, self.name, method, concepts, seed)
            for variant, method in methods_at(self.gain).items()
        }

    def train(self, concepts: Sequence[Concept], seed: int) -> None:
        """Train every run that is not finished."""
        for variant, groups in self.groups(concepts, seed).items():
            for group in groups:
                if not group.finished:
                    seconds = group.train(self.model)
                    self.model.forget()
                    print(f"{self.name}, seed {seed}: {variant}, {seconds:.0f} s", flush=True)

    def shown(self, concepts: Sequence[Concept], seed: int) -> dict[str, dict[str, Tensor]]:
        """Return the vector of each variant and concept: of the word, and of what is trained."""
        (encoder,) = open_encoders(self.name)
        table = encoder.token_table
        mean = geometry.summarize_norms(table).mean
        learned: dict[str, dict[str, Tensor]] = {}
        for variant, groups in self.groups(concepts, seed).items():
            if not all(group.finished for group in groups):
                print(f"{self.name}, seed {seed}: {variant} is not trained yet", flush=True)
                continue
            learned[variant] = {}
            for group in groups:
                learned[variant] |= group.vectors()
        words = {c.name: table[encoder.vocabulary.rows(c.initialiser)[0]] for c in concepts}
        shown = {WORD: words, **learned}
        for variant, rescaled in ((TI, RESCALED), (FIXED, FIXED_RESCALED)):
            if variant in learned:
                shown[rescaled] = {
                    name: mean * geometry.normalize(vector)
                    for name, vector in learned[variant].items()
                }
        return shown

    def pictures(self, concept: Concept, seed: int, variant: str) -> Path:
        """Return the file of the pictures of a variant."""
        slug = variant.replace(", ", "-").replace(" ", "-")
        return self.work / "pictures" / f"gain-{self.gain:g}" / f"{concept.name}-{seed}-{slug}.npz"

    def paint(self, concepts: Sequence[Concept], seed: int) -> None:
        """Paint every variant of every concept that has no pictures yet."""
        for variant, vectors in self.shown(concepts, seed).items():
            for concept in concepts:
                thing = concept.initialiser if variant == WORD else concept.item.thing
                keep_painted(
                    self.pictures(concept, seed, variant),
                    self.model,
                    vectors[concept.name],
                    Asked.of(concept, thing, seed).prompts,
                    seed=PICTURE_SEED,
                )
            print(f"{self.name}, seed {seed}: painted {variant}", flush=True)

    def cells(
        self, concepts: Sequence[Concept], seed: int, scorer: Scorer
    ) -> Iterator[dict[str, Any]]:
        """Yield the scores of every variant and concept that has pictures."""
        shown = self.shown(concepts, seed)
        (encoder,) = open_encoders(self.name)
        mean = geometry.summarize_norms(encoder.token_table).mean
        for concept in concepts:
            references = embedded_references(scorer, concept)
            for variant, vectors in shown.items():
                path = self.pictures(concept, seed, variant)
                if not path.exists():
                    continue
                thing = concept.initialiser if variant == WORD else concept.item.thing
                readings = read(scorer, load_painted(path), references)
                yield {
                    "gain": self.gain,
                    "seed": seed,
                    "concept": concept.name,
                    "variant": variant,
                    "norm / mean": float(geometry.norms(vectors[concept.name])) / mean,
                    **Asked.of(concept, thing, seed).scores(readings, thing),
                }


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


def by_concept(cells: Sequence[dict[str, Any]], variant: str, score: str) -> dict[str, float]:
    """Return the mean over training seeds of a score, by concept."""
    values: dict[str, list[float]] = {}
    for cell in cells:
        if cell["variant"] == variant:
            values.setdefault(cell["concept"], []).append(cell[score])
    return {concept: fmean(found) for concept, found in values.items()}


def summary(dials: Sequence[Dial], concepts: Sequence[Concept], seeds: Sequence[int]) -> Any:
    """Return scores by gain and variant with intervals over concepts, and their differences."""
    scorer = shipped_scorer()
    cells: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for dial in sorted(dials, key=lambda dial: dial.gain):
        found: list[dict[str, Any]] = []
        for seed in seeds:
            found += dial.cells(concepts, seed, scorer)
        if not found:
            continue
        cells += found
        words = [concept.initialiser for concept in concepts]
        rows.append(
            {
                "gain": dial.gain,
                "ratio of a word": ratio(dial.name, words),
                "law, norm / mean": law(dial.name, words),
                "variants": {
                    variant: _row(found, variant)
                    for variant in dict.fromkeys(cell["variant"] for cell in found)
                },
            }
        )
    return {
        "command": "python benchmarks/dial.py --stage summary",
        "torch": torch.__version__,
        "seeds": list(seeds),
        "concepts": len(concepts),
        "gains": rows,
        "differences": differences(cells),
        "cells": cells,
    }


def _row(cells: Sequence[dict[str, Any]], variant: str) -> dict[str, Any]:
    norms = [cell["norm / mean"] for cell in cells if cell["variant"] == variant]
    row: dict[str, Any] = {"runs": len(norms), "norm / mean": median(norms)}
    for score in SCORES:
        row[score] = asdict(interval(list(by_concept(cells, variant, score).values())))
    return row


def interval(values: Sequence[float]) -> Interval:
    """Return the mean over concepts with Student's 95 % interval."""
    return student_interval(values)


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


def differences(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return paired differences over concepts, corrected by Holm over all rows of a score."""
    rows: list[dict[str, Any]] = []
    for gain in sorted({cell["gain"] for cell in cells}):
        at_gain = [cell for cell in cells if cell["gain"] == gain]
        for first, second in COMPARED:
            row: dict[str, Any] = {"gain": gain, "difference": f"{first} − {second}"}
            for score in SCORES:
                ours, theirs = (by_concept(at_gain, v, score) for v in (first, second))
                # Rounded: equal concepts must be equal, not 1e-18 apart.
                values = [round(ours[c] - theirs[c], 12) for c in sorted(ours.keys() & theirs)]
                tested = paired_test(values)
                row[score] = {**asdict(interval(values)), "p": tested.p}
            rows.append(row)
    for score in SCORES:
        for row, p in zip(rows, holm([row[score]["p"] for row in rows]), strict=True):
            row[score]["p, Holm"] = p
    return rows


def show(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield "| gain | ratio | shown | norm ÷ mean | " + " | ".join(SCORES) + " |"
    yield "|" + "---|" * (4 + len(SCORES))
    for row in found["gains"]:
        for variant, values in row["variants"].items():
            scores = " | ".join(f"{values[score]['mean']:.3f}" for score in SCORES)
            yield (
                f"| {row['gain']:g} | {row['ratio of a word']:.3g} | {variant} | "
                f"×{values['norm / mean']:.2f} | {scores} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/dial"))
    parser.add_argument("--stage", choices=("train", "paint", "summary"), required=True)
    parser.add_argument("--gains", type=float, nargs="+", default=list(GAINS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--concepts", type=int, default=12, help="how many of the test concepts")
    parser.add_argument("--out", type=Path, default=Path("build/dial/result.json"))
    options = parser.parse_args()
    concepts = concepts_of("test")[: options.concepts]
    dials = [Dial(options.work, gain) for gain in options.gains]
    if options.stage == "summary":
        found = summary(dials, concepts, options.seeds)
        with atomic_path(options.out, overwrite=True) as beside:
            beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        print("\n".join(show(found)))
        return
    for seed in options.seeds:
        for dial in dials:
            stage: Callable[[Sequence[Concept], int], object] = (
                dial.train if options.stage == "train" else dial.paint
            )
            stage(concepts, seed)
            print(f"{time.process_time():.0f} core-seconds so far", flush=True)


if __name__ == "__main__":
    main()
