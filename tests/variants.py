"""Copies of tiny pipelines with fp16 variants, as they are published."""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

PARTS = {
    "text_encoder": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}


def with_variants(folder: Path, target: Path, *, full: bool) -> Path:
    """Copy a pipeline and add fp16 files beside its float32 ones, or in their place."""
    shutil.copytree(folder, target)
    for part, stem in PARTS.items():
        whole = target / part / f"{stem}.safetensors"
        halves = {name: value.half() for name, value in load_file(whole).items()}
        save_file(halves, target / part / f"{stem}.fp16.safetensors", {"format": "pt"})
        if not full:
            whole.unlink()
    return target
