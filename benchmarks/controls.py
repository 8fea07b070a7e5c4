"""Measure control towers: mini's text encoder with other positions or another normalisation.

python -m dti_geom.mini.recipe controls --work build/mini       # trains them; resumes
python benchmarks/controls.py --towers build/mini/controls --out reports/controls/result.json

A tower that a probe does not fit is measured without it, and the reason is kept. What was expected
stands in reports/controls/README.md.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from dti_geom import geometry
from dti_geom.errors import DtiGeomError
from dti_geom.files import write_text
from dti_geom.models import TextEncoder, open_encoders
from dti_geom.probes.attenuation import measure_attenuation
from dti_geom.probes.effects import measure_effects
from dti_geom.probes.stagnation import measure_stagnation

TOWERS = ("absolute", "rotary", "post-norm", "unit-norm")
SCALES = (1.0, 8.0, 64.0)  # of the mean norm


def norm(encoder: TextEncoder) -> float:
    """Return the mean norm of the token table."""
    return geometry.summarize_norms(encoder.token_table).mean


def effects(encoder: TextEncoder) -> dict[str, Any]:
    """Return how far each effect moves a word's last state, and how well its place is read."""
    result = measure_effects(encoder)
    (group, *_) = result.groups
    return {
        "moved": {effect.effect: effect.moved.mean for effect in group.effects},
        "place read": {cell.cell: cell.readable.share for cell in group.cells},
        "both moves": {cell.cell: cell.moved.mean for cell in group.cells},
        "places": result.places,
        "without positions": result.without_positions,
    }


def attenuation(encoder: TextEncoder) -> dict[str, Any]:
    """Return how well the position is read from the first normalised input, and both slopes."""
    result = measure_attenuation(encoder, scales=SCALES)
    return {
        "accuracy": {f"{row.scale:g}": row.accuracy for row in result.scales},
        "slopes": [result.share_slope, result.distance_slope],
    }


def stagnation(encoder: TextEncoder) -> dict[str, Any]:
    """Return what the blocks add beside a word of mean norm."""
    result = measure_stagnation(encoder)
    return {"added": next(row.added for row in result.scales if row.scale == 1)}


MEASURED: dict[str, Callable[[TextEncoder], Any]] = {
    "norm": norm,
    "attenuation": attenuation,
    "stagnation": stagnation,
    "effects": effects,
}


def lesson(folder: Path) -> dict[str, float]:
    """Return the last line of a tower's log."""
    *_, last = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    found: dict[str, float] = json.loads(last)
    return {name: found[name] for name in ("step", "loss", "first_of_pair_right")}


def measured(folder: Path) -> dict[str, Any]:
    """Return all that fits a tower; what does not fit, with the reason."""
    row: dict[str, Any] = {"lesson": lesson(folder)}
    try:
        (encoder,) = open_encoders(str(folder), dtype=torch.float32)
    except DtiGeomError as error:
        return row | {"does not open": str(error).splitlines()[0]}
    for name, measure in MEASURED.items():
        try:
            row[name] = measure(encoder)
        except DtiGeomError as error:
            row[name] = {"does not apply": str(error).splitlines()[0]}
    return row


def show(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    columns = (
        "tower",
        "pairs read",
        "mean norm",
        "place read at ×1, 8, 64",
        "blocks add",
        "Effect I",
        "Effect II",
        "×10, p as it is",
        "place read in the last state: ×1, ×10",
    )
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for tower, row in found["towers"].items():
        cells = [tower, f"{row['lesson']['first_of_pair_right']:.3f}"]
        cells += _cells(row) if "norm" in row else ["does not open", *[""] * (len(columns) - 3)]
        yield f"| {' | '.join(cells)} |"


def _cells(row: dict[str, Any]) -> list[str]:
    faded, added, moved = row["attenuation"], row["stagnation"], row["effects"]
    accuracy = faded.get("accuracy")
    reads = ", ".join(f"{value:.3f}" for value in accuracy.values()) if accuracy else "–"
    cells = [f"{row['norm']:.3f}", reads, f"{added['added']:.0f}×" if "added" in added else "–"]
    if "moved" not in moved:
        return [*cells, "–", "–", "–", "–"]
    effects = [moved["moved"].get(name) for name in ("I", "II")]
    shown = ["–" if effect is None else f"{effect:.3f}" for effect in effects]
    at = "both" if "both" in moved["both moves"] else "II"
    places = moved["place read"]
    return [
        *cells,
        *shown,
        f"{moved['both moves'][at]:.3f}",
        f"{places['neither']:.3f}, {places[at]:.3f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--towers", type=Path, default=Path("build/mini/controls"))
    parser.add_argument("--out", type=Path, default=Path("build/mini/controls/result.json"))
    options = parser.parse_args()
    towers = {
        name: measured(options.towers / name)
        for name in TOWERS
        if (options.towers / name / "config.json").exists()
    }
    found = {
        "command": "python benchmarks/controls.py",
        "torch": torch.__version__,
        "towers": towers,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, json.dumps(found, indent=1, ensure_ascii=False) + "\n", overwrite=True)
    print("\n".join(show(found)))


if __name__ == "__main__":
    main()
