from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from image_models import build_clip, build_dinov2


@pytest.fixture(scope="session")
def asked(
    tmp_path_factory: pytest.TempPathFactory, sd15_pipeline: Path
) -> Callable[..., dict[str, Any]]:
    """A sweep of two subjects by two methods on a tiny model, as its file says it; keywords replace its keys."""
    folder = tmp_path_factory.mktemp("asked")
    for number, name in enumerate(("dog", "cat")):
        (folder / name).mkdir()
        Image.new("RGB", (24, 20), (80 * number, 120, 40)).save(folder / name / "0.png")
    (folder / "prompts.txt").write_text("a {} here\na {} there\n")
    evaluate = {
        "prompts": str(folder / "prompts.txt"),
        "seeds": 2,
        "steps": 1,
        "image_encoder": str(build_dinov2(folder / "dinov2")),
        "text_encoder": str(build_clip(folder / "clip")),
    }

    def asked(**replaced: Any) -> dict[str, Any]:
        return (
            {
                "model": str(sd15_pipeline),
                "concepts": [
                    {"images": str(folder / name), "init": name} for name in ("dog", "cat")
                ],
                "methods": ["dti", "ti"],
                "train": {"steps": 4, "checkpoint_every": 2, "dtype": "float32"},
            }
            | replaced
            | {"evaluate": evaluate | replaced.get("evaluate", {})}
        )

    return asked


@pytest.fixture(scope="session")
def kept() -> Callable[[Path], dict[str, bytes]]:
    """What a sweep's folder holds that must not depend on who computed it, or when."""

    def kept(folder: Path) -> dict[str, bytes]:
        patterns = (
            "cells/*/cell.json",
            "cells/*/pictures/*.png",
            "runs/*/learned_embeds*.safetensors",
        )
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for pattern in patterns
            for path in folder.glob(pattern)
        }

    return kept
