"""The figures that the embedded model was to reach."""

from dataclasses import dataclass

from dti_geom.mini.figures import Figures

PSNR_TARGET = 29.0  # dB


@dataclass(frozen=True)
class Target:
    """A share to reach, and its place among the figures."""

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


def missed_targets(figures: Figures) -> list[str]:
    """Return the targets that the figures do not reach, in words."""
    lines = []
    if figures.psnr < PSNR_TARGET:
        lines.append(f"reconstruction: {figures.psnr:.1f} dB, wanted {PSNR_TARGET:.0f} dB")
    for target in TARGETS:
        share = figures.rows.get(target.row, {}).get(target.check)
        if share is not None and share.share < target.share:
            lines.append(f"{target.row}, {target.check}: {share}, wanted {target.share:.0%}")
    return lines
