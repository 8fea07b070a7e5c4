from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dti_geom.models.pipelines import TextToImage
from dti_geom.models.pipelines.blueprint import meta_model
from dti_geom.models.sources import Folder
from dti_geom.training import (
    AdapterConfig,
    ConceptConfig,
    DataConfig,
    MethodConfig,
    ObjectiveConfig,
    PreviewConfig,
    RunConfig,
)
from dti_geom.training.estimates import (
    GIB,
    Estimate,
    MemoryEstimate,
    _fitting,
    choose_memory,
    estimate_memory,
    estimate_run,
)
from dti_geom.training.run import train
from dti_geom.training.trainer import with_defaults
from pipelines import FAMILIES, published_folder

Config = Callable[..., RunConfig]


def by_memory(estimate: Estimate) -> tuple[MemoryEstimate, MemoryEstimate]:
    fast, low = estimate.memory
    assert (fast.memory, low.memory) == ("fast", "low")
    return fast, low


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_estimated_from_its_configuration(
    name: str, images: Path, tmp_path: Path
) -> None:
    FAMILIES[name].build(tmp_path / "model")
    for weights in (tmp_path / "model").rglob("*.safetensors"):
        weights.write_bytes(b"nothing that could be loaded")
    concept = ConceptConfig("<x>", str(images), FAMILIES[name].word)
    config = RunConfig(str(tmp_path / "model"), (concept,), data=DataConfig(resolution=64))
    estimate = estimate_run(config)
    fast, low = by_memory(estimate)
    assert low.activations < fast.activations / 2
    assert fast.flops < low.flops <= 2 * fast.flops
    assert fast.weights == low.weights
    assert low.peak < fast.peak
    assert fast.training == fast.weights + fast.activations + fast.working + fast.latents
    assert estimate.images == 3
    assert estimate.config.steps is not None


def test_weights_take_the_bytes_of_their_files(sd15_pipeline: Path, config: Config) -> None:
    sizes = {part.name: part for part in estimate_run(config()).parts}
    for name, file in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        size = (sd15_pipeline / name / f"{file}.safetensors").stat().st_size
        assert sizes[name].bytes == pytest.approx(size, rel=0.1)  # the file has a header
        assert sizes[name].bytes == pytest.approx(4 * sizes[name].parameters, rel=0.01)
    half = {part.name: part.bytes for part in estimate_run(config(dtype="bfloat16")).parts}
    assert half["unet"] == sizes["unet"].bytes / 2
    assert half["vae"] == sizes["vae"].bytes  # float32 always


@pytest.mark.slow
def test_activations_grow_with_the_batch_and_not_with_accumulation(config: Config) -> None:
    once, twice, accumulated = (
        by_memory(estimate_run(config(**changes)))[0]
        for changes in ({"batch_size": 2}, {"batch_size": 4}, {"batch_size": 2, "accumulate": 2})
    )
    assert twice.activations == pytest.approx(2 * once.activations, rel=0.05)
    assert accumulated.activations == once.activations
    assert accumulated.flops == 2 * once.flops


@pytest.mark.slow
def test_several_vectors_and_concepts_are_counted(config: Config, images: Path) -> None:
    (width,) = (estimate_run(config()).trainable,)
    assert estimate_run(config(concept={"vectors": 3})).trainable == 3 * width
    both = tuple(ConceptConfig(token, str(images), "dog") for token in ("<x>", "<y>"))
    estimate = estimate_run(config(concepts=both))
    assert (estimate.trainable, estimate.images) == (2 * width, 6)
    alone, together = (by_memory(part)[0] for part in (estimate_run(config()), estimate))
    assert together.activations == pytest.approx(2 * alone.activations, rel=0.05)


@pytest.mark.slow
def test_adapters_and_their_objectives_are_counted(config: Config) -> None:
    def estimated(names: tuple[str, ...], **changes: Any) -> tuple[int, MemoryEstimate]:
        asked = config(objective=ObjectiveConfig(names, prior_count=3), **changes)
        estimate = estimate_run(asked)
        return estimate.trainable, by_memory(estimate)[0]

    lora = AdapterConfig(rank=1)
    token, plain = estimated(("denoising",))
    both, beside = estimated(("denoising",), adapter=lora)
    alone, _ = estimated(("denoising",), adapter=lora, method=MethodConfig("fixed"))
    assert both == token + alone
    assert beside.activations > plain.activations
    # Gradient and two moments are kept beside each number.
    assert beside.latents - plain.latents == 16 * alone
    _, compared = estimated(("dco",), adapter=lora)
    _, preserving = estimated(("denoising", "prior-preservation"), adapter=lora)
    assert beside.flops < compared.flops < preserving.flops
    assert preserving.activations == pytest.approx(2 * beside.activations, rel=0.05)
    # Objectives on text alone are left out.
    _, with_context = estimated(("denoising", "context"))
    assert with_context == plain


def test_without_previews_nothing_is_painted(config: Config) -> None:
    assert all(part.painting == 0 for part in estimate_run(config()).memory)
    with_previews = estimate_run(config(preview=PreviewConfig(every=1)))
    assert all(part.painting > 0 for part in with_previews.memory)


def test_the_files_are_those_that_are_read_and_none_here_is_downloaded(
    sd15_pipeline: Path, config: Config
) -> None:
    estimate = estimate_run(config())
    names = {file.name for file in estimate.files}
    assert {"unet/diffusion_pytorch_model.safetensors", "vae/config.json"} <= names
    assert estimate.bytes == sum((sd15_pipeline / name).stat().st_size for name in names)
    assert estimate.bytes_to_download == 0


def test_every_card_gets_the_fastest_setting_that_fits_it(config: Config) -> None:
    estimate = estimate_run(config())
    fast, low = (
        replace(part, training=size)
        for part, size in zip(estimate.memory, (30 * GIB, 10 * GIB), strict=True)
    )
    cards = [_fitting([fast, low], gib * GIB) for gib in (8, 12, 24, 40)]
    assert cards == [None, "low", "low", "fast"]
    assert {card.memory for card in estimate.cards} == {"fast"}


def pretend_card(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)


@pytest.mark.slow
def test_auto_takes_the_fastest_setting_that_fits_the_card(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, low = by_memory(estimate_run(config()))
    for free, expected in ((fast.needed, "fast"), (fast.needed - 1, "low"), (low.needed, "low")):
        pretend_card(monkeypatch, free)
        chosen = choose_memory(config(device="cuda"))
        assert chosen.memory == expected
        assert "GiB are free on cuda" in (chosen.memory_reason or "")
    pretend_card(monkeypatch, low.needed - 1)
    chosen = choose_memory(config(device="cuda"))
    assert chosen.memory == "low"
    assert "--batch-size" in (chosen.memory_reason or "")


def test_what_cannot_be_estimated_is_run_with_low_memory(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_card(monkeypatch, 8 * GIB)
    chosen = choose_memory(replace(config(device="cuda"), model=str(tmp_path)))
    assert chosen.memory == "low"
    assert "could not be estimated" in (chosen.memory_reason or "")


def test_what_was_asked_for_stays_and_a_processor_is_fast(config: Config) -> None:
    assert choose_memory(config(memory="low")) == config(memory="low")
    assert choose_memory(config()).memory == "fast"


def test_a_run_with_low_memory_ends_with_the_same_vectors_and_says_so(
    tiny: Callable[[], TextToImage], config: Config
) -> None:
    learned: list[Any] = []
    for memory in ("fast", "low"):
        model = tiny()
        result = train(config(memory=memory, steps=3), model=model)
        assert result.config.memory == memory
        learned.append(model.towers[0].learned["<x>"])
        assert model.low_memory == (memory == "low")
    assert torch.equal(*learned)


AIMS = {  # family, published size, pixels of a side, GB of the card that it fits with fast and low
    "sdxl": ("sdxl", "sdxl-unet", 768, 24, 12),
    "sana-1.6b": ("sana", "sana15-1.6b-transformer", 1024, 24, 12),
    "sana-4.8b": ("sana", "sana15-4.8b-transformer", 1024, 80, 24),
}


@pytest.mark.slow
@pytest.mark.parametrize("aim", AIMS)
def test_published_sizes_fit_the_cards_they_should(aim: str, images: Path, tmp_path: Path) -> None:
    name, denoiser, side, fast_card, low_card = AIMS[aim]
    published_folder(tmp_path / "model", name, denoiser)
    concept = ConceptConfig("<x>", str(images), FAMILIES[name].word)
    config = RunConfig(
        str(tmp_path / "model"), (concept,), data=DataConfig(resolution=side), dtype="bfloat16"
    )
    model = meta_model(Folder(tmp_path / "model"), torch.bfloat16)
    config = with_defaults(config, model)
    for memory, card in (("fast", fast_card), ("low", low_card)):
        assert estimate_memory(model, config, memory).needed <= card * GIB
