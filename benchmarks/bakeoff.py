"""The bake-off of norm policies on the embedded model: every training method under one protocol.

Stages, each a sweep of its own in the same folder, so that nothing is trained twice:

search   on the tuning concepts: learning rates of every method, further out while the best is the outermost
prior    on the tuning concepts: κ of DTI at its best rate
bakeoff  on the test concepts: every method at its best setting × 3 training seeds, TI's baselines beside them
norms    free and fixed norms after 100 and 200 updates too, first training seed: norm against scores
beyond   on the tuning concepts: schedules, averages, Riemannian Adam, momentum and magnitudes for DTI
winner   on the test concepts: what was best beyond the paper, the tuned DTI, and DTI as published
confirm  on the test concepts: the tuned DTI and DTI as published alone, on as many new training seeds, painted twice

A setting's merit is the geometric mean of subject and text score, each averaged over concepts and prompts.

python benchmarks/bakeoff.py --work build/bakeoff                      # all of it; goes on where it stopped
python benchmarks/bakeoff.py --work build/bakeoff --stages search prior
python benchmarks/bakeoff.py --work build/bakeoff --publish reports/bakeoff
"""

import argparse
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy import stats

from dti_geom.evaluation.evaluation import ALL
from dti_geom.evaluation.scores import ImageScore
from dti_geom.files import load_result, save_result, write_text
from dti_geom.models.catalog import profile_of
from dti_geom.reporting.sections.sweep import by_group, mean_inflation
from dti_geom.statistics import Interval, holm, paired_test
from dti_geom.sweeps import LocalEngine, Sweep, collect, plan_of, read_finished, run_sweep
from dti_geom.sweeps.cells import COST, Cost
from dti_geom.sweeps.engines import Outcome
from dti_geom.sweeps.plan import Cell, Plan
from dti_geom.sweeps.sweep import CellState
from dti_geom.training import METHODS

STAGES = ("search", "prior", "bakeoff", "beyond", "winner", "confirm", "norms")
PRESETS = ("dti-tuned",)  # methods that are what this bake-off found
RATES = {
    name: method.learning_rate or 0.04 for name, method in METHODS.items() if name not in PRESETS
}
FURTHER = 3  # times that a search may go on beyond its outermost rate
AS_IT_IS, AS_PUBLISHED = "as it is", "dti as published"
PUBLISHED = {"name": "dti", "learning_rate": RATES["dti"], "kappa": METHODS["dti"].kappa}
# What the others of a stage are tested against.
REFERENCES = {"bakeoff": ("dti",), "winner": ("dti", AS_PUBLISHED), "confirm": ("dti",)}
FINALISTS = 3  # changes that go on to the test concepts
KAPPAS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
TRAIN = {"dtype": "bfloat16"}
EVALUATE = {"seeds": 1}  # pictures of each prompt and training seed

Images = list[tuple[CellState, ImageScore]]


def concepts(split: str, together: int) -> list[list[str]]:
    """Names of the shipped concepts, in groups that share batches."""
    names = [
        concept.name for concept in profile_of("mini").concepts().values() if concept.split == split
    ]
    return [names[at : at + together] for at in range(0, len(names), together)]


def labelled(methods: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "label": label} for label, one in methods.items()]


def merits(images: Images) -> dict[str, float]:
    """Of every label: concepts weigh the same, whatever their prompts."""
    held: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for _, one in images:
        held[one.method][one.subject].append((one.subject_score, one.text_score))
    means = {
        label: np.mean([np.mean(each, axis=0) for each in by.values()], axis=0)
        for label, by in held.items()
    }
    return {
        label: float(max(0.0, subject) * text) ** 0.5 for label, (subject, text) in means.items()
    }


def changes(rate: float) -> dict[str, dict[str, Any]]:
    """What the paper did not try, for DTI at this rate."""
    twice = str(2 * mean_norm())
    return {
        AS_IT_IS: {},
        "cosine": {"schedule": "cosine"},
        "average of the last 100": {"average_last": 100},
        "cosine from twice the rate": {"schedule": "cosine", "learning_rate": 2 * rate},
        "Adam": {"optimizer": "adam", "learning_rate": rate / 2},
        "Adam, cosine": {"optimizer": "adam", "learning_rate": rate / 2, "schedule": "cosine"},
        "Adam at a tenth": {"optimizer": "adam", "learning_rate": rate / 20},
        "Adam at four times": {"optimizer": "adam", "learning_rate": 2 * rate},
        "Adam at sixteen times": {"optimizer": "adam", "learning_rate": 8 * rate},
        "momentum 0.9": {"momentum": 0.9, "learning_rate": rate / 2},
        "momentum 0.9 at a fifth": {"momentum": 0.9, "learning_rate": rate / 10},
        "second moment 0.9": {"beta": 0.9},
        "magnitude min": {"magnitude": "min"},
        "magnitude median": {"magnitude": "median"},
        "magnitude of the word": {"magnitude": "init"},
        "magnitude twice the mean": {"magnitude": twice},
        "magnitude learned": {"magnitude": "learned"},
        "momentum 0.9, twice the mean": {
            "momentum": 0.9,
            "learning_rate": rate / 2,
            "magnitude": twice,
        },
    }


class Bakeoff:
    """The stages, in a folder; a stage asks those before it for what they found, computing what is missing."""

    def __init__(
        self, work: Path, workers: int | None = None, seeds: Sequence[int] = (0, 1, 2)
    ) -> None:
        self.work, self.engine, self.seeds = work, LocalEngine(workers), list(seeds)
        self.asked: dict[str, Cell] = {}  # all that any stage has asked for, by address

    def tuning(self, methods: list[Any]) -> Plan:
        return self._plan("search", concepts("tuning", 4), methods, [0], EVALUATE)

    def run(self, plan: Plan) -> Plan:
        """Compute what is missing of a plan."""
        self.asked |= {cell.key: cell for cell in plan.cells}
        started = time.monotonic()

        def told(outcome: Outcome | None, ended: int, total: int) -> None:
            if outcome is None:
                return
            minutes = (time.monotonic() - started) / 60
            print(
                f"{plan.name}: {ended}/{total} {outcome.cell.label} {outcome.error or ''} {minutes:.0f} min",
                flush=True,
            )

        failed = [
            state
            for state in run_sweep(plan, self.work, self.engine, progress=told)
            if state.state == "failed"
        ]
        if failed:
            raise SystemExit(
                f"{len(failed)} cells failed, {failed[0].label} first: {failed[0].error}"
            )
        return plan

    def merits(self, methods: list[Any]) -> dict[str, float]:
        """Of methods on the tuning concepts, by label."""
        return merits(read_finished(self.run(self.tuning(methods)), self.work).images)

    def search(self) -> dict[str, dict[str, float]]:
        """Merit of every learning rate tried, by method."""
        tried = {name: [rate / 2, rate, rate * 2] for name, rate in RATES.items()}
        for last in [False] * FURTHER + [True]:
            asked = [
                {"name": name, "label": f"{name} {rate:g}", "learning_rate": rate}
                for name in tried
                for rate in tried[name]
            ]
            found = self.merits(asked)
            merit = {
                name: {rate: found[f"{name} {rate:g}"] for rate in sorted(rates)}
                for name, rates in tried.items()
            }
            further = {name: beyond for name, each in merit.items() if (beyond := outermost(each))}
            if last or not further:
                break
            for name, rate in further.items():
                tried[name].append(rate)
        return {
            name: {f"{rate:g}": value for rate, value in each.items()}
            for name, each in merit.items()
        }

    def prior(self) -> dict[str, float]:
        """Merit of every κ tried, for DTI at its best rate."""
        rate = best(self.search()["dti"])
        asked = [
            {"name": "dti", "label": f"{kappa:g}", "learning_rate": float(rate), "kappa": kappa}
            for kappa in KAPPAS
        ]
        return self.merits(asked)

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Every method at its best."""
        rates = {
            name: {"name": name, "learning_rate": float(best(found))}
            for name, found in self.search().items()
        }
        rates["dti"]["kappa"] = float(best(self.prior()))
        return rates

    def bakeoff(self) -> Plan:
        asked = {name: {**one, "baselines": name == "ti"} for name, one in self.settings.items()}
        return self.run(self._test("bakeoff", asked))

    def norms(self) -> Plan:
        methods = [
            one
            for name, one in self.settings.items()
            if name in ("dti", "ti", "crossinit", "std-retraction")
        ]
        return self.run(
            self._plan(
                "norms", concepts("test", 6), methods, [0], EVALUATE | {"checkpoints": [100, 200]}
            )
        )

    def beyond(self) -> dict[str, float]:
        """Merit of what the paper did not try, on its DTI as it was tuned."""
        dti = self.settings["dti"]
        return self.merits(
            labelled(
                {label: dti | change for label, change in changes(dti["learning_rate"]).items()}
            )
        )

    def winner(self) -> Plan:
        """The best of what goes beyond the paper, against the tuned and the published DTI, on the test concepts."""
        merit, dti = self.beyond(), self.settings["dti"]
        changed = changes(dti["learning_rate"])
        ranked = sorted(merit.keys() - {AS_IT_IS}, key=lambda label: -merit[label])
        asked = {
            "dti": dti,
            **{f"dti, {change}": dti | changed[change] for change in ranked[:FINALISTS]},
            AS_PUBLISHED: PUBLISHED,
        }
        return self.run(self._test("winner", asked))

    def confirm(self) -> Plan:
        asked = {"dti": self.settings["dti"], AS_PUBLISHED: PUBLISHED}
        seeds = [len(self.seeds) + one for one in self.seeds]
        return self.run(
            self._plan("confirm", concepts("test", 6), labelled(asked), seeds, {"seeds": 2})
        )

    def _test(self, name: str, methods: dict[str, dict[str, Any]]) -> Plan:
        return self._plan(name, concepts("test", 6), labelled(methods), self.seeds, EVALUATE)

    def _plan(
        self,
        name: str,
        groups: list[list[str]],
        methods: Iterable[Any],
        seeds: list[int],
        evaluate: dict[str, Any],
    ) -> Plan:
        asked = {
            "concepts": groups,
            "methods": list(methods),
            "seeds": seeds,
            "train": TRAIN,
            "evaluate": evaluate,
        }
        return plan_of(asked, name)


def publish(bakeoff: Bakeoff, stages: Iterable[str], folder: Path) -> None:
    """Results of these stages, and tables to read."""
    found: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "torch": torch.__version__,
    }
    found["settings"] = bakeoff.settings
    tables = []
    for stage in stages:
        result = getattr(bakeoff, stage)()
        if isinstance(result, dict):
            found[stage] = result
            continue
        finished = read_finished(result, bakeoff.work)
        sweep = collect(finished)
        save_result(folder / f"{stage}.json", sweep, overwrite=True)
        tables += [f"## {stage}", scores_table(sweep), groups_table(sweep), courses_table(sweep)]
        found[f"{stage}, norm against text"] = norm_against_text(sweep)
        found[f"{stage}, counting"] = by_prompt(finished.images, "count")
        for reference in REFERENCES.get(stage, ()):
            found[f"{stage}, {reference} less"] = (tested := against(finished.images, reference))
            tables.append(against_table(tested, reference))
    found["core hours"] = core_hours(bakeoff.asked.values(), bakeoff.work)
    write_text(folder / "result.json", json.dumps(found, indent=1) + "\n", overwrite=True)
    write_text(folder / "tables.md", "\n".join(tables), overwrite=True)


def core_hours(cells: Iterable[Cell], folder: Path) -> float:
    """Every training and every evaluation once, each at the median of its kind: some ran on a machine at other work."""
    trainings: dict[int, dict[str, float]] = defaultdict(dict)
    evaluations: dict[tuple[int, Any], list[float]] = defaultdict(list)
    for cell in cells:
        cost, together = load_result(folder / "cells" / cell.key / COST, Cost), len(cell.subjects)
        trainings[together][cell.run_key] = cost.training_seconds
        evaluations[together, cell.evaluation].append(cost.evaluation_seconds)
    kinds = [*(list(held.values()) for held in trainings.values()), *evaluations.values()]
    return sum(len(seconds) * median(seconds) for seconds in kinds) / 3600


def by_prompt(images: Images, group: str) -> dict[str, dict[str, float]]:
    """Mean text score of every method and prompt of a group."""
    held: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _, one in images:
        if one.group == group:
            held[one.method][one.prompt].append(one.text_score)
    return {
        method: {prompt: float(np.mean(texts)) for prompt, texts in by.items()}
        for method, by in held.items()
    }


def against(images: Images, reference: str) -> list[dict[str, Any]]:
    """The reference less every other method: means over concepts, and Wilcoxon's signed-rank test on the concepts'
    differences, corrected by Holm for the number of methods, for each score on its own."""
    held: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for _, one in images:
        held[one.method, one.subject].append((one.subject_score, one.text_score))
    methods = dict.fromkeys(method for method, _ in held)
    subjects = sorted({subject for _, subject in held})
    means = {
        method: np.array([np.mean(held[method, subject], axis=0) for subject in subjects])
        for method in methods
    }
    rows: list[dict[str, Any]] = [
        {"method": method, "concepts": len(subjects)} for method in methods if method != reference
    ]
    for place, score in enumerate(("subject", "text")):
        for row in rows:
            tested = paired_test((means[reference] - means[row["method"]])[:, place])
            row[score] = tested.mean
            row[f"{score} better on"] = tested.positive
            row[f"{score} p"] = tested.p
        corrected = holm([row[f"{score} p"] for row in rows])
        for row, p in zip(rows, corrected, strict=True):
            row[f"{score} p, Holm"] = p
    return rows


def scores_table(sweep: Sweep) -> str:
    inflation, costs = (
        mean_inflation(sweep),
        {one.label: one.training_seconds for one in sweep.costs},
    )
    rows = [
        (
            one.method,
            f"{inflation[one.method]:.2f}" if one.method in inflation else "–",
            interval(one.subject),
            interval(one.text),
            one.images,
            f"{costs[one.method]:.1f}" if one.method in costs else "–",
        )
        for one in sweep.summaries
        if one.group == ALL
    ]
    return table(("method", "norm ÷ mean", "subject", "text", "pictures", "s to train"), rows)


def groups_table(sweep: Sweep) -> str:
    groups, by_method = by_group(sweep)
    rows = [
        (method, *(interval(held[group].text) for group in groups)) for method, held in by_method
    ]
    return table(("text score", *groups), rows)


def courses_table(sweep: Sweep) -> str:
    """Means over concepts and training seeds after so many updates."""
    held: dict[tuple[str, int], list[tuple[float, float, float]]] = defaultdict(list)
    for one in sweep.courses:
        held[one.label, one.step].append((one.inflation, one.subject_score, one.text_score))
    rows = [
        (label, step, f"{norm:.2f}", f"{subject:.3f}", f"{text:.3f}")
        for (label, step), values in held.items()
        for norm, subject, text in [np.mean(values, axis=0)]
    ]
    return table(("method", "updates", "norm ÷ mean", "subject", "text"), rows)


def norm_against_text(sweep: Sweep) -> float:
    """Spearman's ρ of norm and text score over all runs and checkpoints, text less its concept's mean."""
    held: dict[str, list[float]] = defaultdict(list)
    for one in sweep.courses:
        held[one.subject].append(one.text_score)
    texts = [one.text_score - float(np.mean(held[one.subject])) for one in sweep.courses]
    return float(stats.spearmanr([one.inflation for one in sweep.courses], texts).statistic)


def against_table(tested: list[dict[str, Any]], reference: str) -> str:
    rows = [
        (
            row["method"],
            *(
                text
                for score in ("subject", "text")
                for text in (
                    f"{row[score]:+.3f}",
                    row[f"{score} better on"],
                    f"{row[f'{score} p, Holm']:.3f}",
                )
            ),
        )
        for row in tested
    ]
    of = tested[0]["concepts"]
    columns = (
        f"{reference} less",
        "subject",
        f"better on, of {of}",
        "p",
        "text",
        f"better on, of {of}",
        "p",
    )
    return table(columns, rows)


def interval(one: Interval) -> str:
    return (
        f"{one.mean:.3f}" if one.low is None else f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]"
    )


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [list(columns), ["---"] * len(list(columns)), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def best(merit: dict[str, float]) -> str:
    return max(merit, key=lambda name: merit[name])


def outermost(merit: dict[float, float]) -> float | None:
    """The next rate beyond the best one, if that is the lowest or the highest tried."""
    rates = sorted(merit)
    top = max(rates, key=lambda rate: merit[rate])
    return {rates[0]: top / 2, rates[-1]: top * 2}.get(top)


def mean_norm() -> float:
    from dti_geom import geometry
    from dti_geom.models import open_encoders

    return geometry.summarize_norms(open_encoders("mini")[0].token_table).mean


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/bakeoff"))
    parser.add_argument("--workers", type=int)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="training seeds on the test concepts",
    )
    parser.add_argument(
        "--publish", type=Path, help="also write results and tables of these stages there"
    )
    options = parser.parse_args()
    bakeoff = Bakeoff(options.work, options.workers, options.seeds)
    for stage in options.stages:
        found = getattr(bakeoff, stage)()
        if isinstance(found, dict):
            print(stage, json.dumps(found, indent=1), flush=True)
    if options.publish:
        publish(bakeoff, options.stages, options.publish)


if __name__ == "__main__":
    main()
