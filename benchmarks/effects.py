"""Measure what TI does to a token of the embedded model, and whether the norm is the cause.

For every concept and training seed a token is learned by TI and by DTI. It is painted in pairs
("a <x> to the left of a car") and alone, at the norm it was learned at and at another. So is the
class word:

    word, word at TI's norm, TI, TI at the mean norm, DTI, DTI at TI's norm

The scorer reads who stands where, and how similar the thing is to the reference pictures.

A second question is where ordinary words get their order from. `--positions` paints class words
whose own position was removed from the encoder's input (x₀ = e instead of e + p_i), and words that
carry the position of the pair's other thing.

python benchmarks/effects.py --work build/effects --stage train       # the tokens; resumes
python benchmarks/effects.py --work build/effects                     # all cells; resumes
python benchmarks/effects.py --work build/effects --positions         # words without a position
python benchmarks/effects.py --work build/effects --part 0 --parts 2  # the first of two halves
python benchmarks/effects.py --work build/effects --summary reports/effects/result.json
"""

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import TrainingError
from dti_geom.files import atomic_path, read_embeddings
from dti_geom.files.run_layout import learned_in_run
from dti_geom.mini.checks import both_right, order_right
from dti_geom.mini.concepts import Concept, concept_images, concepts_folder, load_concepts
from dti_geom.mini.domain import BACKGROUND_NAMES, BACKGROUNDS, THING_NAMES
from dti_geom.mini.recipe.dataset import as_tensor
from dti_geom.mini.scenes import Item, Scene
from dti_geom.mini.scorer import Scorer, shipped_scorer
from dti_geom.mini.wording import with_article
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.statistics import Share, paired_test, student_interval
from dti_geom.training import ConceptConfig, MethodConfig, PreviewConfig, RunConfig, resume, train

METHODS = {"ti": MethodConfig("ti"), "dti": MethodConfig("dti")}
TOKENS = "tokens.safetensors"
TOGETHER = 6  # concepts that share the batches of a training run
TOKEN, OTHER_TOKEN = "<x>", "<w>"
PAIRS, ALONE = 24, 8
VARIANTS = ("word", "word at TI's norm", "TI", "TI at the mean norm", "DTI", "DTI at TI's norm")


@dataclass(frozen=True)
class Question:
    """A prompt with {} for the thing, and the scene that it describes."""

    prompt: str
    background: str
    other: str
    on_the_left: bool

    def scene(self, thing: str) -> Scene:
        items = (Item(thing), Item(self.other))
        return Scene(self.background, *(items if self.on_the_left else items[::-1]), "row")


def questions(concept: Concept, seed: int) -> list[Question]:
    """Return PAIRS prompts: left and right, seen from the thing and from the other thing."""
    rng = np.random.default_rng(seed)
    others = [name for name in THING_NAMES if name not in (concept.item.thing, concept.initialiser)]
    asked = []
    for number in range(PAIRS):
        left, from_other = number % 2 == 0, number // 2 % 2 == 1
        other, background = (
            others[rng.integers(len(others))],
            BACKGROUND_NAMES[rng.integers(len(BACKGROUND_NAMES))],
        )
        words = "to the left of" if left != from_other else "to the right of"
        things = (with_article(other), "a {}") if from_other else ("a {}", with_article(other))
        prompt = f"a photo of {things[0]} {words} {things[1]} {BACKGROUNDS[background][0]}"
        asked.append(Question(prompt, background, other, left))
    return asked


# --- Training ---


def runs(seeds: Sequence[int]) -> list[tuple[Path, RunConfig]]:
    """Return the training runs and their folders below the work folder.

    A run learns TOGETHER concepts. The seed varies slowest, so a stop leaves whole seeds.
    """
    concepts = test_concepts()
    groups = [concepts[at : at + TOGETHER] for at in range(0, len(concepts), TOGETHER)]
    return [
        (
            Path("trained") / f"{name}-{group[0].name}-{seed}",
            run_config(group, method=METHODS[name], seed=seed),
        )
        for seed, group, name in product(seeds, groups, METHODS)
    ]


def run_config(concepts: Sequence[Concept], *, method: MethodConfig, seed: int) -> RunConfig:
    """Return a run that learns one token for each of these concepts."""
    learned = tuple(
        ConceptConfig(
            token=f"<{concept.name}>",
            images=concept.name,
            init=concept.initialiser,
        )
        for concept in concepts
    )
    return RunConfig(
        model="mini",
        concepts=learned,
        method=method,
        preview=PreviewConfig(every=0),
        seed=seed,
        dtype="bfloat16",
    )


def train_all(work: Path, asked: Sequence[tuple[Path, RunConfig]]) -> None:
    """Train these runs. A finished run is kept, a stopped one goes on from its checkpoint."""
    model = open_text_to_image("mini", dtype=torch.bfloat16)
    for number, (path, config) in enumerate(asked, 1):
        folder = work / path
        started = (folder / "config.json").is_file()
        result = resume(folder, model=model) if started else train(config, folder, model=model)
        print(
            f"{number}/{len(asked)} {path.name}: {result.seconds_per_step:.3f} s per update",
            flush=True,
        )


def publish_tokens(work: Path, seeds: Sequence[int], folder: Path) -> None:
    """Save the tokens of all runs in one file, as METHOD/CONCEPT/SEED: (d,).

    Raises TrainingError if a run is missing or stopped early.
    """
    vectors = {}
    for path, config in runs(seeds):
        if not (work / path / "result.json").is_file():
            raise TrainingError(
                f"{work / path} holds no finished run. Train it first: --stage train."
            )
        method = path.name.split("-")[0]
        for file, concept in zip(learned_in_run(work / path), config.concepts, strict=True):
            (token,) = read_embeddings(file).tokens
            vectors[f"{method}/{concept.images}/{config.seed}"] = token.vectors[0].contiguous()
    with atomic_path(folder / TOKENS, overwrite=True) as beside:
        save_file(vectors, beside)


def test_concepts() -> list[Concept]:
    return [concept for concept in load_concepts(concepts_folder()) if concept.split == "test"]


def learned(
    work: Path, concept: Concept, method: str, seed: int, model: TextToImage
) -> tuple[Tensor, float]:
    """Return the (d,) token of a run and its seconds per step. Trains or resumes it if needed."""
    folder = work / "runs" / f"{concept.name}-{method}-{seed}"
    if (folder / "config.json").exists():
        result = resume(folder, model=model)
    else:
        images = str(concepts_folder() / concept.name)
        config = RunConfig(
            "mini",
            (ConceptConfig(TOKEN, images, concept.initialiser),),
            MethodConfig(method),
            preview=PreviewConfig(every=0),
            seed=seed,
            dtype="float32",
        )
        result = train(config, folder, model=model)
    (token,) = read_embeddings(folder / "learned_embeds.safetensors").tokens
    return token.vectors[0], result.seconds_per_step


def measure(
    model: TextToImage,
    scorer: Scorer,
    concept: Concept,
    vector: Tensor,
    thing: str,
    asked: list[Question],
) -> dict[str, Any]:
    """Paint prompts with a vector; return which pictures are right, and their similarity.

    Similarity is the mean cosine with the reference pictures, in the scorer's embedding.
    """
    model.place(OTHER_TOKEN, [vector[None]])
    paint = [question.prompt.replace("{}", OTHER_TOKEN) for question in asked]
    read = scorer.read(_pictures(model, paint, 1000))
    scenes = [question.scene(thing) for question in asked]
    backgrounds = [
        BACKGROUNDS[BACKGROUND_NAMES[i % len(BACKGROUND_NAMES)]][0] for i in range(ALONE)
    ]
    alone = _pictures(model, [f"a photo of a {OTHER_TOKEN} {place}" for place in backgrounds], 2000)
    references = scorer.embed(
        as_tensor(np.stack([np.asarray(p) for p in concept_images(concepts_folder(), concept)]))
    )
    return {
        "norm": float(geometry.norms(vector)),
        "order": [order_right(scene, answers) for scene, answers in zip(scenes, read, strict=True)],
        "both": [both_right(scene, answers) for scene, answers in zip(scenes, read, strict=True)],
        "object": [answers["first"] == thing for answers in scorer.read(alone)],
        "similarity": float((scorer.embed(alone) @ references.T).mean()),
    }


def _pictures(model: TextToImage, prompts: list[str], seed: int) -> Tensor:
    pictures = model.generate(prompts, list(range(seed, seed + len(prompts))))
    return as_tensor(np.stack([np.asarray(picture) for picture in pictures]))


def cell(work: Path, model: TextToImage, scorer: Scorer, concept: Concept, seed: int) -> None:
    """Measure a concept and a training seed, and save the result in its own file."""
    path = work / "cells" / f"{concept.name}-{seed}.json"
    if path.exists():
        return
    ti, ti_seconds = learned(work, concept, "ti", seed, model)
    dti, dti_seconds = learned(work, concept, "dti", seed, model)
    tower = model.towers[0]
    (row,) = tower.vocabulary.rows(concept.initialiser)
    word, mean = tower.token_table[row], geometry.summarize_norms(tower.token_table).mean
    inflated = float(geometry.norms(ti))
    vectors = (
        (word, concept.initialiser),
        (inflated * geometry.normalize(word), concept.initialiser),
        (ti, concept.item.thing),
        (mean * geometry.normalize(ti), concept.item.thing),
        (dti, concept.item.thing),
        (inflated * geometry.normalize(dti), concept.item.thing),
    )
    asked = questions(concept, seed)
    found = {
        name: measure(model, scorer, concept, vector, thing, asked)
        for name, (vector, thing) in zip(VARIANTS, vectors, strict=True)
    }
    angle = float(geometry.angle(geometry.normalize(ti), geometry.normalize(dti)))
    result = {
        "concept": concept.name,
        "seed": seed,
        "mean_norm": mean,
        "angle_ti_dti": angle,
        "variants": found,
    }
    result["seconds_per_step"] = {"ti": ti_seconds, "dti": dti_seconds}
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(result, indent=1) + "\n")
    print(
        concept.name,
        seed,
        {name: f"{sum(x['order'])}/{PAIRS}" for name, x in found.items()},
        flush=True,
    )


def positions(work: Path, model: TextToImage, scorer: Scorer, concepts: list[Concept]) -> None:
    """Measure order and presence for class words whose position is moved.

    Words keep their own position, have none, or carry that of the other thing.
    """
    tower = model.towers[0]
    table = model.pipeline.text_encoder.get_submodule("embeddings.position_embedding").weight
    found: dict[str, dict[str, list[bool]]] = {}
    for concept in concepts:
        (row,) = tower.vocabulary.rows(concept.initialiser)
        asked = questions(concept, 0)
        prompts = [question.prompt.replace("{}", concept.initialiser) for question in asked]
        ids = [tower.tokenizer(prompt).input_ids for prompt in prompts]
        others = [tower.vocabulary.rows(question.other)[0] for question in asked]
        own = [table[prompt_ids.index(row)] for prompt_ids in ids]
        theirs = [
            table[prompt_ids.index(other)] for prompt_ids, other in zip(ids, others, strict=True)
        ]
        moved = {
            "own position": [torch.zeros_like(p) for p in own],
            "no position": [-p for p in own],
            "the other thing's position": [q - p for p, q in zip(own, theirs, strict=True)],
        }
        for name, shifts in moved.items():
            moved_prompts = []
            for number, (question, shift) in enumerate(zip(asked, shifts, strict=True)):
                token = f"<p-{number}>"
                model.place(token, [(tower.token_table[row] + shift)[None]])
                moved_prompts.append(question.prompt.replace("{}", token))
            read = scorer.read(_pictures(model, moved_prompts, 1000))
            scenes = [question.scene(concept.initialiser) for question in asked]
            rows = found.setdefault(name, {"order": [], "both": []})
            rows["order"] += [
                order_right(scene, answers) for scene, answers in zip(scenes, read, strict=True)
            ]
            rows["both"] += [
                both_right(scene, answers) for scene, answers in zip(scenes, read, strict=True)
            ]
    with atomic_path(work / "positions.json", overwrite=True) as beside:
        beside.write_text(json.dumps(found) + "\n")
    for name, rows in found.items():
        print(name, {check: str(Share.count(hits)) for check, hits in rows.items()}, flush=True)


def difference(
    cells: list[dict[str, Any]], first: str, second: str, check: str
) -> dict[str, float | None]:
    """Return the share right under `first` minus that under `second`.

    Both saw the same prompts and seeds. Concepts are the sample: the result has the mean over
    concepts, Student's 95 % interval, and the p-value of Wilcoxon's signed-rank test.
    """
    by_concept: dict[str, list[float]] = {}
    for cell in cells:
        right = [float(np.mean(cell["variants"][name][check])) for name in (first, second)]
        by_concept.setdefault(cell["concept"], []).append(right[0] - right[1])
    means = [float(np.mean(differences)) for differences in by_concept.values()]
    interval = student_interval(means)
    return {
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "p": paired_test(means).p,
    }


def summary(work: Path) -> dict[str, Any]:
    """Summarise all cells: every share with its 95 % interval.

    The intervals take pictures as independent, which pictures of the same run are not.
    """
    cells = [json.loads(path.read_text()) for path in sorted((work / "cells").glob("*.json"))]
    rows = {}
    for name in VARIANTS:
        variants = [cell["variants"][name] for cell in cells]
        inflations = [x["norm"] / c["mean_norm"] for x, c in zip(variants, cells, strict=True)]
        row: dict[str, Any] = {
            "norm over mean": float(np.median(inflations)),
            "similarity": float(np.mean([x["similarity"] for x in variants])),
        }
        for check in ("order", "both", "object"):
            row[check] = asdict(Share.count(chain.from_iterable(x[check] for x in variants)))
        row["runs with order below 3/4"] = sum(sum(x["order"]) < 0.75 * PAIRS for x in variants)
        rows[name] = row
    paired = {
        f"{a} − {b}": {check: difference(cells, a, b, check) for check in ("order", "both")}
        for a, b in (("DTI", "TI"), ("TI at the mean norm", "TI"), ("DTI", "DTI at TI's norm"))
    }
    shown = (
        json.loads((work / "positions.json").read_text())
        if (work / "positions.json").exists()
        else {}
    )
    return {
        "positions": {
            n: {c: asdict(Share.count(hits)) for c, hits in r.items()} for n, r in shown.items()
        },
        "paired": paired,
        "command": "python benchmarks/effects.py",
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "cells": len(cells),
        "variants": rows,
        "runs": [
            {name: cell[name] for name in ("concept", "seed", "angle_ti_dti")}
            | {
                name: {
                    "norm": x["norm"],
                    "order": sum(x["order"]),
                    "both": sum(x["both"]),
                    "similarity": x["similarity"],
                }
                for name, x in cell["variants"].items()
            }
            for cell in cells
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/effects"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument(
        "--positions",
        action="store_true",
        help="words without their own position, and nothing else",
    )
    parser.add_argument(
        "--summary", type=Path, help="write the summary of what is there, and measure nothing"
    )
    parser.add_argument("--stage", choices=["train"], help="train the tokens, and nothing else")
    parser.add_argument("--publish", type=Path, help="also save the trained tokens there")
    options = parser.parse_args()
    if options.stage == "train":
        train_all(options.work, runs(options.seeds)[options.part :: options.parts])
        if options.publish:
            publish_tokens(options.work, options.seeds, options.publish)
        return
    if options.summary:
        with atomic_path(options.summary, overwrite=True) as beside:
            beside.write_text(json.dumps(summary(options.work), indent=1) + "\n")
        return
    scorer = shipped_scorer()
    model = open_text_to_image("mini", dtype=torch.float32)
    concepts = [concept for concept in load_concepts(concepts_folder()) if concept.split == "test"]
    if options.positions:
        positions(options.work, model, scorer, concepts)
        return
    cells = [(concept, seed) for seed, concept in product(options.seeds, concepts)]
    for concept, seed in cells[options.part :: options.parts]:
        cell(options.work, model, scorer, concept, seed)


if __name__ == "__main__":
    main()
