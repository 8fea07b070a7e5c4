from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dti_geom.models import open_encoders
from pipelines import FAMILIES, library, published

Folders = Callable[[str], Path]
Paint = Callable[[str, int], Any]


def _image_parts() -> list[str]:
    parts: dict[str, None] = {}  # a dictionary keeps the order and drops what families share
    for family in FAMILIES.values():
        parts |= dict.fromkeys([*family.denoisers, family.autoencoder])
    return list(parts)


@pytest.fixture(scope="module", params=FAMILIES)
def paint(request: pytest.FixtureRequest, pipeline_folder: Folders) -> Paint:
    pipeline = _open(pipeline_folder(request.param))
    pipeline.set_progress_bar_config(disable=True)
    family = FAMILIES[request.param]
    # The options of a call with two prompts.
    options = {
        name: value[:1] if isinstance(value, list) else value
        for name, value in family.call_options.items()
    }

    def generate(prompt: str, seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        output = pipeline(
            prompt=prompt,
            height=64,
            width=64,
            num_inference_steps=2,
            generator=generator,
            output_type="np",
            **options,
        )
        picture = output[0][0]
        return picture[0] if picture.ndim == 4 else picture  # a film of one frame

    return generate


def test_a_picture_has_its_size_and_is_not_flat(paint: Paint) -> None:
    picture = paint("a red cat", 0)
    assert picture.shape == (64, 64, 3)
    assert np.isfinite(picture).all()
    assert picture.std() > 0.03


def test_a_picture_follows_from_prompt_and_seed(paint: Paint) -> None:
    picture = paint("a red cat", 0)
    np.testing.assert_array_equal(picture, paint("a red cat", 0))
    assert np.abs(picture - paint("a red cat", 1)).max() > 0.01
    # Some transformers of random weights listen little to text, but far above rounding.
    assert np.abs(picture - paint("a red dog", 0)).max() > 2e-5


def test_letters_outside_the_vocabulary_paint_too(paint: Paint) -> None:
    assert np.isfinite(paint("ein Mädchen, 猫 & 🐱\n", 0)).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_building_twice_writes_the_same_bytes(name: str, tmp_path: Path) -> None:
    written = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        FAMILIES[name].build(folder)
        files = (path for path in folder.rglob("*") if path.is_file())
        written.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert written[0] == written[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pipeline_is_small(name: str, pipeline_folder: Folders) -> None:
    folder = pipeline_folder(name)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.parametrize(
    ("name", "prediction"),
    [
        ("sd15", "epsilon"),
        ("sd21", "v_prediction"),
        ("sdxl", "epsilon"),
        ("sana", "flow_prediction"),
    ],
)
def test_a_scheduler_says_what_its_model_predicts_and_how_much_noise_it_saw(
    name: str, prediction: str, pipeline_folder: Folders
) -> None:
    scheduler = _open(pipeline_folder(name)).scheduler
    assert scheduler.config.prediction_type == prediction
    if name == "sana":
        assert scheduler.config.flow_shift == 3.0
    else:  # Stable Diffusion's noisiest step keeps 6.8 % of the picture
        assert scheduler.alphas_cumprod[-1].sqrt() == pytest.approx(0.0683, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "widths"), [("sd15", [32]), ("sd21", [48]), ("sdxl", [32, 48]), ("sana", [32])]
)
def test_the_text_towers_open_as_those_of_any_model(
    name: str, widths: list[int], pipeline_folder: Folders
) -> None:
    encoders = open_encoders(str(pipeline_folder(name)))
    assert [encoder.token_table.shape[1] for encoder in encoders] == widths
    for encoder in encoders:
        assert encoder.tokenizer is not None
        assert len(encoder.tokenizer) == len(encoder.token_table)


def test_the_largest_id_of_a_prompt_is_its_end_as_the_legacy_configuration_needs(
    sdxl_pipeline: Path,
) -> None:
    pipeline = _open(sdxl_pipeline)
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        assert encoder.config.eos_token_id == 2
        assert len(tokenizer) == encoder.config.vocab_size
        assert tokenizer.eos_token_id == len(tokenizer) - 1
    assert (pipeline.tokenizer.pad_token, pipeline.tokenizer_2.pad_token) == ("<|endoftext|>", "!")


def test_sana_prompts_begin_with_the_begin_token(sana_pipeline: Path) -> None:
    tokenizer = _open(sana_pipeline).tokenizer
    ids = tokenizer("a red cat").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", "a", "▁red", "▁cat"]


@pytest.mark.parametrize("name", _image_parts())
def test_every_published_image_part_has_its_published_size(name: str) -> None:
    facts = published(name)
    with torch.device("meta"):
        part = getattr(library("diffusers"), facts["cls"])(**facts["config"])
    assert sum(parameter.numel() for parameter in part.parameters()) == facts["parameters"]


def _open(folder: Path) -> Any:
    return library("diffusers").DiffusionPipeline.from_pretrained(folder, local_files_only=True)
