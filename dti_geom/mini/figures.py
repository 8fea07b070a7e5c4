"""The figures that were measured when the shipped model was made, and those it was to reach."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from dti_geom.files.decoding import decode
from dti_geom.statistics import Share

Row = dict[str, Share]


@dataclass(frozen=True)
class Target:
    """A figure the project set out to reach: the share, and where to find it."""

    row: str
    check: str
    share: float


TARGETS: tuple[Target, ...] = (
    Target("reconstructions", "first", 0.90),
    Target("true renders", "first", 0.95),
    Target("true renders", "relation", 0.95),
    Target("single", "background", 0.98),
    Target("single", "object", 0.92),
    Target("held-out place", "object", 0.85),
    Target("colour", "colour", 0.85),
    Target("held-out colour", "colour", 0.70),
    Target("accessory", "accessory", 0.85),
    Target("count", "count", 0.85),
    Target("row", "order", 0.95),
    Target("column", "order", 0.95),
    Target("row", "both", 0.85),
    Target("column", "both", 0.85),
)
PSNR_TARGET = 29.0  # dB


@dataclass(frozen=True)
class Figures:
    """Everything `eval` measures; shares carry their counts and Wilson intervals."""

    sampler: str
    psnr: float  # dB, mean over test renders
    rows: dict[str, Row]
    seconds_one_image: float
    hardware: str

    def missed(self) -> list[str]:
        """Targets not reached, in words."""
        lines = [
            f"{target.row}, {target.check}: {self.rows[target.row][target.check]}, wanted {target.share:.0%}"
            for target in TARGETS
            if target.row in self.rows and self.rows[target.row][target.check].share < target.share
        ]
        if self.psnr < PSNR_TARGET:
            lines.insert(0, f"reconstruction: {self.psnr:.1f} dB, wanted {PSNR_TARGET:.0f} dB")
        return lines

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load_figures(path: Path) -> Figures:
    """Return the figures that `Figures.save` wrote."""
    return decode(Figures, json.loads(path.read_text()), str(path))
