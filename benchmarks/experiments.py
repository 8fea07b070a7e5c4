"""What experiments on the embedded model share: tokens learned in groups, and pictures read.

`train_groups` learns concepts and returns their vectors. `paint_and_read` paints prompts with a
vector and returns what the scorer reads. Other benchmarks import this file; it has no command.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dti_geom.files import atomic_path, read_embeddings, to_json
from dti_geom.files.run_layout import token_folder
from dti_geom.mini.concepts import Concept, concept_images, concepts_folder, load_concepts
from dti_geom.mini.domain import BACKGROUND_NAMES, BACKGROUNDS, THING_NAMES
from dti_geom.mini.recipe.dataset import as_pixels, as_tensor
from dti_geom.mini.scenes import Item, Scene
from dti_geom.mini.scorer import Scorer
from dti_geom.mini.wording import with_article
from dti_geom.models.pipelines import TextToImage
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
) -> list[Group]:
    """Return the runs that learn these concepts, `together` in each.

    A run's folder is named by a digest of its configuration, so another one never resumes it.
    """
    groups = []
    for first in range(0, len(concepts), together):
        members = tuple(concepts[first : first + together])
        config = RunConfig(
            model=model_name,
            concepts=tuple(
                ConceptConfig(
                    _token(concept), str(concepts_folder() / concept.name), concept.initialiser
                )
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


def train_groups(
    work: Path,
    model_name: str,
    method: MethodConfig,
    concepts: Sequence[Concept],
    seed: int,
    *,
    model: TextToImage | None = None,
    together: int = TOGETHER,
    steps: int | None = None,
    dtype: str = "bfloat16",
) -> dict[str, Tensor]:
    """Learn concepts and return the (d,) vector of each, by its name.

    Runs below `work` that are finished are read, and stopped ones resumed. model: `model_name`,
    open; by default every run opens it.
    """
    vectors: dict[str, Tensor] = {}
    groups = groups_of(
        work,
        model_name,
        method,
        concepts,
        seed,
        together=together,
        steps=steps,
        dtype=dtype,
    )
    for group in groups:
        seconds = group.train(model)
        print(f"{group.folder.name}: {model_name}, {seconds:.0f} s of updates", flush=True)
        vectors |= group.vectors()
        if model is not None:
            model.forget()
    return vectors


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


def alone(count: int = 8) -> list[str]:
    """Return prompts of the thing alone, each on another background."""
    places = [BACKGROUND_NAMES[number % len(BACKGROUND_NAMES)] for number in range(count)]
    return [f"a photo of a {{}} {BACKGROUNDS[place][0]}" for place in places]


@dataclass(frozen=True)
class Reading:
    """What the scorer sees in a picture."""

    answers: dict[str, str]  # to each of its questions
    likeness: float  # mean cosine with the references, in the scorer's embedding


def paint_and_read(
    model: TextToImage,
    scorer: Scorer,
    vector: Tensor,
    prompts: Sequence[str],
    references: Tensor,
    *,
    seed: int,
) -> list[Reading]:
    """Paint each prompt once with a vector in the place of {}; return what the scorer reads.

    vector: (d,). references: (n, 128), from `embedded_references`. seed: of the first picture's
    noise; the next take the next seeds.
    """
    return read(scorer, paint(model, vector, prompts, seed=seed), references)


def read(scorer: Scorer, pixels: Tensor, references: Tensor) -> list[Reading]:
    """Return what the scorer sees in pictures, (n, 3, 64, 64) in [−1, 1]."""
    likeness = (scorer.embed(pixels) @ references.T).mean(dim=1).tolist()
    return [
        Reading(answers, value)
        for answers, value in zip(scorer.read(pixels), likeness, strict=True)
    ]


def paint(model: TextToImage, vector: Tensor, prompts: Sequence[str], *, seed: int) -> Tensor:
    """Return one picture of each prompt: (n, 3, 64, 64) in [−1, 1].

    vector: (d,), in the place of {}. seed: as for `paint_and_read`.
    """
    model.place(PAINTED, [vector[None]])
    named = [prompt.replace("{}", PAINTED) for prompt in prompts]
    parts = []
    for first in range(0, len(named), AT_ONCE):
        part = named[first : first + AT_ONCE]
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
    return scorer.embed(as_tensor(np.stack([np.asarray(picture) for picture in pictures])))
