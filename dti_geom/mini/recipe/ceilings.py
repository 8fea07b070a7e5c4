"""Measures what the scorer can see of each concept, on true pictures of its prompts."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from torch import Tensor

from dti_geom.mini.ceilings import CEILINGS_FILE, Ceiling, ConceptCeiling, Likeness
from dti_geom.mini.concepts import Concept, concept_images
from dti_geom.mini.prompts import OTHER, SUBJECT, ScenePrompt, mini_prompts
from dti_geom.mini.recipe import autoencoder
from dti_geom.mini.recipe.artwork import Sprites
from dti_geom.mini.recipe.concept_pictures import with_concepts
from dti_geom.mini.recipe.dataset import as_tensor
from dti_geom.mini.recipe.painting import Painter
from dti_geom.mini.scenes import Item, Scene
from dti_geom.mini.scorer import Scorer
from dti_geom.statistics import Share

SEED = 99


@dataclass(frozen=True)
class _Looks:
    """How the scorer embeds pictures of known scenes."""

    places: Tensor  # (n, 2, 128): the first and the second thing
    scenes: list[Scene]

    def likeness(self, references: Tensor) -> float:
        """Return the mean likeness to references, (r, 128): of a pair, that of the better place."""
        cosines = (self.places @ references.T).mean(dim=-1).tolist()
        likenesses = [
            max(places) if scene.second else places[0]
            for places, scene in zip(cosines, self.scenes, strict=True)
        ]
        return fmean(likenesses)


def measure_ceilings(
    scorer: Scorer,
    vae: Any,
    concepts: Sequence[Concept],
    folder: Path,
    sprites: Sprites,
    per_prompt: int,
) -> list[ConceptCeiling]:
    """Paint every concept in every prompt `per_prompt` times; return what the scorer sees in them.

    folder: of the concepts' reference images. A prompt with two concepts pairs a concept with the
    next one.
    """
    painter = Painter(with_concepts(sprites), SEED)
    checks: list[dict[str, Ceiling]] = []
    renders: list[_Looks] = []
    reconstructions: list[_Looks] = []
    for concept, other in zip(concepts, [*concepts[1:], concepts[0]], strict=True):
        prompts = mini_prompts(concept.item.thing, concept.initialiser)
        asked = [prompt for prompt in prompts for _ in range(per_prompt)]
        scenes = [true_scene(prompt, concept, other) for prompt in asked]
        painted = as_tensor(np.stack([painter.paint(scene) for scene in scenes]))
        rebuilt = autoencoder.decode(vae, autoencoder.encode(vae, painted))
        seen = _checked(scorer, painted, asked, concept, other)
        seen_again = _checked(scorer, rebuilt, asked, concept, other)
        checks.append({name: Ceiling(seen[name], seen_again[name]) for name in seen})
        renders.append(_Looks(scorer.embed(painted), scenes))
        reconstructions.append(_Looks(scorer.embed(rebuilt), scenes))
    ceilings = []
    for number, concept in enumerate(concepts):
        pictures = np.stack([np.asarray(image) for image in concept_images(folder, concept)])
        references = scorer.embed(as_tensor(pictures))[:, 0]
        others = [looks for place, looks in enumerate(renders) if place != number]
        likeness = Likeness(
            renders=renders[number].likeness(references),
            reconstructions=reconstructions[number].likeness(references),
            other=fmean(looks.likeness(references) for looks in others),
        )
        ceilings.append(ConceptCeiling(concept.name, checks[number], likeness))
    return ceilings


def true_scene(prompt: ScenePrompt, concept: Concept, other: Concept) -> Scene:
    """Return the scene that a prompt asks for, with the concepts' own looks in its places."""
    looks = {SUBJECT: concept.item, OTHER: other.item}

    def shown(item: Item) -> Item:
        look = looks.get(item.thing, item)
        return replace(look, colour=item.colour or look.colour, accessory=item.accessory)

    scene = prompt.expected.scene
    second = shown(scene.second) if scene.second else None
    return replace(scene, first=shown(scene.first), second=second)


def save_ceilings(ceilings: Iterable[ConceptCeiling], folder: Path) -> None:
    """Write ceilings.json."""
    entries = [asdict(ceiling) for ceiling in ceilings]
    (folder / CEILINGS_FILE).write_text(json.dumps(entries, indent=1) + "\n")


def _checked(
    scorer: Scorer, images: Tensor, asked: list[ScenePrompt], concept: Concept, other: Concept
) -> dict[str, Share]:
    """Return by check how many of the images pass."""
    passed: dict[str, list[bool]] = defaultdict(list)
    for prompt, answers in zip(asked, scorer.read(images), strict=True):
        found = prompt.expected.check(answers, concept.item.thing, other.item.thing)
        for name, holds in found.items():
            passed[name].append(holds)
    return {name: Share.count(holds) for name, holds in passed.items()}
