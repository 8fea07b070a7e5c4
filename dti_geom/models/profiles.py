"""What a known model brings besides its weights: a sampler setting, scorers, prompts, concepts.

A command that is not told otherwise asks the profile of its model. Adding such a thing to a model
is one argument of its entry in `dti_geom.models.catalog.MODELS`.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BundledConcept:
    """A subject that ships with a model, to learn a token for."""

    name: str
    init: str  # the vocabulary word that its token starts from
    images: Path  # folder of its reference pictures
    files: tuple[Path, ...]  # the reference pictures
    kind: str  # what is new about its look, in a word
    split: str  # "tuning": settings are chosen on it; "test": they are judged on it


@dataclass(frozen=True)
class Profile:
    """What a model brings. None: nothing of its own, so that the general default holds."""

    guidance: float | None = None  # scale of classifier-free guidance; default: its pipeline's
    sampling_steps: int | None = None  # default: its pipeline's
    image_encoder: str | None = None  # compares its pictures, a name of IMAGE_ENCODERS
    text_scorer: str | None = None  # judges whether a picture follows its prompt
    prompts: str | None = None  # what its tokens are evaluated on, a name of PROMPT_SETS
    template_list: str | None = None  # "module:function" that returns training prompts
    concept_list: str | None = None  # "module:function" that returns its concepts by name

    def concepts(self) -> dict[str, BundledConcept]:
        """Return the concepts that ship with the model, by name. Raises ModelFilesError."""
        if self.concept_list is None:
            return {}
        concepts: dict[str, BundledConcept] = load_by_name(self.concept_list)()
        return concepts

    def templates(self) -> tuple[str, ...] | None:
        """Return the model's own training prompts for objects, or None if it brings none."""
        if self.template_list is None:
            return None
        templates: tuple[str, ...] = load_by_name(self.template_list)()
        return templates


NO_PROFILE = Profile()
"""Of a model that brings its weights alone."""


def load_by_name(place: str) -> Callable[..., Any]:
    """Import "module:function" and return the function.

    Lets a table name code of a higher layer, or a heavy module, without importing it.
    """
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
