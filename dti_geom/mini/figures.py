"""The figures that were measured when the shipped model was made."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from dti_geom.files.decoding import decode
from dti_geom.models.catalog import embedded_folder
from dti_geom.statistics import Share

FIGURES_FILE = "figures.json"

Row = dict[str, Share]
"""Check → the share of pictures that pass it."""


@dataclass(frozen=True)
class Figures:
    """Everything that `python -m dti_geom.mini.recipe eval` measures.

    Shares carry their counts and Wilson intervals.
    """

    sampler: str
    psnr: float  # dB, mean over test renders
    rows: dict[str, Row]
    seconds_one_image: float
    hardware: str

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load_figures(path: Path) -> Figures:
    """Read what `Figures.save` wrote."""
    return decode(Figures, json.loads(path.read_text(encoding="utf-8")), str(path))


def shipped_figures() -> Figures:
    """Read the figures of the embedded model."""
    return load_figures(embedded_folder() / FIGURES_FILE)
