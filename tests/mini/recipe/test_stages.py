"""Every stage takes a few steps at tiny size, stops, and resumes as if it had not stopped."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from dti_geom.mini.recipe import autoencoder, scorer_training
from dti_geom.mini.recipe.artwork import Sprites
from dti_geom.mini.recipe.captions import caption
from dti_geom.mini.recipe.dataset import Pictures, load_pictures, paint_pictures, save_pictures
from dti_geom.mini.recipe.denoiser import (
    LAYOUT_LEVELS,
    Joint,
    LatentPictures,
    draw_levels,
    loss_weights,
    new_denoiser,
    new_scheduler,
)
from dti_geom.mini.recipe.labels import READINGS, labels_in_caption
from dti_geom.mini.recipe.loop import Ema, Schedule, Training
from dti_geom.mini.recipe.muon import Muon, orthogonalised
from dti_geom.mini.recipe.sampling import SceneSampler
from dti_geom.mini.recipe.text import new_text_encoder, teach_reading
from dti_geom.mini.recipe.tokenizer import (
    MAX_TOKENS,
    encode_captions,
    encode_in_pieces,
    train_tokenizer,
)

Losses = Callable[[torch.Generator], dict[str, Tensor]]


@pytest.fixture(scope="module")
def pictures(sprites: Sprites) -> Pictures:
    return paint_pictures(SceneSampler(np.random.default_rng(0)), sprites, 64, seed=0)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(1)
    return [caption(scene, rng) for scene in SceneSampler(rng).draw_many(3000)]


@pytest.fixture(scope="module")
def tokenizer(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"))


def line_training(folder: Path, steps: int) -> tuple[torch.nn.Linear, Training]:
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 1)
    optimiser = torch.optim.AdamW(layer.parameters(), 1e-2)
    ema = Ema(layer.parameters())
    return layer, Training(
        folder, {"layer": layer}, [optimiser], Schedule(steps, warmup=2), seed=3, ema=ema
    )


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    def losses_of(layer: torch.nn.Linear, stop_at: int | None = None) -> Losses:
        taken: list[int] = []

        def losses(generator: torch.Generator) -> dict[str, Tensor]:
            if len(taken) == stop_at:
                raise KeyboardInterrupt
            taken.append(1)
            x = torch.randn((8, 4), generator=generator)
            return {"loss": (layer(x) - x.sum(dim=1, keepdim=True)).square().mean()}

        return losses

    whole, training = line_training(tmp_path / "whole", 12)
    training.run(losses_of(whole))
    broken, training = line_training(tmp_path / "broken", 12)
    with pytest.raises(KeyboardInterrupt):
        training.run(losses_of(broken, stop_at=5))
    training._save(5)
    resumed, training = line_training(tmp_path / "broken", 12)
    training.run(losses_of(resumed))
    assert torch.equal(whole.weight, resumed.weight)


def test_average_is_in_place_only_inside_the_block() -> None:
    layer = torch.nn.Linear(2, 2)
    ema = Ema(layer.parameters())
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1)
    moved = layer.weight.detach().clone()
    with ema:
        assert torch.equal(layer.weight, before)
    assert torch.equal(layer.weight, moved)


def test_schedule_rises_stays_and_falls() -> None:
    schedule = Schedule(1000, warmup=10)
    factors = [schedule.factor(step) for step in (0, 9, 499, 750, 999)]
    assert factors == pytest.approx([0.1, 1, 1, 0.5, 0.02])


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrix = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_shrinks_a_matrix_loss() -> None:
    weight = torch.nn.Parameter(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    optimiser = Muon([weight], lr=0.05)
    start = weight.square().sum().item()
    for _ in range(30):
        weight.grad = 2 * weight.detach()
        optimiser.step()
    assert weight.square().sum().item() < start / 2


def test_pictures_survive_the_disk(pictures: Pictures, tmp_path: Path) -> None:
    save_pictures(pictures, tmp_path)
    loaded = load_pictures(tmp_path)
    assert loaded.scenes == pictures.scenes
    assert loaded.captions == pictures.captions
    assert (loaded.pixels == pictures.pixels).all()


def test_every_word_is_one_token_and_captions_fit(
    tokenizer: CLIPTokenizer, texts: list[str]
) -> None:
    assert all(
        len(tokenizer.tokenize(text)) == len(text.replace("-", " - ").split())
        for text in texts[:300]
    )
    ids = encode_captions(tokenizer, texts)
    assert {len(row) for row in ids} == {MAX_TOKENS}
    assert all(row[-1] == tokenizer.eos_token_id for row in ids)


def test_pieces_spell_the_same_caption_and_use_almost_every_row(
    tokenizer: CLIPTokenizer, texts: list[str]
) -> None:
    broken = encode_in_pieces(tokenizer, texts, np.random.default_rng(0))
    for text, ids in zip(texts[:200], broken, strict=False):
        assert str(tokenizer.decode(ids, skip_special_tokens=True)).replace(
            " ", ""
        ) == text.replace(" ", "")
    used = {row for ids in broken for row in ids}
    assert len(used) > 0.9 * len(tokenizer)


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_noise_levels_favour_the_part_where_layout_is_decided(share: float) -> None:
    levels = draw_levels(20_000, share, torch.Generator().manual_seed(0))
    found = (levels >= LAYOUT_LEVELS).float().mean().item()
    assert found == pytest.approx(share + (1 - share) * 0.3, abs=0.02)


def test_noisy_levels_count_fully() -> None:
    weights = loss_weights(new_scheduler())
    assert weights[-1] == pytest.approx(1)
    assert weights[0] < 0.1
    assert (weights.diff() >= 0).all()


@pytest.mark.slow
def test_autoencoder_stage(pictures: Pictures, tmp_path: Path) -> None:
    model = autoencoder.train_autoencoder(pictures, tmp_path, steps=2, seed=0)
    images = torch.zeros(2, 3, 64, 64)
    latents = autoencoder.encode(model, images)
    assert latents.shape == (
        2,
        autoencoder.LATENT_CHANNELS,
        autoencoder.LATENT_SIDE,
        autoencoder.LATENT_SIDE,
    )
    assert autoencoder.decode(model, latents).shape == images.shape
    assert (tmp_path / "grid.png").exists()
    autoencoder.polish_decoder(model, pictures, tmp_path / "decoder", steps=2, seed=0)
    assert torch.equal(autoencoder.encode(model, images), latents)


def test_scorer_stage(sprites: Sprites, tmp_path: Path) -> None:
    lessons_pictures = scorer_training.paint_scorer_pictures(sprites, 40, seed=1)
    lessons = scorer_training.Lessons.of(lessons_pictures, lessons_pictures.pixels[:10])
    scorer = scorer_training.train_scorer(lessons, tmp_path, steps=2, seed=0)
    read = scorer.read(torch.zeros(3, 3, 64, 64))
    assert len(read) == 3
    assert set(read[0]) == set(READINGS)


@pytest.mark.slow
def test_reading_and_joint_stages(
    pictures: Pictures, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    texts = [captions[0] for captions in pictures.captions]
    ids = torch.tensor(encode_captions(tokenizer, texts))
    told = [
        list(labels_in_caption(scene, text).values())
        for scene, text in zip(pictures.scenes, texts, strict=True)
    ]
    encoder = new_text_encoder(tokenizer)
    teach_reading(encoder, ids, torch.tensor(told), tmp_path / "reading", steps=2, seed=0)
    latents = torch.randn(len(ids), 8, 16, 16).half()
    data = LatentPictures(latents, torch.ones_like(latents), ids[:, None], scale=0.5)
    joint = Joint(new_denoiser(), encoder, data, torch.tensor(encode_captions(tokenizer, [""])[0]))
    seen: list[int] = []
    before = encoder.get_input_embeddings().weight.detach().clone()
    joint.train(tmp_path / "joint", steps=2, seed=0, watch=seen.append, watch_every=1)
    assert seen == [1, 2]
    assert not torch.equal(before, encoder.get_input_embeddings().weight)
