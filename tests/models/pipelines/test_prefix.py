from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.models.pipelines import TextToImage, open_text_to_image

# Of different lengths, empty, and longer than what the pipelines read.
PROMPTS = ["a dog", "", "a <x> in the house", "a <x> dog in the red house " * 40, "<x>"]
READERS = ("z-image", "qwen-image", "lumina2")

per_reader = pytest.mark.parametrize("name", READERS)


@pytest.fixture
def opened(pipeline_folder: Callable[[str], Path]) -> Callable[..., TextToImage]:
    """Open a tiny pipeline with <x> standing for two vectors."""

    def build(name: str, token: str = "<x>") -> TextToImage:
        model = open_text_to_image(str(pipeline_folder(name)), dtype=torch.float32)
        width = model.towers[0].token_table.shape[1]
        rows = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
        model.place(token, [rows.requires_grad_()])
        return model

    return build


def published(model: TextToImage, prompts: list[str]) -> list[Tensor]:
    """For each prompt the live states of the pipeline's own `encode_prompt`, (s, d)."""
    pipeline = model.pipeline
    written = [model.written(prompt) for prompt in prompts]
    if model.name.startswith("z-image"):
        states, _ = pipeline.encode_prompt(written, "cpu", do_classifier_free_guidance=False)
        return list(states)
    if model.name.startswith("qwen-image"):
        states, mask = pipeline.encode_prompt(written, "cpu", max_sequence_length=512)
    else:
        states, mask, _, _ = pipeline.encode_prompt(written, False, device="cpu")
    mask = torch.ones(states.shape[:2]) if mask is None else mask
    return [row[live.bool()] for row, live in zip(states, mask, strict=True)]


def ours(model: TextToImage, prompts: list[str]) -> list[Tensor]:
    """For each prompt its live states as training reads them, (s, d)."""
    encoded = model.encode_text(prompts)
    lengths = encoded["lengths"] if "lengths" in encoded else encoded["mask"].sum(dim=1)
    rows = zip(encoded["states"], lengths.tolist(), strict=True)
    return [states[:length] for states, length in rows]


def gradient(model: TextToImage, states: list[Tensor]) -> Tensor:
    """Into <x>, of the summed squares of the states, those of late places more."""
    (rows,) = model.towers[0].learned.values()
    rows.grad = None
    total: Any = sum((row.square().mean(dim=1) * torch.arange(len(row))).sum() for row in states)
    total.backward()
    assert rows.grad is not None
    return rows.grad


def check_conditioning(model: TextToImage, prompts: list[str]) -> None:
    """Live states, lengths and gradient are the pipeline's own."""
    expected, found = published(model, prompts), ours(model, prompts)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    slopes = gradient(model, found), gradient(model, expected)
    torch.testing.assert_close(*slopes, atol=1e-4, rtol=1e-3)


@per_reader
def test_the_conditioning_is_the_pipelines_own_without_its_padding(
    opened: Callable[..., TextToImage], name: str
) -> None:
    model = opened(name)
    model.name = name
    for _ in range(2):  # the second time what begins all prompts has been read
        check_conditioning(model, PROMPTS)


@pytest.mark.parametrize("name", ["qwen-image", "lumina2"])
def test_what_begins_every_prompt_is_read_once(
    opened: Callable[..., TextToImage], name: str
) -> None:
    model = opened(name)
    model.encode_text(["a dog"])
    whole = len(model.towers[0].tokenizer("a dog")["input_ids"])
    read: list[int] = []

    def count(_module: Any, args: Any, options: Any) -> None:
        read.append((args[0] if args else options["input_ids"]).shape[1])

    model.towers[0].module.register_forward_pre_hook(count, with_kwargs=True)
    before = published_length(model, name)
    model.encode_text(["a dog"])
    assert len(read) == 1
    assert read[0] < before
    assert read[0] >= whole - 1


def published_length(model: TextToImage, name: str) -> int:
    """How many tokens the pipeline reads for a short prompt, padding aside."""
    tokenizer = model.towers[0].tokenizer
    pipeline = model.pipeline
    if name == "qwen-image":
        return len(tokenizer(pipeline.prompt_template_encode.format("a dog"))["input_ids"])
    return len(tokenizer(f"{pipeline.system_prompt} <Prompt Start> a dog")["input_ids"])


@pytest.mark.parametrize(("name", "token"), [("qwen-image", "color"), ("lumina2", "superior")])
def test_a_learned_token_in_what_begins_every_prompt_learns_there_too(
    opened: Callable[..., TextToImage], name: str, token: str
) -> None:
    model = opened(name, token)
    model.name = name
    # Only the first vector: written out, the token would be two words of the prompt.
    check_conditioning(model, ["a dog", "a red dog"])
