"""What the scorer can see of each personal concept: bounds that no method's score can pass.

Measured when the scorer was trained, on painted scenes of every prompt that concepts are evaluated
on, and on the same scenes through the model's autoencoder.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dti_geom.files.decoding import decode
from dti_geom.models.catalog import embedded_folder
from dti_geom.statistics import Share

CEILINGS_FILE = "ceilings.json"
LEAST_CEILING = 0.9  # a check that true pictures pass less often cannot tell methods apart


@dataclass(frozen=True)
class Ceiling:
    """How often true pictures pass a check."""

    renders: Share  # painted scenes
    reconstructions: Share  # the same through the autoencoder, as the model paints

    @property
    def decides(self) -> bool:
        """Whether a picture that fails the check is likely to be wrong."""
        return self.reconstructions.share >= LEAST_CEILING


@dataclass(frozen=True)
class Likeness:
    """Mean cosines with the reference images, −1 … 1."""

    renders: float  # of painted scenes with the concept
    reconstructions: float
    other: float  # of painted scenes with each other concept


@dataclass(frozen=True)
class ConceptCeiling:
    """The bounds of one concept's scores."""

    concept: str
    checks: dict[str, Ceiling]
    likeness: Likeness

    @property
    def undecided(self) -> tuple[str, ...]:
        """The checks that cannot decide for this concept."""
        return tuple(name for name, ceiling in self.checks.items() if not ceiling.decides)


@cache
def shipped_ceilings() -> dict[str, ConceptCeiling]:
    """Return the bounds of the shipped concepts, by name."""
    return load_ceilings(embedded_folder() / CEILINGS_FILE)


def load_ceilings(path: Path) -> dict[str, ConceptCeiling]:
    """Read ceilings.json."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    return {entry["concept"]: decode(ConceptCeiling, entry, str(path)) for entry in entries}
