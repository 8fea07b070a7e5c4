"""Writes what ships: the pipeline folder in half precision, the scorer and the concepts."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from dti_geom.errors import ModelFilesError
from dti_geom.mini.recipe import artwork
from dti_geom.mini.recipe.concept_pictures import save_concepts
from dti_geom.mini.scorer import WEIGHTS_FILE, load_scorer, save_scorer
from dti_geom.models.catalog import embedded_folder

SHIPPED = embedded_folder()
PIPELINE_BYTES = 32_000_000
SCORER_BYTES = 6_000_000
CONCEPT_SEED = 500


def pipeline_bytes(folder: Path) -> int:
    """Return the size of the generator's weights in a pipeline folder, in bytes."""
    return sum(
        path.stat().st_size for path in folder.rglob("*.safetensors") if path.name != WEIGHTS_FILE
    )


def export(work: Path, target: Path = SHIPPED) -> None:
    """Fill `target` from the working folder. `eval` writes the figures and the card later."""
    staged = work / "export"
    shutil.rmtree(staged, ignore_errors=True)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(work / "joint" / "pipeline")
    pipeline.vae = AutoencoderKL.from_pretrained(work / "decoder")
    pipeline.to(torch.float16).save_pretrained(staged)
    save_scorer(load_scorer(work / "scorer"), staged / "scorer")
    save_concepts(staged / "concepts", artwork.load_sprites(work / "artwork"), CONCEPT_SEED)
    _check_sizes(staged)
    _tidy(staged)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copytree(staged, target, dirs_exist_ok=True)


def _tidy(folder: Path) -> None:
    """Remove the paths of the training folder from the JSON files; let everyone read the files."""
    for path in folder.rglob("*.json"):
        entries = json.loads(path.read_text())
        if isinstance(entries, dict) and entries.pop("_name_or_path", None):
            path.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    for path in folder.rglob("*.*"):
        path.chmod(0o644)


def _check_sizes(folder: Path) -> None:
    limits: dict[str, tuple[int, Any]] = {
        "pipeline": (PIPELINE_BYTES, pipeline_bytes(folder)),
        "scorer": (SCORER_BYTES, (folder / "scorer" / WEIGHTS_FILE).stat().st_size),
    }
    for name, (limit, size) in limits.items():
        if size > limit:
            raise ModelFilesError(
                f"the {name} has {size:,} bytes of weights; at most {limit:,} may ship."
            )
