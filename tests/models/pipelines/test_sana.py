import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import UnknownToken
from dti_geom.models.pipelines import TextToImage, open_text_to_image

# Of different lengths, empty, in capitals and spaces, and longer than the 300 places.
PROMPTS = ["a dog", "", "  A Red <x> ", "a <x> in the house " * 40, "<x>", "phone"]


@pytest.fixture
def opened(sana_pipeline: Path) -> Callable[..., TextToImage]:
    """Open the tiny SANA with <x> standing for some vectors."""

    def build(vectors: int = 1, token: str = "<x>") -> TextToImage:
        model = open_text_to_image(str(sana_pipeline), dtype=torch.float32)
        rows = torch.randn(vectors, 32, generator=torch.Generator().manual_seed(0))
        model.place(token, [rows.requires_grad_()])
        return model

    return build


def instruction_of(model: TextToImage) -> list[str]:
    """The instruction that generation puts before a prompt."""
    call = inspect.signature(type(model.pipeline).__call__)
    return call.parameters["complex_human_instruction"].default  # type: ignore[no-any-return]


def published(model: TextToImage, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """States and mask of the pipeline's own `encode_prompt`, (n, 300, d) and (n, 300)."""
    states, mask, _, _ = model.pipeline.encode_prompt(
        [model.written(prompt) for prompt in prompts],
        do_classifier_free_guidance=False,
        device="cpu",
        complex_human_instruction=instruction_of(model) if model.instruction else None,
    )
    return states, mask


def gradient(model: TextToImage, states: Tensor, mask: Tensor) -> Tensor:
    """Into <x>, of a seeded weighted sum of the states at live places."""
    (rows,) = model.towers[0].learned.values()
    rows.grad = None
    weights = torch.randn(len(states), 300, 32, generator=torch.Generator().manual_seed(1))
    (states * weights[:, : states.shape[1]] * mask[..., None]).sum().backward()
    assert rows.grad is not None
    return rows.grad


def check_conditioning(model: TextToImage, prompts: Sequence[str]) -> None:
    """Live states, mask and gradient are the pipeline's own."""
    states, mask = published(model, prompts)
    ours = model.encode_text(list(prompts))
    width = ours["mask"].shape[1]
    assert width == int(mask.sum(dim=1).max())
    assert torch.equal(ours["mask"], mask[:, :width])
    live = mask[:, :width, None]
    error = ((ours["states"] - states[:, :width]) * live).abs().max()
    assert error <= 1e-6 * states.abs().max()
    expected = gradient(model, states, mask)
    found = gradient(model, ours["states"], ours["mask"])
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("instruction", [True, False])
@pytest.mark.parametrize("vectors", [1, 3])
def test_the_conditioning_is_the_pipelines_own_without_its_padding(
    opened: Callable[..., TextToImage], instruction: bool, vectors: int
) -> None:
    model = opened(vectors)
    model.instruction = instruction
    check_conditioning(model, PROMPTS)
    check_conditioning(model, PROMPTS[:3])  # the instruction is read from its cache


def test_a_learned_token_that_stands_in_the_instruction_learns_there_too(
    opened: Callable[..., TextToImage],
) -> None:
    model = opened(token="user")
    check_conditioning(model, ["a dog", "a user in a house"])


def test_an_instruction_longer_than_gemmas_window_is_read_as_the_pipeline_reads_it(
    opened: Callable[..., TextToImage],
) -> None:
    model = opened()
    encoder: Any = model.towers[0].module
    encoder.config.sliding_window = 64
    for layer in encoder.layers:
        layer.self_attn.sliding_window = 64
    check_conditioning(model, PROMPTS)
    check_conditioning(model, PROMPTS)


def test_the_instruction_is_read_anew_in_another_precision(
    opened: Callable[..., TextToImage],
) -> None:
    model = opened()
    check_conditioning(model, PROMPTS)
    model.pipeline.to(torch.float64)
    assert model.encode_text(["a dog"])["states"].dtype == torch.float64


def test_the_instruction_costs_no_place_and_no_pass_once_it_is_read(
    opened: Callable[..., TextToImage],
) -> None:
    model = opened()
    model.encode_text(["a dog"])
    read: list[int] = []

    def count(_module: Any, args: tuple[Tensor]) -> None:
        read.append(args[0].shape[1])

    model.towers[0].module.register_forward_pre_hook(count)
    states = model.encode_text(["a dog"])["states"]
    assert read == [states.shape[1] - 1]  # all but the begin token
    assert states.shape[1] < 8


def test_generation_follows_the_instruction_as_training_does(
    opened: Callable[..., TextToImage],
) -> None:
    model = opened()
    model.instruction = False
    (without,) = model.generate(["a dog"], [0], steps=2, size=64)
    expected = model.pipeline(
        prompt="a dog",
        num_inference_steps=2,
        guidance_scale=model.guidance,
        height=64,
        width=64,
        use_resolution_binning=False,
        complex_human_instruction=None,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert without.tobytes() == expected.tobytes()
    model.instruction = True
    (with_it,) = model.generate(["a dog"], [0], steps=2, size=64)
    assert with_it.tobytes() != without.tobytes()


def test_a_token_with_capitals_is_refused_where_prompts_are_lowered(sana_pipeline: Path) -> None:
    model = open_text_to_image(str(sana_pipeline), dtype=torch.float32)
    with pytest.raises(UnknownToken, match="lower case"):
        model.place("<MyDog>", [torch.ones(1, 32)])


@pytest.mark.parametrize("instruction", [True, False])
def test_zero_vectors_leave_the_tokens_of_a_prompt_as_they_are(
    sana_pipeline: Path, instruction: bool
) -> None:
    model = open_text_to_image(str(sana_pipeline), dtype=torch.float32)
    model.follow_instruction(instruction)
    model.place_zero_pad()
    zero = model.towers[0].learned_ids()[0]
    (plain, padded), _ = model._tokens(["red cat", model.padded("red cat", 3)])  # type: ignore[attr-defined]
    place = padded.index(zero)
    assert padded[place : place + 3] == [zero] * 3
    assert padded[:place] + padded[place + 3 :] == plain
