"""Trains the scorer: on all artwork, colours and concepts, and on pictures with blur and noise."""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dti_geom.mini.domain import COLOURS, PATTERNS, STYLES, colours_of
from dti_geom.mini.recipe.artwork import Sprites
from dti_geom.mini.recipe.concept_pictures import CONCEPTS, with_concepts
from dti_geom.mini.recipe.dataset import Pictures, as_tensor, paint_pictures
from dti_geom.mini.recipe.labels import IGNORED, NAMES, READINGS, labels_of
from dti_geom.mini.recipe.loop import Schedule, Training
from dti_geom.mini.recipe.muon import muon_and_adam
from dti_geom.mini.recipe.sampling import Mixture, SceneSampler
from dti_geom.mini.scenes import Item, Scene
from dti_geom.mini.scorer import EMBEDDING, Scorer, save_scorer

BATCH = 96
MUON_RATE = 0.02
ADAM_RATE = 2e-3
CONCEPT_SHARE = 0.3  # of things, in pairs and counts too
SHARPNESS = 16.0  # scale of the cosines in the identity loss, an inverse temperature
WEIGHTS = {"first": 3.0, "second": 3.0}  # of the readings' losses; the others have 1

Identity = tuple[str, str, str | None]
"""Style, thing and colour: what a thing looks like."""

# Every look that the embedding tells apart.
_LOOKS: tuple[tuple[str, str], ...] = (
    *product(STYLES, NAMES),
    *(
        (concept.item.style, concept.item.thing)
        for concept in CONCEPTS
        if concept.item.style in PATTERNS
    ),
)
IDENTITIES: tuple[Identity, ...] = tuple(
    (style, thing, colour) for (style, thing), colour in product(_LOOKS, (None, *COLOURS))
)
_NUMBERS = {identity: number for number, identity in enumerate(IDENTITIES)}


class ScorerSampler(SceneSampler):
    """Draws every thing in every style and colour, and the personal concepts."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw coloured things more often than for the generator."""
        mixture = Mixture(pairs=0.25, several=0.12, colour_alone=0.5, colour_in_pair=0.3)
        super().__init__(rng, mixture, NAMES, STYLES, allow_held_out=True)

    def draw(self) -> list[Scene]:
        """Draw one scene, or two twins. Sometimes a concept takes the place of a thing."""
        scene, *twin = super().draw()
        first, *second = (self._sometimes_a_concept(item) for item in scene.items)
        scene = replace(scene, first=first, second=second[0] if second else None)
        return [scene, scene.swapped()] if twin else [scene]

    def _sometimes_a_concept(self, item: Item) -> Item:
        """Return the item, or a concept that wears what the item wears, in the item's colour."""
        if not self._chance(CONCEPT_SHARE):
            return item
        concept = CONCEPTS[self.rng.integers(len(CONCEPTS))].item
        colour = item.colour if item.colour in colours_of(concept.thing) else concept.colour
        return replace(concept, colour=colour, accessory=item.accessory)


def paint_scorer_pictures(sprites: Sprites, count: int, seed: int) -> Pictures:
    """Paint training or test pictures of the scorer."""
    return paint_pictures(
        ScorerSampler(np.random.default_rng(seed)), with_concepts(sprites), count, seed
    )


@dataclass(frozen=True)
class Lessons:
    """What the scorer learns from.

    images: (n, 64, 64, 3). answers: (n, readings), class numbers. identities: (n, 2), places in
    IDENTITIES of the first and the second thing, IGNORED where there is no second.
    """

    images: NDArray[np.uint8]
    answers: Tensor
    identities: Tensor

    @classmethod
    def of(cls, pictures: Pictures, reconstructions: NDArray[np.uint8]) -> "Lessons":
        """Return the pictures, and the autoencoder's reconstructions of the first of them."""
        scenes = pictures.scenes + pictures.scenes[: len(reconstructions)]
        answers = [[labels_of(scene)[name] for name in READINGS] for scene in scenes]
        identities = [[_identity(scene.first), _identity(scene.second)] for scene in scenes]
        images = np.concatenate([pictures.pixels, reconstructions])
        return cls(images, torch.tensor(answers), torch.tensor(identities))


def _identity(item: Item | None) -> int:
    """Return an item's place in IDENTITIES, IGNORED for no item."""
    return _NUMBERS[item.style, item.thing, item.colour] if item else IGNORED


def disturbed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, blur, brighten and grain a batch, as generated pictures differ from painted ones.

    images: (n, 3, 64, 64) in [−1, 1]. Returns the same shape, slightly outside of that range.
    """
    # A shift of up to 3 px; the border repeats the pixels at the edge.
    images = functional.pad(images, (3, 3, 3, 3), mode="replicate")
    left, top = torch.randint(7, (2,), generator=generator).tolist()
    images = images[:, :, top : top + 64, left : left + 64]
    # Half of the batches lose detail: scaled down and up again.
    if torch.rand((), generator=generator) < 0.5:
        side = int(torch.randint(36, 64, (), generator=generator))
        small = functional.interpolate(images, size=side, mode="bilinear", antialias=True)
        images = functional.interpolate(small, size=64, mode="bilinear")
    gain, shift, grain = torch.rand((3, len(images), 1, 1, 1), generator=generator).to(
        images.device
    )
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    # Contrast 0.85 … 1.15, brightness ±0.1, noise of deviation up to 0.12.
    result: Tensor = images * (0.85 + 0.3 * gain) + 0.2 * (shift - 0.5) + 0.12 * grain * noise
    return result


def train_scorer(
    lessons: Lessons, folder: Path, steps: int, seed: int, device: str = "cpu"
) -> Scorer:
    """Train a scorer, save it below `folder` and return it."""
    torch.manual_seed(seed)
    scorer = Scorer(READINGS).to(device).train()
    identities = nn.Linear(EMBEDDING, len(IDENTITIES), bias=False).to(device)
    modules = nn.ModuleDict({"scorer": scorer, "identities": identities})
    optimisers = muon_and_adam(modules, MUON_RATE, ADAM_RATE)
    training = Training(folder, {"both": modules}, optimisers, Schedule(steps, fall_from=0.2), seed)
    names = list(READINGS)

    def losses(generator: torch.Generator) -> dict[str, Tensor]:
        chosen = torch.randint(len(lessons.images), (BATCH,), generator=generator)
        images = disturbed(as_tensor(lessons.images[chosen.numpy()], device), generator)
        answers = lessons.answers[chosen].to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits, looks = scorer(images)
        errors = [
            WEIGHTS.get(name, 1.0)
            * functional.cross_entropy(logits[name], answers[:, i], ignore_index=IGNORED)
            for i, name in enumerate(names)
        ]
        # The embeddings learn to tell looks apart, by a classifier on cosines that is not kept.
        cosines = looks.flatten(0, 1) @ functional.normalize(identities.weight, dim=-1).T
        identity = functional.cross_entropy(
            SHARPNESS * cosines,
            lessons.identities[chosen].flatten().to(device),
            ignore_index=IGNORED,
        )
        right = (logits["first"].argmax(dim=1) == answers[:, names.index("first")]).float().mean()
        return {
            "loss": torch.stack([*errors, identity]).sum(),
            "identity": identity,
            "first_right": right,
        }

    training.run(losses)
    save_scorer(scorer.eval(), folder)
    return scorer
