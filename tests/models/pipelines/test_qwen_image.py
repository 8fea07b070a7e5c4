from collections.abc import Callable
from pathlib import Path

import torch

from dti_geom.models.pipelines import open_text_to_image


def test_the_vision_tower_and_the_head_are_left_out(
    pipeline_folder: Callable[[str], Path],
) -> None:
    model = open_text_to_image(str(pipeline_folder("qwen-image")), dtype=torch.float32)
    names = [name for name, _ in model.towers[0].module.named_parameters()]
    assert all(name.startswith("model.language_model.") for name in names)


def test_guidance_changes_pictures_without_a_negative_prompt(
    pipeline_folder: Callable[[str], Path],
) -> None:
    """The pipeline alone ignores guidance then."""
    model = open_text_to_image(str(pipeline_folder("qwen-image")), dtype=torch.float32)
    weak, strong = (
        model.generate(["a dog"], [0], steps=2, size=64, guidance=guidance)[0]
        for guidance in (1.5, 9.0)
    )
    assert weak.tobytes() != strong.tobytes()
