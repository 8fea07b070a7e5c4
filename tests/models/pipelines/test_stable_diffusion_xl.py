from pathlib import Path
from typing import Any

import pytest
import torch

from dti_geom.models.pipelines import View, open_text_to_image

VIEW = View((640, 480), (10, 0), (64, 64))


def test_sdxl_conditioning_has_the_size_and_crop_of_every_image(sdxl_pipeline: Path) -> None:
    model = open_text_to_image(str(sdxl_pipeline), dtype=torch.float32)
    conditioning = model.encode_prompts(["a dog"], [VIEW])
    assert conditioning["time_ids"].tolist() == [[640, 480, 10, 0, 64, 64]]
    pipeline_ids = model.pipeline._get_add_time_ids(
        (640, 480), (10, 0), (64, 64), torch.float32, conditioning["pooled"].shape[1]
    )
    assert torch.equal(conditioning["time_ids"], pipeline_ids)


def test_sizes_that_bfloat16_cannot_hold_are_exact(sdxl_pipeline: Path) -> None:
    model = open_text_to_image(str(sdxl_pipeline), dtype=torch.bfloat16)
    conditioning = model.encode_prompts(["a dog"], [View((1023, 3001), (1, 0), (64, 64))])
    assert conditioning["time_ids"].tolist() == [[1023, 3001, 1, 0, 64, 64]]
    prediction = model.predict(torch.randn(1, 4, 8, 8), torch.tensor([3]), conditioning)
    assert prediction.dtype == torch.float32
    assert prediction.isfinite().all()


@pytest.mark.parametrize("count", [0, 2])
def test_sdxl_pools_at_the_learned_token_as_diffusers_does(sdxl_pipeline: Path, count: int) -> None:
    """The published second tower pools at a prompt's largest id; zero vectors have smaller ones."""
    model = open_text_to_image(str(sdxl_pipeline), dtype=torch.float32)
    model.place_zero_pad()
    model.place("<x>", [torch.ones(1, 32), torch.ones(1, 48)])
    prompt = model.padded("a <x> in the house", count)
    tower = model.towers[1]
    ids = tower.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    place = ids[0].tolist().index(tower.learned_ids()[-1])
    output: Any = tower.module(ids)
    expected = model.pipeline.text_encoder_2.text_projection(output.last_hidden_state[0, place])
    torch.testing.assert_close(model.encode_prompts([prompt], [VIEW])["pooled"][0], expected)
