from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dti_geom.models.noising import Flow
from dti_geom.models.pipelines import TextToImage, View, open_text_to_image

VIEW = View((64, 64), (0, 0), (64, 64))


@pytest.fixture
def model(pipeline_folder: Callable[[str], Path]) -> TextToImage:
    return open_text_to_image(str(pipeline_folder("flux1")), dtype=torch.float32)


@pytest.mark.parametrize(("side", "shift"), [(1024, 3.158), (512, 1.878)])
def test_the_shift_grows_with_the_image(model: TextToImage, side: int, shift: float) -> None:
    """exp 1.15 for 4096 tokens, exp 0.63 for 1024."""
    noising = model.noising_at(side)
    assert isinstance(noising, Flow)
    assert noising.shift == pytest.approx(shift, abs=1e-3)


@pytest.mark.parametrize("embeds", [True, False])
def test_a_model_is_told_guidance_where_it_takes_any(model: TextToImage, embeds: bool) -> None:
    """dev does, schnell does not."""
    told: dict[str, Any] = {}

    def keep(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        told.update(given)
        raise StopIteration

    model.denoiser.register_to_config(guidance_embeds=embeds)
    model.denoiser.register_forward_pre_hook(keep, with_kwargs=True)
    conditioning = model.encode_prompts(["a cat", "a dog"], [VIEW, VIEW])
    with pytest.raises(StopIteration):
        model.predict(torch.zeros(2, 16, 8, 8), torch.tensor([500.0, 1.0]), conditioning)
    if embeds:
        assert told["guidance"].tolist() == [1, 1]
    else:
        assert told["guidance"] is None
    assert told["timestep"].tolist() == pytest.approx([0.5, 0.001])


def test_clip_gives_its_pooled_state_alone(model: TextToImage) -> None:
    vectors = [torch.zeros(1, width).requires_grad_() for width in (16, 40)]
    model.place("<x>", vectors)
    states, pooled = model.encode_text(["red <x>"]).values()
    clip, t5 = torch.autograd.grad(states.square().sum(), vectors, allow_unused=True)
    assert clip is None
    assert t5.any()
    clip, t5 = torch.autograd.grad(pooled.square().sum(), vectors, allow_unused=True)
    assert clip.any()
    assert t5 is None
