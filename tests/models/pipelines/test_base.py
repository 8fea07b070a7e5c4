import shutil

import pytest
import torch

from dti_geom.errors import ModelFilesError, UnknownToken
from dti_geom.models.pipelines import View, open_text_to_image
from pipelines import published

FAMILIES = ("sd15", "sd21", "sdxl", "sana")
VIEW = View((640, 480), (10, 0), (64, 64))


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def model(family, request):
    return open_text_to_image(
        str(request.getfixturevalue(f"{family}_pipeline")), dtype=torch.float32
    )


def vectors_of(model, count=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        0.1 * torch.randn(count, tower.token_table.shape[1], generator=generator)
        for tower in model.towers
    ]


def test_no_parameter_of_the_model_learns(model):
    parts = [model.denoiser, model.vae, *(tower.module for tower in model.towers)]
    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())


def test_gradients_reach_the_placed_vectors_and_nothing_else(model):
    vectors = [rows.requires_grad_() for rows in vectors_of(model)]
    model.place("<x>", vectors)
    told = model.encode_prompts(["a photo of a <x>"] * 2, [VIEW] * 2)
    side = model.vae.config.latent_channels
    noisy = torch.randn(2, side, 2 if model.flow else 8, 2 if model.flow else 8)
    t = torch.tensor([10.0, 500.0]) if model.flow else torch.tensor([10, 500])
    answer = model.predict(noisy, t, told)
    assert answer.shape == noisy.shape
    answer.square().mean().backward()
    assert all(rows.grad is not None and rows.grad.any() for rows in vectors)


def test_the_rows_of_the_table_are_looked_up_as_before(model):
    before = model.encode_prompts(["a red dog"], [VIEW])
    model.place("<x>", vectors_of(model))
    after = model.encode_prompts(["a red dog"], [VIEW])
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_equal_prompts_are_told_equal_things_and_others_are_not(model):
    told = model.encode_prompts(["a cat", "a dog", "a cat"], [VIEW] * 3)["states"]
    assert torch.equal(told[0], told[2])
    assert not torch.equal(told[0], told[1])


def test_a_token_of_several_vectors_uses_all_of_them(model):
    vectors = [rows.requires_grad_() for rows in vectors_of(model, 3)]
    model.place("<x>", vectors)
    model.encode_prompts(["a <x>"], [VIEW])["states"].float().square().sum().backward()
    assert all(rows.grad.any(dim=1).all() for rows in vectors)


def test_a_known_word_cannot_be_a_token_and_a_token_keeps_its_number_of_vectors(model):
    word = "e" if model.flow else "dog"
    with pytest.raises(UnknownToken, match=f"{word} is a word of this model already"):
        model.place(word, vectors_of(model))
    model.place("<x>", vectors_of(model, 2))
    with pytest.raises(UnknownToken, match="stands for 2 vectors"):
        model.place("<x>", vectors_of(model, 1))


def test_a_picture_depends_on_its_seed_and_token_and_not_on_its_neighbours(model):
    model.place("<x>", vectors_of(model))
    options = {"steps": 2, "size": 64}
    alone = model.generate(["a <x>"], [3], **options)[0]
    beside = model.generate(["a dog", "a <x>", "a <x>"], [1, 3, 4], **options)
    difference = [abs(a - b) for a, b in zip(alone.tobytes(), beside[1].tobytes(), strict=True)]
    assert max(difference) <= 1  # matrix products of another shape round differently
    assert beside[1].tobytes() != beside[2].tobytes()
    model.place("<x>", vectors_of(model, seed=1))
    assert model.generate(["a <x>"], [3], **options)[0].tobytes() != alone.tobytes()


def test_sdxl_is_told_the_size_and_crop_of_every_image(sdxl_pipeline):
    model = open_text_to_image(str(sdxl_pipeline), dtype=torch.float32)
    told = model.encode_prompts(["a dog"], [VIEW])
    assert told["time_ids"].tolist() == [[640, 480, 10, 0, 64, 64]]
    pipeline_ids = model.pipeline._get_add_time_ids(
        (640, 480), (10, 0), (64, 64), torch.float32, told["pooled"].shape[1]
    )
    assert torch.equal(told["time_ids"], pipeline_ids)


def test_sizes_that_bfloat16_cannot_hold_are_told_exactly(sdxl_pipeline):
    model = open_text_to_image(str(sdxl_pipeline), dtype=torch.bfloat16)
    told = model.encode_prompts(["a dog"], [View((1023, 3001), (1, 0), (64, 64))])
    assert told["time_ids"].tolist() == [[1023, 3001, 1, 0, 64, 64]]
    noisy = torch.randn(1, 4, 8, 8)
    assert model.predict(noisy, torch.tensor([3]), told).isfinite().all()


def test_sana_reads_its_instruction_in_training_as_in_generation(sana_pipeline):
    model = open_text_to_image(str(sana_pipeline), dtype=torch.float32)
    seen = []
    model.towers[0].module.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append((_a[0] if _a else kwargs["input_ids"])[0].clone()),
        with_kwargs=True,
    )
    model.encode_prompts(["a dog"], [VIEW])
    model.generate(["a dog"], [0], steps=1, size=64)
    assert torch.equal(seen[0], seen[1])
    assert len(seen[0]) > 300  # the prompt's own 300 places, and the instruction before them


def test_a_token_with_capitals_is_refused_where_prompts_are_lowered(sana_pipeline):
    model = open_text_to_image(str(sana_pipeline), dtype=torch.float32)
    with pytest.raises(UnknownToken, match="lower case"):
        model.place("<MyDog>", vectors_of(model))


def test_another_pipeline_and_a_broken_one_are_refused_in_one_line(sd15_pipeline, tmp_path):
    shutil.copytree(sd15_pipeline, tmp_path / "broken")
    (tmp_path / "broken" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(
        b"no weights"
    )
    with pytest.raises(ModelFilesError, match="did not open as a StableDiffusionPipeline"):
        open_text_to_image(str(tmp_path / "broken"))
    index = tmp_path / "broken" / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "FluxPipeline"))
    with pytest.raises(ModelFilesError, match="a token can be trained on StableDiffusionPipeline"):
        open_text_to_image(str(tmp_path / "broken"))


def test_a_freed_autoencoder_is_gone_and_a_resting_one_comes_back(sd15_pipeline):
    model = open_text_to_image(str(sd15_pipeline), dtype=torch.float32)
    model.rest_vae()
    assert model.generate(["a dog"], [0], steps=1, size=64)[0].size == (64, 64)
    model.free_vae()
    assert model.vae is None
    assert model.pipeline.vae is None
