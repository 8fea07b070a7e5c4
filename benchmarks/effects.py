"""Measure which effect of an inflated token's magnitude spoils a picture, on the embedded model.

A longer token hides its position p from the encoder's first normalisation (Effect I), and is long
beside all that the encoder's blocks add to it (Effect II). Four inputs of the encoder, with k the
inflation of the concept's token by TI, set the two apart:

    neither  e + p        I alone  e + p/k        II alone  k·e + k·p        both  k·e + p

They are painted for each concept and training seed, for three tokens: the class word, the direction
that TI learned and that of DTI, the last two at the vocabulary's mean norm. So "TI, both" is TI's
token as it was trained, "TI, neither" is TI rescaled, and "DTI, neither" is DTI's as it was
trained. All cells see the same prompts and the same noise. Class words learn nothing, so they are
painted for the first seed alone. Two more rows ask what a word's own position is for: "word, no
position" has none, "word, other's position" has that of the pair's other thing.

Three stages; every one resumes:

train    tokens by TI and DTI, six concepts in a run
paint    pictures of every cell; needs no scorer
score    what the scorer reads in them, and the summary

python benchmarks/effects.py --work build/effects                        # all stages
python benchmarks/effects.py --work build/effects --stage paint --part 0 --parts 2
python benchmarks/effects.py --work build/effects --stage score --publish reports/effects
"""

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments import (
    Group,
    Question,
    alone,
    concepts_of,
    embedded_references,
    groups_of,
    paint_prompts,
    questions,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dti_geom import geometry
from dti_geom.errors import DtiGeomError
from dti_geom.files import atomic_path
from dti_geom.geometry.effects import CELLS, cell_rows
from dti_geom.mini.checks import both_right, order_given_presence, presence_right
from dti_geom.mini.concepts import Concept, concept_images, concepts_folder
from dti_geom.mini.domain import BACKGROUND_NAMES
from dti_geom.mini.recipe.dataset import as_pixels, as_tensor, save_grid
from dti_geom.mini.scorer import Scorer, shipped_scorer
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.statistics import bootstrap_interval, bootstrap_test, holm
from dti_geom.training import MethodConfig

STAGES = ("train", "paint", "score")
METHODS = {"ti": MethodConfig("ti"), "dti": MethodConfig("dti")}
KINDS = ("word", "TI", "DTI")
MOVED = ("word, no position", "word, other's position")
TOKENS = "tokens.safetensors"
PAIRS, ALONE = 16, 4  # pictures of each cell: in pairs, and of the thing alone
PAIR_SEED, ALONE_SEED = 1000, 2000  # of the first picture's noise
CHECKS = ("presence", "both", "order")  # of pairs
TESTED = (*CHECKS, "likeness")
SHOWN = (*CHECKS, "object", "likeness")
PREVIEWED = ("round-frog", "yellow-rocket", "striped-apple", "robot")


def variant(kind: str, cell: str) -> str:
    return f"{kind}, {cell}"


VARIANTS = (*(variant(kind, cell) for kind, cell in product(KINDS, CELLS)), *MOVED)


# --- Training ---


def groups(work: Path, seeds: Sequence[int]) -> list[tuple[str, Group]]:
    """Return the methods and training runs.

    The seed varies slowest, so a stop leaves whole seeds.
    """
    found = []
    for seed, (name, method) in product(seeds, METHODS.items()):
        for group in groups_of(work, "mini", method, concepts_of("test"), seed):
            folder = work / "trained" / f"{name}-{group.concepts[0].name}-{seed}"
            found.append((name, replace(group, folder=folder)))
    return found


def train(work: Path, seeds: Sequence[int]) -> None:
    model = open_text_to_image("mini", dtype=torch.bfloat16)
    for _, group in groups(work, seeds):
        print(f"{group.folder.name}: {group.train(model):.0f} s", flush=True)


def learned(work: Path, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Return the tokens of all runs by METHOD/CONCEPT/SEED, (d,). Raises DtiGeomError."""
    vectors = {}
    for name, group in groups(work, seeds):
        if not (group.folder / "result.json").is_file():
            raise DtiGeomError(
                f"{group.folder} holds no finished run. Train it first: --stage train."
            )
        for concept, vector in group.vectors().items():
            vectors[f"{name}/{concept}/{group.config.seed}"] = vector.contiguous()
    return vectors


def publish_tokens(work: Path, seeds: Sequence[int], folder: Path) -> None:
    """Save the tokens of all runs in one file, so that they can be measured without training."""
    with atomic_path(folder / TOKENS, overwrite=True) as beside:
        save_file(learned(work, seeds), beside)


# --- Painting ---


@dataclass(frozen=True)
class Cell:
    """A concept and a training seed."""

    concept: Concept
    seed: int

    @property
    def name(self) -> str:
        return f"{self.concept.name}-{self.seed}"

    @property
    def questions(self) -> list[Question]:
        return questions(self.concept, self.seed, PAIRS)

    @property
    def prompts(self) -> list[str]:
        """Prompts of pairs, then of the thing alone, with {} for the thing."""
        return [question.prompt for question in self.questions] + alone(BACKGROUND_NAMES[:ALONE])


def cells(seeds: Sequence[int]) -> list[Cell]:
    return [Cell(concept, seed) for seed, concept in product(seeds, concepts_of("test"))]


def open_painter() -> TextToImage:
    """Return the embedded model with its text encoder in float32 and its denoiser in bfloat16.

    In bfloat16 the encoder would round p/10 away beside the token it is added to.
    """
    model = open_text_to_image("mini", dtype=torch.float32)
    unet: nn.Module = model.pipeline.unet
    nn.Module.to(unet, torch.bfloat16)  # diffusers' own warns of parts that this one lacks

    def narrow(_unet: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return _as(torch.bfloat16, args), {n: _as(torch.bfloat16, v) for n, v in kwargs.items()}

    def widen(_unet: nn.Module, _args: Any, output: Any) -> Any:
        return _as(torch.float32, output)

    unet.register_forward_pre_hook(narrow, with_kwargs=True)
    unet.register_forward_hook(widen)
    return model


def _as(dtype: torch.dtype, value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_as(dtype, item) for item in value)
    return value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value


def rows(model: TextToImage, cell: Cell, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the token rows of every variant: (prompts, d), one for each of the cell's prompts.

    tokens: vectors as `learned` returns them.
    """
    tower = model.towers[0]
    table = tower.token_table.float()
    (word,) = tower.vocabulary.rows(cell.concept.initialiser)
    mean = geometry.summarize_norms(table).mean
    ti, dti = (tokens[f"{name}/{cell.concept.name}/{cell.seed}"] for name in METHODS)
    scale = float(geometry.norms(ti)) / mean
    own, others = places(model, cell)
    at_mean = {"TI": mean * geometry.normalize(ti), "DTI": mean * geometry.normalize(dti)}
    found = {}
    if cell.seed == 0:
        at_mean = {"word": table[word], **at_mean}
        found = dict(zip(MOVED, (table[word] - own, table[word] + others - own), strict=True))
    for kind, vector in at_mean.items():
        for name, moved in cell_rows(vector, own, scale).items():
            found[variant(kind, name)] = moved
    return {name: found[name] for name in VARIANTS if name in found}


def places(model: TextToImage, cell: Cell) -> tuple[Tensor, Tensor]:
    """Return the positions of the thing and of the other thing in each prompt, (prompts, d) each.

    Alone, the thing has no other; there both are its own.
    """
    tower = model.towers[0]
    table = model.pipeline.text_encoder.get_submodule("embeddings.position_embedding").weight
    (word,) = tower.vocabulary.rows(cell.concept.initialiser)
    own, theirs = [], []
    others: list[str | None] = [question.other for question in cell.questions]
    others += [None] * ALONE
    for prompt, other in zip(cell.prompts, others, strict=True):
        ids = tower.tokenizer(prompt.replace("{}", cell.concept.initialiser)).input_ids
        own.append(ids.index(word))
        theirs.append(own[-1] if other is None else ids.index(tower.vocabulary.rows(other)[0]))
    return table[own].detach().float(), table[theirs].detach().float()


def paint_cell(model: TextToImage, cell: Cell, tokens: dict[str, Tensor], path: Path) -> None:
    """Paint every variant of a cell and save the pictures: (prompts, 64, 64, 3) bytes each."""
    pictures = {}
    for name, vectors in rows(model, cell, tokens).items():
        prompts = []
        for number, (prompt, vector) in enumerate(zip(cell.prompts, vectors, strict=True)):
            # A token of its own for each prompt: the row depends on where it stands.
            token = f"<cell-{number}>"
            model.place(token, [vector[None]])
            prompts.append(prompt.replace("{}", token))
        painted = [paint_prompts(model, prompts[:PAIRS], PAIR_SEED)]
        painted.append(paint_prompts(model, prompts[PAIRS:], ALONE_SEED))
        pictures[name] = torch.from_numpy(as_pixels(torch.cat(painted))).contiguous()
    with atomic_path(path) as beside:
        save_file(pictures, beside)


def paint_all(work: Path, seeds: Sequence[int], part: int, parts: int) -> None:
    """Paint the cells of a part that are not painted yet."""
    model, tokens = open_painter(), learned(work, seeds)
    for cell in cells(seeds)[part::parts]:
        path = pictures_of(work, cell)
        if not path.exists():
            paint_cell(model, cell, tokens, path)
            print(f"painted {cell.name}", flush=True)


def pictures_of(work: Path, cell: Cell) -> Path:
    return work / "pictures" / f"{cell.name}.safetensors"


# --- Scoring ---


Answers = dict[str, dict[str, list[Any]]]  # variant → check → one for each picture


def score_cell(scorer: Scorer, cell: Cell, path: Path) -> Answers:
    """Return what the scorer reads in every variant's pictures.

    presence, both and order have a value for each pair: the thing is there, both things are, and
    the thing is on its side (None: there is no side to see). object and likeness have one for each
    picture of the thing alone: it is there, and its mean cosine with the references.
    """
    references = embedded_references(scorer, cell.concept)
    found: Answers = {}
    for name, pixels in load_file(path).items():
        thing = cell.concept.initialiser if name.startswith("word") else cell.concept.item.thing
        pictures = as_tensor(pixels.numpy())
        read = scorer.read(pictures)
        scenes = [question.scene(thing) for question in cell.questions]
        pairs = list(zip(scenes, read[:PAIRS], strict=True))
        found[name] = {
            "presence": [presence_right(scene, answers, thing) for scene, answers in pairs],
            "both": [both_right(scene, answers) for scene, answers in pairs],
            "order": [order_given_presence(scene, answers, thing) for scene, answers in pairs],
            "object": [answers["first"] == thing for answers in read[PAIRS:]],
            "likeness": (scorer.embed(pictures[PAIRS:])[:, 0] @ references.T).mean(dim=1).tolist(),
        }
    return found


# A contrast is a weighted sum of variants.
Contrast = dict[str, float]


def contrasts() -> dict[str, Contrast]:
    """Return what is tested: both effects and their interaction, and TI against DTI.

    The effect of I is its mean over II present and absent, and the other way round.
    """
    found: dict[str, Contrast] = {}
    for kind in KINDS:
        neither, one, two, both = (variant(kind, cell) for cell in CELLS)
        found |= {
            f"{kind}: Effect I": {neither: -0.5, one: 0.5, two: -0.5, both: 0.5},
            f"{kind}: Effect II": {neither: -0.5, one: -0.5, two: 0.5, both: 0.5},
            f"{kind}: interaction": {neither: 1.0, one: -1.0, two: -1.0, both: 1.0},
        }
    return found | {
        "DTI − TI, as trained": {"DTI, neither": 1.0, "TI, both": -1.0},
        "TI rescaled − TI": {"TI, neither": 1.0, "TI, both": -1.0},
    }


def differences(
    scored: dict[Cell, Answers], contrast: Contrast, check: str
) -> list[list[list[float]]]:
    """Return a contrast of a check, by concept and training seed: a value for each pair.

    A pair counts where every variant of the contrast was painted and has a value. A training seed
    without such a pair is left out, and a concept without such a seed.
    """
    by_concept: dict[str, list[list[float]]] = {}
    for cell, found in scored.items():
        if not contrast.keys() <= found.keys():
            continue
        columns = [found[name][check] for name in contrast]
        values = [
            float(np.dot(list(contrast.values()), np.array(pair, dtype=float)))
            for pair in zip(*columns, strict=True)
            if None not in pair
        ]
        if values:
            by_concept.setdefault(cell.concept.name, []).append(values)
    return list(by_concept.values())


def tested(scored: dict[Cell, Answers]) -> dict[str, Any]:
    """Test every contrast of every check: one family, corrected by Holm's method.

    Intervals and p-values are of the same bootstrap over concepts, training seeds and pictures.
    """
    names = list(product(contrasts().items(), TESTED))
    tests = [bootstrap_test(differences(scored, contrast, check)) for (_, contrast), check in names]
    corrected = holm([1.0 if p is None else p for _, p in tests])
    result: dict[str, Any] = {}
    for ((name, _), check), (interval, _), p in zip(names, tests, corrected, strict=True):
        result.setdefault(name, {})[check] = asdict(interval) | {"p, Holm": p}
    return result


def shares(scored: dict[Cell, Answers]) -> dict[str, Any]:
    """Return every variant's mean of each check, with its interval over concepts and seeds."""
    result = {}
    for name in VARIANTS:
        values = {check: differences(scored, {name: 1.0}, check) for check in SHOWN}
        result[name] = {
            check: asdict(bootstrap_interval(found, limits=(-float(check == "likeness"), 1)))
            for check, found in values.items()
            if found
        }
    return result


def score(work: Path, seeds: Sequence[int], publish: Path | None) -> dict[str, Any]:
    """Score what is painted, print the tables, and write the result where asked."""
    scorer = shipped_scorer()
    scored: dict[Cell, Answers] = {}
    for cell in cells(seeds):
        path = pictures_of(work, cell)
        if not path.exists():
            print(f"{cell.name} is not painted, and left out", flush=True)
            continue
        scored[cell] = score_cell(scorer, cell, path)
    if not scored:
        raise DtiGeomError(f"{work} holds no pictures. Paint them first: --stage paint.")
    result = {
        "command": "python benchmarks/effects.py",
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "cells": len(scored),
        "pairs": PAIRS,
        "alone": ALONE,
        "inflation": inflations(work, seeds),
        "variants": shares(scored),
        "contrasts": tested(scored),
        "pictures": {cell.name: written(found) for cell, found in scored.items()},
    }
    print(tables(result))
    if publish:
        with atomic_path(publish / "result.json", overwrite=True) as beside:
            beside.write_text(json.dumps(result, indent=1) + "\n")
        publish_tokens(work, seeds, publish)
        preview(work, publish / "preview.png")
    return result


def preview(work: Path, path: Path) -> None:
    """Write four concepts, a row each: two references, a pair and one alone by TI, and by DTI."""
    rows = []
    for cell in cells([0]):
        if cell.concept.name in PREVIEWED:
            references = [
                np.asarray(picture) for picture in concept_images(concepts_folder(), cell.concept)
            ]
            painted = load_file(pictures_of(work, cell))
            rows.append(as_tensor(np.stack(references[:2])))
            rows += [
                as_tensor(painted[name][[1, PAIRS + 1]].numpy())
                for name in ("TI, both", "DTI, neither")
            ]
    save_grid(torch.cat(rows), 6, path)


def inflations(work: Path, seeds: Sequence[int]) -> dict[str, float]:
    """Return norm ÷ mean norm of each token by TI."""
    table = open_text_to_image("mini", dtype=torch.float32).towers[0].token_table
    mean = geometry.summarize_norms(table).mean
    return {
        name.removeprefix("ti/"): float(geometry.norms(vector)) / mean
        for name, vector in learned(work, seeds).items()
        if name.startswith("ti/")
    }


def written(found: Answers) -> dict[str, Any]:
    """Return a cell's answers as short text: 1 yes, 0 no, - nothing to see."""
    letter = {True: "1", False: "0", None: "-"}
    return {
        name: {
            key: [round(value, 4) for value in values]
            if key == "likeness"
            else "".join(letter[hit] for hit in values)
            for key, values in checks.items()
        }
        for name, checks in found.items()
    }


def tables(result: dict[str, Any]) -> str:
    """Return the tables of the report, in Markdown."""
    lines = [
        f"| shown | {' | '.join(SHOWN)} |",
        f"|---|{'---|' * len(SHOWN)}",
    ]
    for name, row in result["variants"].items():
        lines.append(f"| {name} | {' | '.join(_interval(row.get(check)) for check in SHOWN)} |")
    lines += ["", f"| contrast | {' | '.join(TESTED)} |", f"|---|{'---|' * len(TESTED)}"]
    for name, row in result["contrasts"].items():
        tests = [f"{_interval(row[check])}, p = {row[check]['p, Holm']:.3f}" for check in TESTED]
        lines.append(f"| {name} | {' | '.join(tests)} |")
    return "\n".join(lines)


def _interval(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "–"
    if figures["low"] is None:
        return f"{figures['mean']:.3f}"
    return f"{figures['mean']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/effects"))
    parser.add_argument("--stage", choices=STAGES, help="this stage alone; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training")
    parser.add_argument("--part", type=int, default=0, help="of the painting, from 0")
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--publish", type=Path, help="also write result.json and tokens there")
    options = parser.parse_args()
    stages = (options.stage,) if options.stage else STAGES
    if "train" in stages:
        train(options.work, options.seeds)
    if "paint" in stages:
        paint_all(options.work, options.seeds, options.part, options.parts)
    if "score" in stages:
        score(options.work, options.seeds, options.publish)


if __name__ == "__main__":
    main()
