"""What experiments on the embedded model share: tokens learned in groups, and pictures read.

`groups_of` names the runs that learn concepts together, `paint_prompts` paints and `read` returns
what the scorer sees. `Arms` does all of it for several methods, keeps the pictures and scores them.
Other benchmarks import this file; it has no command.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.files import atomic_path, read_embeddings, to_json, write_text
from dti_geom.files.run_layout import token_folder
from dti_geom.mini.checks import both_right, order_given_presence, presence_right
from dti_geom.mini.concepts import Concept, concept_images, concepts_folder, load_concepts
from dti_geom.mini.domain import BACKGROUND_NAMES, BACKGROUNDS, THING_NAMES
from dti_geom.mini.prompts import ScenePrompt, mini_prompts
from dti_geom.mini.recipe.dataset import as_pixels, as_tensor
from dti_geom.mini.recipe.labels import NONE
from dti_geom.mini.scenes import Item, Scene
from dti_geom.mini.scorer import Scorer
from dti_geom.mini.wording import with_article
from dti_geom.models import open_encoders
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.statistics import bootstrap_test, holm
from dti_geom.training import ConceptConfig, MethodConfig, PreviewConfig, RunConfig, resume, train

TOGETHER = 6  # concepts that share the batches of a run: the time of an update grows more slowly
PAINTED = "<painted>"  # stands for the vector that is painted
AT_ONCE = 32  # pictures


def concepts_of(split: str) -> list[Concept]:
    """Return the shipped concepts of a split, "test" or "tuning", in their order."""
    return [concept for concept in load_concepts(concepts_folder()) if concept.split == split]


# --- Training ---


@dataclass(frozen=True)
class Group:
    """Concepts that a run learns together."""

    folder: Path
    config: RunConfig
    concepts: tuple[Concept, ...]

    def train(self, model: TextToImage | None = None) -> float:
        """Train the run, resume it, or leave it if it is finished; return its seconds."""
        if (self.folder / "config.json").exists():
            return resume(self.folder, model=model).seconds
        return train(self.config, self.folder, model=model).seconds

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return (self.folder / "result.json").exists()

    def vectors(self) -> dict[str, Tensor]:
        """Return the (d,) vector of each concept of a finished run, by its name."""
        vectors = {}
        for concept in self.concepts:
            place = token_folder(self.folder, _token(concept), list(map(_token, self.concepts)))
            (learned,) = read_embeddings(place / "learned_embeds.safetensors").tokens
            vectors[concept.name] = learned.vectors[0]
        return vectors


def groups_of(
    work: Path,
    model_name: str,
    method: MethodConfig,
    concepts: Sequence[Concept],
    seed: int,
    *,
    together: int = TOGETHER,
    steps: int | None = None,
    dtype: str = "bfloat16",
    references: Path | None = None,
) -> list[Group]:
    """Return the runs that learn these concepts, `together` in each.

    A run's folder is named by a digest of its configuration, so another one never resumes it.
    references: folder of NAME/0.png …; None takes the shipped pictures. The digest has their names
    alone: other pictures need another `work`.
    """
    references = references or concepts_folder()
    groups = []
    for first in range(0, len(concepts), together):
        members = tuple(concepts[first : first + together])
        config = RunConfig(
            model=model_name,
            concepts=tuple(
                ConceptConfig(_token(concept), str(references / concept.name), concept.initialiser)
                for concept in members
            ),
            method=method,
            preview=PreviewConfig(every=0),
            steps=steps,
            seed=seed,
            dtype=dtype,
        )
        # The place of this package may change; the names of its concepts do not.
        named = replace(
            config, concepts=tuple(replace(c, images=Path(c.images).name) for c in config.concepts)
        )
        digest = hashlib.sha256(json.dumps(to_json(named)).encode()).hexdigest()[:12]
        name = f"{method.name}-{seed}-{digest}"
        groups.append(Group(work / "runs" / name, config, members))
    return groups


def _token(concept: Concept) -> str:
    return f"<{concept.name}>"


# --- Painting ---


@dataclass(frozen=True)
class Question:
    """A prompt with {} for the thing, and the pair that it describes."""

    prompt: str
    background: str
    other: str
    on_the_left: bool

    def scene(self, thing: str) -> Scene:
        """Return the scene with this thing in the place."""
        items = (Item(thing), Item(self.other))
        return Scene(self.background, *(items if self.on_the_left else items[::-1]), "row")


def questions(concept: Concept, seed: int, count: int = 24) -> list[Question]:
    """Return prompts of pairs: left and right, seen from the thing and from the other thing."""
    rng = np.random.default_rng(seed)
    others = [name for name in THING_NAMES if name not in (concept.item.thing, concept.initialiser)]
    asked = []
    for number in range(count):
        left, from_other = number % 2 == 0, number // 2 % 2 == 1
        other = others[rng.integers(len(others))]
        background = BACKGROUND_NAMES[rng.integers(len(BACKGROUND_NAMES))]
        words = "to the left of" if left != from_other else "to the right of"
        things = (with_article(other), "a {}") if from_other else ("a {}", with_article(other))
        prompt = f"a photo of {things[0]} {words} {things[1]} {BACKGROUNDS[background][0]}"
        asked.append(Question(prompt, background, other, left))
    return asked


def alone(places: Sequence[str] = BACKGROUND_NAMES[:8]) -> list[str]:
    """Return prompts of the thing alone, one on each background."""
    return [f"a photo of a {{}} {BACKGROUNDS[place][0]}" for place in places]


@dataclass(frozen=True)
class Reading:
    """What the scorer sees in a picture."""

    answers: dict[str, str]  # to each of its questions
    likeness: float  # mean cosine with the references, in the scorer's embedding


def read(scorer: Scorer, pixels: Tensor, references: Tensor) -> list[Reading]:
    """Return what the scorer sees in pictures, (n, 3, 64, 64) in [−1, 1].

    Where it sees two things, the likeness is that of the more similar one.
    """
    places = (scorer.embed(pixels) @ references.T).mean(dim=-1).tolist()
    return [
        Reading(answers, first if answers["second"] == NONE else max(first, second))
        for answers, (first, second) in zip(scorer.read(pixels), places, strict=True)
    ]


def paint(model: TextToImage, vector: Tensor, prompts: Sequence[str], *, seed: int) -> Tensor:
    """Return one picture of each prompt: (n, 3, 64, 64) in [−1, 1].

    vector: (d,), in the place of {}. seed: of the first picture's noise; the next take the next
    seeds.
    """
    model.place(PAINTED, [vector[None]])
    return paint_prompts(model, [prompt.replace("{}", PAINTED) for prompt in prompts], seed)


def paint_prompts(model: TextToImage, prompts: Sequence[str], seed: int) -> Tensor:
    """Return one picture of each prompt as it is: (n, 3, 64, 64) in [−1, 1]."""
    parts = []
    for first in range(0, len(prompts), AT_ONCE):
        part = list(prompts[first : first + AT_ONCE])
        pictures = model.generate(part, list(range(seed + first, seed + first + len(part))))
        parts.append(as_tensor(np.stack([np.asarray(picture) for picture in pictures])))
    return torch.cat(parts)


def keep_painted(
    path: Path, model: TextToImage, vector: Tensor, prompts: Sequence[str], *, seed: int
) -> None:
    """Paint as `paint` does into a file, unless it is there: so a scorer can read them again."""
    if path.exists():
        return
    pixels = as_pixels(paint(model, vector, prompts, seed=seed))
    with atomic_path(path) as beside, open(beside, "wb") as file:
        np.savez_compressed(file, pixels=pixels)


def load_painted(path: Path) -> Tensor:
    """Return the pictures of `keep_painted`: (n, 3, 64, 64) in [−1, 1]."""
    with np.load(path, allow_pickle=False) as arrays:
        return as_tensor(arrays["pixels"])


def embedded_references(scorer: Scorer, concept: Concept) -> Tensor:
    """Return the scorer's embeddings of a concept's reference pictures: (n, 128), unit norm."""
    pictures = concept_images(concepts_folder(), concept)
    return scorer.embed(as_tensor(np.stack([np.asarray(picture) for picture in pictures])))[:, 0]


# --- Trained and painted variants ---

PAIRS = 16
PLACES = BACKGROUND_NAMES[:8]  # of the thing alone
PICTURE_SEED = 1000
WORD = "word"
SCORES = ("likeness", "alone", "background", "present", "both", "order", "text")


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
        return cls(questions(concept, seed, PAIRS), alone(PLACES), scenes)

    @property
    def prompts(self) -> list[str]:
        """All prompts, {} for what is painted."""
        return [
            *(question.prompt for question in self.pairs),
            *self.alone,
            *(prompt.text for prompt in self.scenes),
        ]

    def scores(self, read: Sequence[Reading], thing: str) -> dict[str, float | None]:
        """Return the mean of each score over these pictures.

        background: that of the thing alone is the asked one. present: the thing is in the pair, on
        either side. order: it is on the asked side, of the pictures that show a side; None where
        none does.
        """
        pairs, alone = read[: len(self.pairs)], read[len(self.pairs) :][: len(self.alone)]
        single = read[len(self.pairs) + len(self.alone) :]
        answers = [reading.answers for reading in pairs]
        asked = [question.scene(thing) for question in self.pairs]
        checked: list[bool] = []
        for prompt, reading in zip(self.scenes, single, strict=True):
            for name, right in prompt.expected.check(reading.answers, thing, None).items():
                checked += [right] if prompt.expected.counts(name) else []
        pictures = list(zip(asked, answers, strict=True))
        sides = [order_given_presence(scene, answer, thing) for scene, answer in pictures]
        known = [side for side in sides if side is not None]
        return {
            "likeness": fmean(reading.likeness for reading in alone),
            "alone": fmean(reading.answers["first"] == thing for reading in alone),
            "background": fmean(
                reading.answers["background"] == place
                for reading, place in zip(alone, PLACES, strict=True)
            ),
            "present": fmean(presence_right(s, a, thing) for s, a in pictures),
            "both": fmean(both_right(s, a) for s, a in pictures),
            "order": fmean(known) if known else None,
            "text": fmean(checked),
        }


class Arms:
    """What is trained and painted on a model, with its tokens and pictures in a folder.

    Beside the arms, the class word is painted.
    """

    def __init__(
        self,
        work: Path,
        name: str,
        methods: Mapping[str, MethodConfig],
        rescaled: Mapping[str, tuple[str, float]] | None = None,
        *,
        steps: int | None = None,
        references: Path | None = None,
    ) -> None:
        """name: of the model. methods: by the name of the arm that they train.

        rescaled: also shown: its name → an arm and the norm, in multiples of the vocabulary's mean.
        steps: updates of a run; None takes the model's own. references: as of `groups_of`.
        """
        self.work, self.name, self.methods = work, name, methods
        self.rescaled, self.steps, self.references = rescaled or {}, steps, references
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
            variant: groups_of(
                self.work,
                self.name,
                method,
                concepts,
                seed,
                steps=self.steps,
                references=self.references,
            )
            for variant, method in self.methods.items()
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
        for variant, (arm, multiple) in self.rescaled.items():
            if arm in learned:
                shown[variant] = {
                    name: multiple * mean * geometry.normalize(vector)
                    for name, vector in learned[arm].items()
                }
        return shown

    def pictures(self, concept: Concept, seed: int, variant: str) -> Path:
        """Return the file of the pictures of a variant."""
        slug = variant.replace(", ", "-").replace(" ", "-")
        folder = self.work / "pictures" / self.name.replace(":", "-")
        return folder / f"{concept.name}-{seed}-{slug}.npz"

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
                    "seed": seed,
                    "concept": concept.name,
                    "variant": variant,
                    "norm / mean": float(geometry.norms(vectors[concept.name])) / mean,
                    "angle": degrees_between(vectors[concept.name], shown[WORD][concept.name]),
                    **Asked.of(concept, thing, seed).scores(readings, thing),
                }


def degrees_between(first: Tensor, second: Tensor) -> float:
    """Return the angle between two vectors, (d,), in degrees."""
    pair = (geometry.normalize(vector.float()) for vector in (first, second))
    return math.degrees(float(geometry.angle(*pair)))


def by_run(
    cells: Sequence[dict[str, Any]], variant: str, score: str
) -> dict[tuple[str, int], float]:
    """Return a score by concept and training seed; left out where it has none."""
    return {
        (cell["concept"], cell["seed"]): cell[score]
        for cell in cells
        if cell["variant"] == variant and cell[score] is not None
    }


def estimate(values: Mapping[tuple[str, int], float], low: float = -1) -> dict[str, Any] | None:
    """Return the mean of `by_run` with its bootstrap interval over concepts and runs, and its p.

    low: end of the scale, whose other end is 1. None without values.
    """
    runs: dict[str, list[list[float]]] = {}
    for (concept, _), value in values.items():
        runs.setdefault(concept, []).append([value])
    if not runs:
        return None
    interval, p = bootstrap_test(list(runs.values()), limits=(low, 1))
    return {**asdict(interval), "p": p}


def row_of(cells: Sequence[dict[str, Any]], variant: str) -> dict[str, Any]:
    """Return medians of norm and angle, and the scores with bootstrap intervals over concepts.

    angle: to the class word, in degrees.
    """
    norms = [cell["norm / mean"] for cell in cells if cell["variant"] == variant]
    angles = [cell["angle"] for cell in cells if cell["variant"] == variant]
    row: dict[str, Any] = {
        "runs": len(norms),
        "norm / mean": median(norms),
        "angle": median(angles),
    }
    for score in SCORES:
        found = estimate(by_run(cells, variant, score), low=-float(score == "likeness"))
        row[score] = found and {name: value for name, value in found.items() if name != "p"}
    return row


def differences(
    cells: Sequence[dict[str, Any]], compared: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Return the difference of each score between two variants, paired over training runs.

    compared: (first, second), for first − second. Those without pictures are left out.
    """
    rows: list[dict[str, Any]] = []
    for first, second in compared:
        row: dict[str, Any] = {"difference": f"{first} − {second}"}
        for score in SCORES:
            ours, theirs = (by_run(cells, variant, score) for variant in (first, second))
            paired = sorted(ours.keys() & theirs)
            row[score] = estimate({run: ours[run] - theirs[run] for run in paired})
        if any(row[score] for score in SCORES):
            rows.append(row)
    return rows


def correct(rows: Sequence[dict[str, Any]]) -> None:
    """Add Holm's p of each score to differences, corrected over all these rows."""
    for score in SCORES:
        tests = [row[score] for row in rows if row[score] and row[score]["p"] is not None]
        for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
            test["p, Holm"] = p


def in_table(row: Mapping[str, Any], *, signed: bool = False) -> str:
    """Return the cells of a Markdown table for every score of a row, with its interval."""
    texts = []
    for score in SCORES:
        found, form = row[score], "+.3f" if signed else ".3f"
        if found is None:
            texts.append("–")
        elif found["low"] is None:
            texts.append(f"{found['mean']:{form}}")
        else:
            low, high = f"{found['low']:{form}}", f"{found['high']:{form}}"
            texts.append(f"{found['mean']:{form}} [{low}, {high}]")
    return " | ".join(texts)


def heading(command: str, concepts: Sequence[Concept], seeds: Sequence[int]) -> dict[str, Any]:
    """Return what a result says of its making. command: the file of the experiment."""
    return {
        "command": f"python benchmarks/{command}",
        "torch": torch.__version__,
        "seeds": list(seeds),
        "concepts": len(concepts),
    }


def summarised(
    command: str,
    cells: Sequence[dict[str, Any]],
    compared: Sequence[tuple[str, str]],
    concepts: Sequence[Concept],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Return scores by variant, and their differences corrected over all rows.

    command: the file of the experiment. cells: as `Arms.cells` yields them. compared: see
    `differences`.
    """
    tested = differences(cells, compared)
    correct(tested)
    return heading(command, concepts, seeds) | {
        "variants": {
            variant: row_of(cells, variant)
            for variant in dict.fromkeys(cell["variant"] for cell in cells)
        },
        "differences": tested,
        "cells": list(cells),
    }


def difference_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a Markdown table of differences, with their intervals."""
    yield "| difference | " + " | ".join(SCORES) + " |"
    yield "|" + "---|" * (1 + len(SCORES))
    for row in rows:
        yield f"| {row['difference']} | {in_table(row, signed=True)} |"


# --- Their commands ---


def options_of(doc: str | None, work: Path, first: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the options that these experiments share.

    doc: of the file. work: default folder. first: stages of its own, before training.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tests = concepts_of("test")
    parser.add_argument("--work", type=Path, default=work)
    parser.add_argument("--stage", choices=(*first, "train", "paint", "summary"), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--concepts",
        type=lambda count: tests[: int(count)],
        default=tests,
        metavar="N",
        help="the first of the test concepts alone",
    )
    parser.add_argument("--steps", type=int, help="updates of a run; default: the model's")
    parser.add_argument("--out", type=Path, default=work / "result.json", help="of the summary")
    return parser


def run_stage(options: argparse.Namespace, arms: Sequence[Arms]) -> None:
    """Train or paint what is missing, seed after seed, and print the core-seconds so far."""
    for seed in options.seeds:
        for model in arms:
            work = model.train if options.stage == "train" else model.paint
            work(options.concepts, seed)
            print(f"{time.process_time():.0f} core-seconds so far", flush=True)


def write_summary(path: Path, found: dict[str, Any]) -> None:
    """Write a summary as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n", overwrite=True)
