from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dti_geom.models.pipelines import View, open_text_to_image
from dti_geom.models.pipelines.memory import spend_memory

VIEW = View((64, 64), (0, 0), (64, 64))


def test_the_mask_names_the_prompt_its_end_and_one_padding_token(
    pipeline_folder: Callable[[str], Path],
) -> None:
    model = open_text_to_image(str(pipeline_folder("chroma")), dtype=torch.float32)
    mask = model.encode_text(["red cat", "red red cat"])["mask"]
    assert mask.shape == (2, 512)
    assert mask.sum(dim=1).tolist() == [2 + 1 + 1, 3 + 1 + 1]
    assert mask[0, :4].all()


def test_with_low_memory_the_mask_reaches_every_block(
    pipeline_folder: Callable[[str], Path],
) -> None:
    model = open_text_to_image(str(pipeline_folder("chroma")), dtype=torch.float32)
    spend_memory(model, "low")
    seen: list[bool] = []

    def look(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        seen.append(given.get("attention_mask") is not None)

    blocks = [*model.denoiser.transformer_blocks, *model.denoiser.single_transformer_blocks]
    for block in blocks:
        block.register_forward_pre_hook(look, with_kwargs=True)
    model.place("<x>", [torch.zeros(1, 40, requires_grad=True)])
    conditioning = model.encode_prompts(["a <x>"], [VIEW])
    model.predict(torch.zeros(1, 16, 8, 8), torch.tensor([500.0]), conditioning)
    assert seen == [True] * len(blocks)
