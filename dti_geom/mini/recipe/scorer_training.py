"""Teaching the scorer to read: all artwork, all colours, concepts, and the blur a generated picture has."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dti_geom.mini.domain import COLOURS, PATTERNS, STYLES
from dti_geom.mini.recipe.artwork import Sprites
from dti_geom.mini.recipe.concept_pictures import CONCEPTS, with_concepts
from dti_geom.mini.recipe.dataset import Pictures, as_tensor, paint_pictures
from dti_geom.mini.recipe.labels import IGNORED, NAMES, READINGS, labels_of
from dti_geom.mini.recipe.loop import Schedule, Training
from dti_geom.mini.recipe.muon import muon_and_adam
from dti_geom.mini.recipe.sampling import Mixture, SceneSampler
from dti_geom.mini.scenes import Scene
from dti_geom.mini.scorer import EMBEDDING, Scorer, save_scorer

BATCH = 96
MUON_RATE = 0.02
ADAM_RATE = 2e-3
CONCEPT_SHARE = 0.15  # of scenes without a second thing
SHARPNESS = 16.0  # scale of cosines in the identity loss
WEIGHTS = {"first": 3.0, "second": 3.0}

Identity = tuple[str, str, str | None]

IDENTITIES: tuple[Identity, ...] = tuple(
    (style, thing, colour) for style in STYLES for thing in NAMES for colour in (None, *COLOURS)
) + tuple((c.item.style, c.item.thing, None) for c in CONCEPTS if c.item.style in PATTERNS)


class ScorerSampler(SceneSampler):
    """Every thing in every style and colour, and the personal concepts."""

    def __init__(self, rng: np.random.Generator) -> None:
        """More colour than the generator sees."""
        mixture = Mixture(pairs=0.25, several=0.12, colour_alone=0.5, colour_in_pair=0.3)
        super().__init__(rng, mixture, NAMES, STYLES, allow_held_out=True)

    def draw(self) -> list[Scene]:
        """One scene, or two twins; now and then a concept takes the place of the only thing."""
        scenes = super().draw()
        if scenes[0].second is None and self._chance(CONCEPT_SHARE):
            item = CONCEPTS[self.rng.integers(len(CONCEPTS))].item
            return [replace(scenes[0], first=replace(item, accessory=scenes[0].first.accessory))]
        return scenes


def paint_scorer_pictures(sprites: Sprites, count: int, seed: int) -> Pictures:
    """Training or test pictures of the scorer."""
    return paint_pictures(
        ScorerSampler(np.random.default_rng(seed)), with_concepts(sprites), count, seed
    )


@dataclass(frozen=True)
class Lessons:
    """images: (n, 64, 64, 3) uint8; answers: (n, readings) class numbers; identities: (n,), ignored in pairs."""

    images: np.ndarray
    answers: Tensor
    identities: Tensor

    @classmethod
    def of(cls, pictures: Pictures, reconstructions: np.ndarray) -> "Lessons":
        """The pictures, and once more the first of them as the autoencoder gives them back."""
        scenes = pictures.scenes + pictures.scenes[: len(reconstructions)]
        answers = [[labels_of(scene)[name] for name in READINGS] for scene in scenes]
        identities = [
            IGNORED
            if scene.second
            else IDENTITIES.index((scene.first.style, scene.first.thing, scene.first.colour))
            for scene in scenes
        ]
        images = np.concatenate([pictures.pixels, reconstructions])
        return cls(images, torch.tensor(answers), torch.tensor(identities))


def disturbed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, soften, brighten and grain a batch: what generated pictures do to true ones."""
    images = functional.pad(images, (3, 3, 3, 3), mode="replicate")
    left, top = torch.randint(7, (2,), generator=generator).tolist()
    images = images[:, :, top : top + 64, left : left + 64]
    if torch.rand((), generator=generator) < 0.5:
        side = int(torch.randint(36, 64, (), generator=generator))
        small = functional.interpolate(images, size=side, mode="bilinear", antialias=True)
        images = functional.interpolate(small, size=64, mode="bilinear")
    gain, shift, grain = torch.rand((3, len(images), 1, 1, 1), generator=generator).to(
        images.device
    )
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return images * (0.85 + 0.3 * gain) + 0.2 * (shift - 0.5) + 0.12 * grain * noise


def train_scorer(
    lessons: Lessons, folder: Path, steps: int, seed: int, device: str = "cpu"
) -> Scorer:
    """Train on the lessons and save below `folder`."""
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
            logits, look = scorer(images)
        errors = [
            WEIGHTS.get(name, 1.0)
            * functional.cross_entropy(logits[name], answers[:, i], ignore_index=IGNORED)
            for i, name in enumerate(names)
        ]
        cosines = look @ functional.normalize(identities.weight, dim=-1).T
        identity = functional.cross_entropy(
            SHARPNESS * cosines, lessons.identities[chosen].to(device)
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
