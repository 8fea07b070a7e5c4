from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.models.metering import Meter
from dti_geom.models.pipelines import TextToImage, View, open_text_to_image
from dti_geom.models.pipelines.blueprint import meta_model
from dti_geom.models.pipelines.memory import spend_memory
from dti_geom.models.sources import Folder
from pipelines import FAMILIES

Folders = Callable[[str], Path]
SIDE = 64
VIEWS = [View((SIDE, SIDE), (0, 0), (SIDE, SIDE))] * 2

per_family = pytest.mark.parametrize("name", FAMILIES)


def loss_of(model: TextToImage, vectors: list[Tensor]) -> Tensor:
    """The denoising loss of two seeded samples."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=generator) * 2 - 1
    x = model.encode_images(pixels).mean
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    t = model.noising.draw_times([generator] * 2).to(x.device)
    model.place("<x>", vectors)
    conditioning = model.encode_prompts(["a <x>", "red <x>"], VIEWS)
    answer = model.predict(model.noising.mix(x, noise, t), t, conditioning)
    return (answer - model.noising.target(x, noise, t)).square().mean()


def vectors_of(model: TextToImage) -> list[Tensor]:
    """Seeded vectors that learn, (1, d) for each tower."""
    generator = torch.Generator().manual_seed(0)
    vectors = []
    for tower in model.towers:
        rows = 0.1 * torch.randn(1, tower.token_table.shape[1], generator=generator)
        vectors.append(rows.to(model.device).requires_grad_())
    return vectors


@per_family
def test_loss_and_gradient_are_the_same_bytes_with_low_memory(
    name: str, pipeline_folder: Folders
) -> None:
    model = open_text_to_image(str(pipeline_folder(name)), dtype=torch.float32)
    answers: list[list[Tensor]] = []
    for memory in ("fast", "low", "fast"):
        spend_memory(model, memory)
        vectors = vectors_of(model)
        loss = loss_of(model, vectors)
        answers.append([loss, *torch.autograd.grad(loss, vectors)])
    for other in answers[1:]:
        assert all(torch.equal(*pair) for pair in zip(answers[0], other, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in answers[0])


@per_family
def test_low_memory_keeps_less_for_the_backward_pass(name: str, pipeline_folder: Folders) -> None:
    model = meta_model(Folder(pipeline_folder(name)), torch.float32)
    kept: dict[str, int] = {}
    for memory in ("fast", "low"):
        vectors = vectors_of_meta(model)
        x = model.encode_images(torch.zeros(2, 3, SIDE, SIDE)).mean
        spend_memory(model, memory)
        model.place("<x>", vectors)
        t = torch.zeros(2, device=model.device)
        model.encode_prompts(["a <x>"], VIEWS[:1])  # SANA keeps what its instruction means
        with Meter() as meter:
            conditioning = model.encode_prompts(["a <x>", "red <x>"], VIEWS)
            answer = model.predict(x, t if model.flow else t.long(), conditioning)
            kept[memory] = meter.live
            answer.sum().backward()
    assert kept["low"] < kept["fast"] / 2


def vectors_of_meta(model: TextToImage) -> list[Tensor]:
    """Vectors without numbers that learn, (1, d) for each tower."""
    widths = [tower.token_table.shape[1] for tower in model.towers]
    return [torch.zeros(1, width, device="meta", requires_grad=True) for width in widths]


@per_family
def test_every_text_encoder_is_computed_again_block_by_block(
    name: str, pipeline_folder: Folders
) -> None:
    model = open_text_to_image(str(pipeline_folder(name)), dtype=torch.float32)
    spend_memory(model, "low")
    norms = []
    for tower in model.towers:
        norms += [part for part in tower.module.modules() if "Norm" in type(part).__name__]
    calls: list[int] = []
    for norm in norms:
        norm.register_forward_hook(lambda *_: calls.append(1))
    vectors = vectors_of(model)
    loss_of(model, vectors)  # SANA reads its instruction, which it keeps
    calls.clear()
    loss = loss_of(model, vectors)
    forward = len(calls)
    loss.backward()
    assert len(calls) > 1.5 * forward


@per_family
def test_pictures_are_the_same_with_low_memory(name: str, pipeline_folder: Folders) -> None:
    model = open_text_to_image(str(pipeline_folder(name)), dtype=torch.float32)
    pictures: dict[str, list[Any]] = {}
    for memory in ("fast", "low"):
        spend_memory(model, memory)
        pictures[memory] = model.generate(["a cat", "a dog"], [0, 1], steps=2, size=SIDE)
    for fast, low in zip(pictures["fast"], pictures["low"], strict=True):
        difference = torch.tensor(list(fast.tobytes()), dtype=torch.int) - torch.tensor(
            list(low.tobytes()), dtype=torch.int
        )
        assert difference.abs().max() <= 1


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
    """Every part that is moved between devices, and where to."""
    moved: list[tuple[Any, str]] = []
    plain = torch.nn.Module.to

    def to(module: Any, *args: Any, **kwargs: Any) -> Any:
        moved.append((module, str(args[0])))
        return plain(module, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    return moved


def test_the_autoencoder_works_alone_with_low_memory(
    pipeline_folder: Folders, moves: list[tuple[Any, str]]
) -> None:
    model = open_text_to_image(str(pipeline_folder("sd15")), dtype=torch.float32)
    parts = [model.denoiser, model.towers[0].module]
    for memory in ("fast", "low"):
        spend_memory(model, memory)
        moves.clear()
        with model.room_for_vae():
            assert model.device.type == "cpu"
            model.encode_images(torch.zeros(2, 3, SIDE, SIDE))
        if memory == "fast":
            assert not any(module in parts for module, _ in moves)
    away = [(part, "cpu") for part in parts]
    assert moves[:2] == away
    assert (model.vae, "cpu") in moves[2:-3]
    assert moves[-3:] == [(model.vae, "cpu"), *away]  # back to their device, the CPU here
