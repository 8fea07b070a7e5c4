"""Compare norm policies on the embedded model: every training method under one protocol.

Every stage is a sweep. All sweeps share a folder, so nothing is trained twice:

search   on the tuning concepts: the same multiples of every method's own learning rate
second   on the tuning concepts: as many values of every method's second setting at its best rate:
         κ, weight decay, magnitude, pull, share or exponent, see `second_values`
bakeoff  on the test concepts: every method at its best setting × 3 training seeds, TI's
         baselines, DTI as published, and the presets that earlier runs of this benchmark gave
speed    on the test concepts: every method's checkpoints of the first training seed; updates and
         seconds until it is as good as TI is at its end
quick    on the tuning concepts: updates that changes of DTI need to be as good as TI at its end
quicker  on the test concepts: the same for the quickest of them, beside TI and DTI, first seed
norms    on the test concepts: norm against scores, for free and fixed norms, also after 100 and
         200 updates, first training seed
beyond   on the tuning concepts: schedules, averages, Riemannian Adam, momentum and magnitudes
         for DTI
winner   on the test concepts: the best settings of `beyond`, the tuned DTI, and DTI as published
confirm  on the test concepts: the tuned DTI and DTI as published, on 3 new training seeds, with
         two pictures of each prompt

Every method is tried at the same number of settings. A best value at the edge of what was tried is
published as such; no method gets more for it. A setting's merit is the geometric mean of its
subject score and its text score. Both are averaged over concepts and prompts.

python benchmarks/bakeoff.py --work build/bakeoff                      # all stages; resumes
python benchmarks/bakeoff.py --work build/bakeoff --stages search second
python benchmarks/bakeoff.py --work build/bakeoff --publish reports/bakeoff
python benchmarks/bakeoff.py --work build/bakeoff --rates-only         # no method's second setting
python benchmarks/bakeoff.py --model mini:gain=64 --methods dti ti --rates-only
python benchmarks/bakeoff.py --searched reports/bakeoff-again/result.json  # rates searched before
"""

import argparse
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy import stats

from dti_geom import geometry
from dti_geom.evaluation.evaluation import ALL
from dti_geom.evaluation.scores import ImageScore
from dti_geom.files import load_result, save_result, to_json, write_text
from dti_geom.geometry import NormSummary
from dti_geom.models import open_encoders
from dti_geom.models.catalog import profile_of
from dti_geom.models.pipelines import TextToImage
from dti_geom.models.variants import AS_TRAINED, parse_variant
from dti_geom.reporting.sections.sweep import by_group, mean_inflation
from dti_geom.statistics import Interval, paired_tests
from dti_geom.sweeps import LocalEngine, Sweep, collect, plan_of, read_finished, run_sweep
from dti_geom.sweeps.cells import COST, Cost
from dti_geom.sweeps.engines import Outcome
from dti_geom.sweeps.plan import Cell, Plan
from dti_geom.sweeps.quality import TimeToQuality, time_to_quality
from dti_geom.sweeps.sweep import CellState
from dti_geom.training import METHODS, MethodConfig
from dti_geom.training.methods.base import decide

STAGES = (
    *("search", "second", "bakeoff", "beyond", "winner", "confirm"),
    *("speed", "quick", "quicker", "norms"),
)
PRESETS = ("dti-tuned",)  # methods whose settings come from this benchmark
DEFAULTS = TextToImage.training
COMPARED = tuple(name for name, method in METHODS.items() if name not in PRESETS and method.learns)
MULTIPLES = (1 / 16, 1 / 4, 1, 4)  # of a method's own rate
AS_IT_IS, AS_PUBLISHED = "as it is", "dti as published"
PUBLISHED = {
    "name": "dti",
    "learning_rate": DEFAULTS.direction_rate,
    "kappa": METHODS["dti"].kappa,
}
# What the others of a stage are tested against.
REFERENCES = {"bakeoff": ("dti",), "winner": ("dti", AS_PUBLISHED), "confirm": ("dti",)}
FIRST_ANGLE = 0.73  # radians: the 42° of TI at its own rate on mini, see reports/inflation
STRATIFIED = ", stratified"
SPREAD = ("dti", "dti, 4 times the rate")  # also tried with stratified times
FINALISTS = 3  # changes that are tried on the test concepts
VALUES = 4  # of a method's second setting, its own among them
TRAIN = {"dtype": "bfloat16", "checkpoint_every": 50}
AT_CHECKPOINTS = {"checkpoints": [50, 100, 200, 300]}
EVALUATE = {"seeds": 1}  # pictures of each prompt and training seed

Merits = dict[str, dict[str, float]]  # by method, and by value of its setting as text
Images = list[tuple[CellState, ImageScore]]


def concepts(split: str, together: int) -> list[list[str]]:
    """Names of the shipped concepts, in groups that share batches."""
    names = [
        concept.name for concept in profile_of("mini").concepts().values() if concept.split == split
    ]
    return [names[at : at + together] for at in range(0, len(names), together)]


def labelled(methods: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**method, "label": label} for label, method in methods.items()]


def merits(images: Images) -> dict[str, float]:
    """Return the merit of every label. Concepts weigh the same, whatever their prompts."""
    scores: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for _, image in images:
        scores[image.method][image.subject].append((image.subject_score, image.text_score))
    means = {
        label: np.mean([np.mean(pairs, axis=0) for pairs in by_subject.values()], axis=0)
        for label, by_subject in scores.items()
    }
    return {
        label: float(max(0.0, subject) * text) ** 0.5 for label, (subject, text) in means.items()
    }


def own_rates(model: str, methods: Iterable[str] = COMPARED) -> dict[str, float]:
    """Return the learning rate that methods have by themselves on a model or a variant of it."""
    name, colon, settings = model.partition(":")
    variant = parse_variant(name, settings) if colon else AS_TRAINED
    defaults = DEFAULTS.at_gain(variant.gain, keep_decay=variant.keep_decay)
    return {
        name: decide(METHODS[name], MethodConfig(name), defaults).learning_rate for name in methods
    }


def second_values() -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Return every method's second setting and the `VALUES` values of it that are tried.

    Projections undo weight decay, so what they try is the magnitude that they project to.
    """
    decays = ("weight_decay", (0.0, DEFAULTS.weight_decay, 1.0, 10.0))
    multiples = (0.5, 1.0, 2.0, 4.0)
    stats = norm_summary()
    projected = {"median-projection": stats.percentiles[3], "adamw-sphere": stats.mean}
    return {
        "dti": ("kappa", (0.0, DEFAULTS.kappa, 1e-2, 1e-1)),
        "ti": decays,
        "category-norm": decays,
        "crossinit": ("strength", (0.0, 1e-5, 1e-2, 10.0)),
        "norm-decay": ("strength", (1.0, 10.0, 30.0, 100.0)),
        "std-retraction": ("strength", (0.01, 0.1, 0.3, 1.0)),
        **{
            name: ("magnitude", tuple(str(multiple * norm) for multiple in multiples))
            for name, norm in projected.items()
        },
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


def quicker_changes(rate: float) -> dict[str, dict[str, Any]]:
    """What may need fewer updates than DTI at this rate.

    Adam moves each of the 256 coordinates, so at a sixteenth of a rate it turns by that rate.
    """
    return {
        "4 times the rate": {"learning_rate": 4 * rate},
        "16 times the rate": {"learning_rate": 16 * rate},
        "fall from 16 times the rate": falling(16 * rate),
        "fall from TI's first angle": falling(FIRST_ANGLE),
        "Adam": {"optimizer": "adam", "learning_rate": rate / 16},
        "Adam at 4 times": {"optimizer": "adam", "learning_rate": rate / 4},
        "Adam at 16 times": {"optimizer": "adam", "learning_rate": rate},
        "momentum 0.9": {"momentum": 0.9, "learning_rate": rate / 2},
        "twice the mean": {"magnitude": str(2 * mean_norm())},
    }


def falling(rate: float) -> dict[str, Any]:
    """Turn by this angle in the first update, then as a free vector does that grows."""
    return {"learning_rate": rate, "schedule": f"angular:{rate:g}"}


class Bakeoff:
    """Run the stages in a folder. A stage reads earlier stages, which compute what is missing."""

    def __init__(
        self,
        work: Path,
        workers: int | None = None,
        seeds: Sequence[int] = (0, 1, 2),
        *,
        rates_only: bool = False,
        searched: Path | None = None,
        model: str = "mini",
        methods: Sequence[str] = COMPARED,
    ) -> None:
        """rates_only: every method keeps its own second setting; it is not searched.

        model: `mini`, or a variant of it, of which only rates are searched.
        methods: which are compared.
        searched: a published result.json, whose merits of learning rates are taken.
        """
        self.searched: Merits | None = None
        if searched is not None:
            self.searched = json.loads(searched.read_text())["search"]
        self.work, self.engine, self.seeds = work, LocalEngine(workers), list(seeds)
        self.rates_only, self.model, self.rates = rates_only, model, own_rates(model, methods)
        if model != "mini" and not rates_only:
            raise SystemExit(f"second settings are those of mini. Give --rates-only for {model}.")
        if not {"dti", "ti"} <= set(methods):
            raise SystemExit("others are compared with dti and ti. Give both to --methods.")
        self.asked: dict[str, Cell] = {}  # the cells of every stage that ran, by address

    def tuning(self, methods: list[Any]) -> Plan:
        return self._plan("search", concepts("tuning", 4), methods, [0], EVALUATE)

    def run(self, plan: Plan) -> Plan:
        """Compute what is missing of a plan."""
        self.asked |= {cell.key: cell for cell in plan.cells}
        started = time.monotonic()

        def listen(outcome: Outcome | None, ended: int, total: int) -> None:
            if outcome is None:
                return
            minutes = (time.monotonic() - started) / 60
            print(
                f"{plan.name}: {ended}/{total} {outcome.cell.label} {outcome.error or ''} "
                f"{minutes:.0f} min",
                flush=True,
            )

        failed = [
            state
            for state in run_sweep(plan, self.work, self.engine, progress=listen)
            if state.state == "failed"
        ]
        if failed:
            raise SystemExit(
                f"{len(failed)} cells failed, {failed[0].label} first: {failed[0].error}"
            )
        return plan

    def merits(self, methods: list[Any]) -> dict[str, float]:
        """Return the merit of methods on the tuning concepts, by label."""
        return merits(read_finished(self.run(self.tuning(methods)), self.work).images)

    def search(self) -> Merits:
        """Return the merit of every learning rate tried, by method."""
        if self.searched is not None:
            return self.searched
        tried = {
            name: [rate * multiple for multiple in MULTIPLES] for name, rate in self.rates.items()
        }
        asked = [
            {"name": name, "label": f"{name} {rate:g}", "learning_rate": rate}
            for name in tried
            for rate in tried[name]
        ]
        found = self.merits(asked)
        return {
            name: {f"{rate:g}": found[f"{name} {rate:g}"] for rate in rates}
            for name, rates in tried.items()
        }

    def second(self) -> Merits:
        """Return the merit of every value of a method's second setting, at its best rate."""
        rates = self.search()
        values = {name: values for name, values in second_values().items() if name in rates}
        asked = [
            {
                "name": name,
                "label": f"{name} {value}",
                "learning_rate": float(best(rates[name])),
                setting: value,
            }
            for name, (setting, tried) in values.items()
            for value in tried
        ]
        found = self.merits(asked)
        return {
            name: {str(value): found[f"{name} {value}"] for value in tried}
            for name, (_, tried) in values.items()
        }

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Every method at its best."""
        found: dict[str, dict[str, Any]] = {
            name: {"name": name, "learning_rate": float(best(merit))}
            for name, merit in self.search().items()
        }
        if self.rates_only:
            return found
        seconds, values = self.second(), second_values()
        for name, method in found.items():
            setting, tried = values[name]
            method[setting] = next(value for value in tried if str(value) == best(seconds[name]))
        return found

    def edges(self) -> dict[str, list[str]]:
        """Return the settings whose best value is the lowest or highest that was tried."""
        found = {
            name: ["learning_rate"] if outermost(merit) else []
            for name, merit in self.search().items()
        }
        if not self.rates_only:
            seconds, values = self.second(), second_values()
            for name, settings in found.items():
                settings += [values[name][0]] if outermost(seconds[name]) else []
        return found

    def bakeoff(self) -> Plan:
        asked: dict[str, dict[str, Any]] = {
            name: {**setting, "baselines": name == "ti"} for name, setting in self.settings.items()
        }
        if self.model == "mini":  # presets are tuned for it
            asked |= {AS_PUBLISHED: PUBLISHED}
            asked |= {name: {"name": name} for name in PRESETS if not self._is_best(name)}
        return self.run(self._test("bakeoff", asked))

    def speed(self) -> Plan:
        return self.run(
            self._plan(
                "speed",
                concepts("test", 6),
                list(self.settings.values()),
                self.seeds[:1],
                EVALUATE | AT_CHECKPOINTS,
            )
        )

    def quick(self) -> dict[str, TimeToQuality]:
        """Return what changes of DTI need on the tuning concepts, by label."""
        sweep = self._collected(self._quick("quick", "tuning", list(self._changes())))
        return {row.label: row for row in time_to_quality(sweep.courses, sweep.costs)}

    def quicker(self) -> Plan:
        """Test the quickest changes beside TI and DTI."""
        found = self.quick()
        ranked = sorted(self._changes(), key=lambda label: found[label].updates.mean)
        return self._quick("quicker", "test", ranked[:FINALISTS])

    def _is_best(self, preset: str) -> bool:
        """Return whether the search ended at the preset's settings, so that both are one method."""
        tuned = decide(METHODS[preset], MethodConfig(preset), DEFAULTS)
        found = decide(METHODS["dti"], MethodConfig(**self.settings["dti"]), DEFAULTS)
        return replace(tuned, method=found.method) == found

    def _changes(self) -> dict[str, dict[str, Any]]:
        dti = self.settings["dti"]
        changed = {
            f"dti, {name}": dti | change
            for name, change in quicker_changes(dti["learning_rate"]).items()
        }
        # The times of a batch are a setting of the run and not of the method.
        return changed | {f"{name}{STRATIFIED}": changed.get(name, dti) for name in SPREAD}

    def _quick(self, name: str, split: str, labels: list[str]) -> Plan:
        known = {label: self.settings[label] for label in ("ti", "dti")} | self._changes()
        groups, asked = concepts(split, 6 if split == "test" else 4), EVALUATE | AT_CHECKPOINTS
        cells: list[Cell] = []
        for stratified in (False, True):
            methods = {
                label: known[label]
                for label in ("ti", "dti", *labels)
                if label.endswith(STRATIFIED) == stratified
            }
            if methods:
                train = TRAIN | ({"stratified": True} if stratified else {})
                plan = self._plan(name, groups, labelled(methods), self.seeds[:1], asked, train)
                cells += plan.cells
        return self.run(replace(plan, cells=tuple(cells)))

    def _collected(self, plan: Plan) -> Sweep:
        return collect(read_finished(plan, self.work))

    def norms(self) -> Plan:
        methods = [
            setting
            for name, setting in self.settings.items()
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
        """Test the best changes beyond the paper beside the tuned and the published DTI."""
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
        seeds = [len(self.seeds) + seed for seed in self.seeds]
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
        train: dict[str, Any] = TRAIN,
    ) -> Plan:
        asked = {
            "model": self.model,
            "concepts": groups,
            "methods": list(methods),
            "seeds": seeds,
            "train": train,
            "evaluate": evaluate,
        }
        return plan_of(asked, name)


def publish(bakeoff: Bakeoff, stages: Iterable[str], folder: Path) -> None:
    """Results of these stages, and tables to read."""
    found: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "torch": torch.__version__,
    }
    found["settings"], found["at the edge"] = bakeoff.settings, bakeoff.edges()
    tables = []
    for stage in stages:
        result = getattr(bakeoff, stage)()
        if isinstance(result, dict):
            found[stage] = to_json(result)
            if stage in WRITERS:
                tables += [f"## {stage}", WRITERS[stage](result)]
            continue
        finished = read_finished(result, bakeoff.work)
        sweep = collect(finished)
        save_result(folder / f"{stage}.json", sweep, overwrite=True)
        shown = (scores_table, groups_table, checks_table, courses_table)
        tables += [f"## {stage}", *(write(sweep) for write in shown)]
        if stage in ("speed", "quicker"):
            times = time_to_quality(sweep.courses, sweep.costs)
            found[f"{stage}, time to quality"] = to_json(times)
            tables.append(quality_table(times))
        found[f"{stage}, norm against text"] = norm_against_text(sweep)
        found[f"{stage}, counting"] = by_prompt(finished.images, "count")
        for reference in REFERENCES.get(stage, ()):
            found[f"{stage}, {reference} less"] = (tested := against(finished.images, reference))
            tables.append(against_table(tested, reference))
            pairs = both_less(finished.images, reference)
            found[f"{stage}, both, {reference} less"] = pairs
            tables.append(both_table(pairs, reference))
    found["core hours"] = core_hours(bakeoff.asked.values(), bakeoff.work)
    write_text(folder / "result.json", json.dumps(found, indent=1) + "\n", overwrite=True)
    write_text(folder / "tables.md", "\n".join(tables), overwrite=True)


def core_hours(cells: Iterable[Cell], folder: Path) -> float:
    """Return the hours of all trainings and evaluations on one core.

    Every training and evaluation counts once, at the median of its kind: some ran while the machine
    was busy with other work.
    """
    trainings: dict[int, dict[str, float]] = defaultdict(dict)
    evaluations: dict[tuple[int, Any], list[float]] = defaultdict(list)
    for cell in cells:
        cost, together = load_result(folder / "cells" / cell.key / COST, Cost), len(cell.subjects)
        trainings[together][cell.run_key] = cost.training_seconds
        evaluations[together, cell.evaluation].append(cost.evaluation_seconds)
    kinds = [*(list(seconds.values()) for seconds in trainings.values()), *evaluations.values()]
    return sum(len(seconds) * median(seconds) for seconds in kinds) / 3600


def by_prompt(images: Images, group: str) -> dict[str, dict[str, float]]:
    """Mean text score of every method and prompt of a group."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _, image in images:
        if image.group == group:
            scores[image.method][image.prompt].append(image.text_score)
    return {
        method: {prompt: float(np.mean(texts)) for prompt, texts in by_prompt.items()}
        for method, by_prompt in scores.items()
    }


def against(images: Images, reference: str) -> list[dict[str, Any]]:
    """Return the reference's scores minus those of every other method.

    A row has the mean difference over concepts and the p-value of Wilcoxon's signed-rank test on
    the concepts' differences, corrected by Holm's method for all methods and both scores.
    """
    scores: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for _, image in images:
        scores[image.method, image.subject].append((image.subject_score, image.text_score))
    methods = dict.fromkeys(method for method, _ in scores)
    subjects = sorted({subject for _, subject in scores})
    means = {
        method: np.array([np.mean(scores[method, subject], axis=0) for subject in subjects])
        for method in methods
    }
    others = [method for method in methods if method != reference]
    family = {
        (method, score): (means[reference] - means[method])[:, place].tolist()
        for method, (place, score) in product(others, enumerate(("subject", "text")))
    }
    rows: dict[str, dict[str, Any]] = {
        method: {"method": method, "concepts": len(subjects)} for method in others
    }
    for (method, score), tested in paired_tests(family).items():
        rows[method] |= {
            score: tested.mean,
            f"{score} better on": tested.positive,
            f"{score} p, Holm": tested.corrected,
        }
    return list(rows.values())


def both_less(images: Images, reference: str) -> list[dict[str, Any]]:
    """Return how much oftener both things of a pair are there by the reference than by others.

    Tested as in `against`, over the concepts that the check can decide about.
    """
    there: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for _, image in images:
        if "both" in image.decided:
            there[image.method, image.subject].append(image.decided["both"])
    share = {key: float(np.mean(rights)) for key, rights in there.items()}
    subjects = sorted({subject for method, subject in there if method == reference})
    family = {
        method: [share[reference, name] - share[method, name] for name in subjects]
        for method in dict.fromkeys(method for method, _ in there)
        if method != reference
    }
    return [
        {
            "method": method,
            "concepts": len(subjects),
            "both": tested.mean,
            "both better on": tested.positive,
            "both p, Holm": tested.corrected,
        }
        for method, tested in paired_tests(family).items()
    ]


def both_table(tested: list[dict[str, Any]], reference: str) -> str:
    columns = (
        f"{reference} less",
        "both there",
        f"better on, of {tested[0]['concepts']}",
        "p, Holm",
    )
    return table(columns, [(row["method"], *score_cells(row, "both")) for row in tested])


def scores_table(sweep: Sweep) -> str:
    inflation = mean_inflation(sweep)
    costs = {cost.label: cost.training_seconds for cost in sweep.costs}
    rows = [
        (
            row.method,
            f"{inflation[row.method]:.2f}" if row.method in inflation else "–",
            interval(row.subject),
            interval(row.text),
            row.images,
            f"{costs[row.method]:.1f}" if row.method in costs else "–",
        )
        for row in sweep.summaries
        if row.group == ALL
    ]
    return table(("method", "norm ÷ mean", "subject", "text", "pictures", "s to train"), rows)


def groups_table(sweep: Sweep) -> str:
    groups, by_method = by_group(sweep)
    rows = [
        (method, *(interval(by_name[group].text) for group in groups))
        for method, by_name in by_method
    ]
    return table(("text score", *groups), rows)


def checks_table(sweep: Sweep) -> str:
    """Tabulate how often every check holds, by method, above what true pictures give."""
    checks = list(dict.fromkeys(row.check for row in sweep.checks))
    shares = {(row.method, row.check): interval(row.share) for row in sweep.checks}
    # Pictures of the class word show another thing: they have no ceilings.
    ceilings = {row.check: row.ceiling for row in sweep.checks if row.ceiling is not None}
    rows = [
        (method, *(shares.get((method, check), "–") for check in checks))
        for method in dict.fromkeys(row.method for row in sweep.checks)
    ]
    tops = (f"{ceilings[check]:.3f}" if check in ceilings else "–" for check in checks)
    rows.append(("true pictures", *tops))
    return table(("check holds", *checks), rows)


def courses_table(sweep: Sweep) -> str:
    """Tabulate means over concepts and training seeds, by method and number of updates."""
    points: dict[tuple[str, int], list[tuple[float, float, float]]] = defaultdict(list)
    for point in sweep.courses:
        scores = (point.inflation, point.subject_score, point.text_score)
        points[point.label, point.step].append(scores)
    rows = []
    for (label, step), values in points.items():
        norm, subject, text = np.mean(values, axis=0)
        rows.append((label, step, f"{norm:.2f}", f"{subject:.3f}", f"{text:.3f}"))
    return table(("method", "updates", "norm ÷ mean", "subject", "text"), rows)


def norm_against_text(sweep: Sweep) -> float:
    """Return Spearman's ρ of norm and text score over all runs and checkpoints.

    The mean of its concept is subtracted from every text score.
    """
    by_subject: dict[str, list[float]] = defaultdict(list)
    for point in sweep.courses:
        by_subject[point.subject].append(point.text_score)
    texts = [
        point.text_score - float(np.mean(by_subject[point.subject])) for point in sweep.courses
    ]
    return float(stats.spearmanr([point.inflation for point in sweep.courses], texts).statistic)


def score_cells(row: dict[str, Any], score: str) -> tuple[str, int, str]:
    """Return the difference of a score, the concepts it is better on, and its p-value."""
    return f"{row[score]:+.3f}", row[f"{score} better on"], f"{row[f'{score} p, Holm']:.3f}"


def against_table(tested: list[dict[str, Any]], reference: str) -> str:
    rows = [
        (row["method"], *score_cells(row, "subject"), *score_cells(row, "text")) for row in tested
    ]
    of = tested[0]["concepts"]
    columns = (
        f"{reference} less",
        "subject",
        f"better on, of {of}",
        "p, Holm",
        "text",
        f"better on, of {of}",
        "p, Holm",
    )
    return table(columns, rows)


def quality_table(times: Iterable[TimeToQuality]) -> str:
    """Tabulate what every method needs to be as good as TI is at its end."""
    rows = []
    for row in times:
        ends = ["–" if row.seconds is None else interval(row.seconds, 1)]
        rows.append((row.label, f"{row.reached} of {row.tokens}", interval(row.updates, 0), *ends))
    return table(("method", "as good as TI at its end", "updates", "seconds"), rows)


def search_table(found: Merits) -> str:
    """Tabulate the merit of every learning rate, which is in brackets."""
    columns = ("method", *(f"×{multiple:g}" for multiple in MULTIPLES))
    return table(columns, [(name, *merit_cells(tried)) for name, tried in found.items()])


def second_table(found: Merits) -> str:
    """Tabulate the merit of every value of a second setting, which is in brackets."""
    columns = ("method", "setting", *(f"value {number}" for number in range(1, VALUES + 1)))
    names = {name: setting for name, (setting, _) in second_values().items()}
    rows = [(name, names[name], *merit_cells(tried)) for name, tried in found.items()]
    return table(columns, rows)


def merit_cells(tried: dict[str, float]) -> list[str]:
    return [f"{merit:.3f} ({float(value):.3g})" for value, merit in tried.items()]


WRITERS: dict[str, Callable[[Any], str]] = {
    "search": search_table,
    "second": second_table,
    "quick": lambda found: quality_table(found.values()),
}


def interval(scores: Interval, digits: int = 3) -> str:
    """Format a mean with its 95 % interval, if it has one. digits: decimals."""
    mean = f"{scores.mean:.{digits}f}"
    if scores.low is None or scores.high is None:
        return mean
    return f"{mean} [{scores.low:.{digits}f}, {scores.high:.{digits}f}]"


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [list(columns), ["---"] * len(list(columns)), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def best(merit: dict[str, float]) -> str:
    return max(merit, key=lambda name: merit[name])


def outermost(merit: dict[str, float]) -> bool:
    """Return whether the best is the lowest or the highest value; merits are in its order."""
    values = list(merit)
    return best(merit) in (values[0], values[-1])


def mean_norm() -> float:
    return norm_summary().mean


@cache
def norm_summary() -> NormSummary:
    """Norms of the embedded model's token table."""
    return geometry.summarize_norms(open_encoders("mini")[0].token_table)


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
    parser.add_argument(
        "--rates-only",
        action="store_true",
        help="leave every method's second setting as it is, in a third of the time",
    )
    parser.add_argument("--model", default="mini", help="or a variant, such as mini:gain=64")
    parser.add_argument("--methods", nargs="+", choices=COMPARED, default=list(COMPARED))
    parser.add_argument(
        "--searched", type=Path, help="take the merits of learning rates from this result.json"
    )
    options = parser.parse_args()
    bakeoff = Bakeoff(
        options.work,
        options.workers,
        options.seeds,
        rates_only=options.rates_only,
        model=options.model,
        methods=options.methods,
        searched=options.searched,
    )
    stages = [s for s in options.stages if not (options.rates_only and s == "second")]
    for stage in stages:
        found = getattr(bakeoff, stage)()
        if isinstance(found, dict):
            print(stage, json.dumps(to_json(found), indent=1), flush=True)
    if options.publish:
        publish(bakeoff, stages, options.publish)


if __name__ == "__main__":
    main()
