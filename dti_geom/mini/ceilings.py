"""What the scorer reads in true pictures of each concept: the most that a painted one can reach."""

import json
from dataclasses import dataclass
from functools import cache

from dti_geom.files.decoding import decode
from dti_geom.models.catalog import embedded_folder
from dti_geom.statistics import Share

CEILINGS_FILE = "ceilings.json"
DECIDES = 0.9  # share of reconstructions that a check must get right to be counted


@dataclass(frozen=True)
class Ceiling:
    """How often a check holds for true pictures of a concept."""

    renders: Share
    reconstructions: Share  # the same through the model's autoencoder

    @property
    def decides(self) -> bool:
        """Whether the scorer can tell by this check whether a painted picture is right."""
        return self.reconstructions.share >= DECIDES


@dataclass(frozen=True)
class Likeness:
    """Mean cosine to the reference pictures of a concept."""

    renders: float
    reconstructions: float
    other: float  # of true pictures of another concept


@dataclass(frozen=True)
class ConceptCeiling:
    """The ceilings of a concept that ships with the embedded model."""

    concept: str
    checks: dict[str, Ceiling]
    likeness: Likeness


@cache
def shipped_ceilings() -> dict[str, ConceptCeiling]:
    """Return the ceilings of the shipped concepts by name; empty where none were measured."""
    path = embedded_folder() / CEILINGS_FILE
    if not path.exists():
        return {}
    ceilings = decode(tuple[ConceptCeiling, ...], json.loads(path.read_text(encoding="utf-8")))
    return {ceiling.concept: ceiling for ceiling in ceilings}
