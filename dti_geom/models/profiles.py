"""What a known model brings besides its weights: sampler settings, scorers, prompts and concepts."""

import importlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BundledConcept:
    """A subject that ships with a model, to learn a token for."""

    name: str
    images: Path  # a folder
    init: str  # the word it starts from


@dataclass(frozen=True)
class Profile:
    """Choices that a model makes for commands which are not told otherwise."""

    guidance: float | None = None  # of its sampler; None: its pipeline's
    sampling_steps: int | None = None
    image_encoder: str = "dinov2"  # compares its pictures, a name of IMAGE_ENCODERS
    text_scorer: str = "siglip"  # reads whether a picture follows its prompt
    prompts: str = "paper"  # the prompt set it is evaluated on
    concepts_module: str | None = None  # a module whose `bundled_concepts()` lists its concepts

    @property
    def concepts(self) -> dict[str, BundledConcept]:
        """The concepts that ship with the model, by name."""
        if self.concepts_module is None:
            return {}
        # Named, not imported: the module lies above this layer.
        concepts: dict[str, BundledConcept] = importlib.import_module(
            self.concepts_module
        ).bundled_concepts()
        return concepts
