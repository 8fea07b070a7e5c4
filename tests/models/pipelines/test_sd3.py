from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dti_geom.models.noising import Flow
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.models.pipelines.sd3 import StableDiffusion3


@pytest.fixture
def model(pipeline_folder: Callable[[str], Path]) -> TextToImage:
    return open_text_to_image(str(pipeline_folder("sd35")), dtype=torch.float32)


def test_each_of_three_towers_has_vectors_of_its_own(model: TextToImage) -> None:
    assert [tower.token_table.shape[1] for tower in model.towers] == [16, 20, 40]
    vectors = [torch.zeros(1, width).requires_grad_() for width in (16, 20, 40)]
    model.place("<x>", vectors)
    states, pooled = model.encode_text(["red <x>"]).values()
    read = [*torch.autograd.grad(states.square().sum(), vectors, retain_graph=True)]
    assert all(bool(gradient.any()) for gradient in read)
    first, second, third = torch.autograd.grad(pooled.square().sum(), vectors, allow_unused=True)
    assert first.any()
    assert second.any()
    assert third is None


def test_the_shortest_tower_decides_how_many_tokens_are_read(model: TextToImage) -> None:
    assert [model.prompt_tokens(tower) for tower in model.towers] == [76, 76, 255]


def test_without_t5_the_pipeline_has_two_towers_and_writes_zeros(model: TextToImage) -> None:
    pipeline: Any = model.pipeline
    pipeline.text_encoder_3 = pipeline.tokenizer_3 = None
    smaller = StableDiffusion3(pipeline, "without T5")
    assert [tower.name for tower in smaller.towers] == ["text_encoder", "text_encoder_2"]
    states = smaller.encode_text(["red cat"])["states"]
    assert states.shape == (1, 77 + 256, 40)
    assert states[:, :77].any()
    assert not states[:, 77:].any()


@pytest.mark.parametrize(("side", "shift"), [(64, 1.0), (128, 2.0)])
def test_a_scheduler_that_shifts_by_size_is_followed(
    model: TextToImage, side: int, shift: float
) -> None:
    length = {"base_image_seq_len": 16, "max_image_seq_len": 64}
    bounds = {"base_shift": 0.0, "max_shift": float(torch.tensor(2.0).log())}
    model.pipeline.scheduler.register_to_config(use_dynamic_shifting=True, **length, **bounds)
    noising = model.noising_at(side)
    assert isinstance(noising, Flow)
    assert noising.shift == pytest.approx(shift)
