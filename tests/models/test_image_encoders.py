import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dti_geom.errors import DoesNotApply, ModelFilesError, UnknownModel
from dti_geom.models.image_encoders import open_image_encoder, open_image_text_encoder, prepared
from image_models import build_clip, build_dino, build_dinov2, build_siglip

BUILDERS = {"dinov2": build_dinov2, "dino": build_dino, "clip": build_clip, "siglip": build_siglip}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: build(tmp_path_factory.mktemp(name)) for name, build in BUILDERS.items()}


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (20 + 3 * n, 40 - 5 * n, 3), np.uint8))
        for n in range(3)
    ]


@pytest.mark.parametrize("name", [*BUILDERS, "mini"])
def test_embeddings_are_unit_rows_that_do_not_depend_on_what_else_is_embedded(
    folders: dict[str, Path], pictures: list[Image.Image], name: str
) -> None:
    encoder = open_image_encoder(str(folders.get(name, name)))
    together = encoder.embed(pictures)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(
        together, torch.cat([encoder.embed([picture]) for picture in pictures]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", BUILDERS)
def test_an_image_is_prepared_as_transformers_prepares_it(
    folders: dict[str, Path], pictures: list[Image.Image], name: str
) -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.AutoImageProcessor.from_pretrained(folders[name], backend="pil")
    settings = json.loads((folders[name] / "preprocessor_config.json").read_text())
    for picture in pictures:
        expected = torch.as_tensor(
            np.asarray(processor(picture, return_tensors="np")["pixel_values"][0])
        )
        torch.testing.assert_close(prepared(picture, settings), expected, atol=2e-6, rtol=0)


def test_the_feature_of_dinov2_is_its_class_token_after_the_last_norm(
    folders: dict[str, Path], pictures: list[Image.Image]
) -> None:
    import transformers

    encoder = open_image_encoder(str(folders["dinov2"]))
    settings = json.loads((folders["dinov2"] / "preprocessor_config.json").read_text())
    module = transformers.Dinov2Model.from_pretrained(folders["dinov2"])
    with torch.no_grad():
        pooled = module(
            torch.stack([prepared(picture, settings) for picture in pictures])
        ).pooler_output
    torch.testing.assert_close(
        encoder.embed(pictures), torch.nn.functional.normalize(pooled, dim=-1)
    )


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_text_scores_are_those_of_the_whole_model(
    folders: dict[str, Path], pictures: list[Image.Image], name: str
) -> None:
    import transformers

    texts = ["a red cat", "a dog", "a red cat"]
    encoder = open_image_text_encoder(str(folders[name]))
    settings = json.loads((folders[name] / "preprocessor_config.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[name])
    padding = "max_length" if name == "siglip" else True
    length = {"padding": padding, "padding_side": "right", "max_length": 12, "truncation": True}
    ids = tokenizer(texts, **length, return_tensors="pt")["input_ids"]
    module = transformers.AutoModel.from_pretrained(folders[name])
    with torch.no_grad():
        logits = module(
            ids, torch.stack([prepared(picture, settings) for picture in pictures])
        ).logits_per_image.diagonal()
    expected = (
        torch.sigmoid(logits) if name == "siglip" else logits / module.logit_scale.exp().detach()
    )
    scores = encoder.score(pictures, texts)
    torch.testing.assert_close(scores, expected)
    assert len(set(scores.tolist())) == 3


def test_the_scorer_of_mini_reads_its_own_concepts() -> None:
    from dti_geom.mini.concepts import concept_images, load_concepts
    from dti_geom.models.catalog import embedded_folder

    folder = embedded_folder() / "concepts"
    encoder: Any = open_image_encoder("mini")
    for concept in load_concepts(folder)[:3]:
        read = encoder.read(concept_images(folder, concept))
        assert {answers["first"] for answers in read} == {concept.item.thing}


def test_what_reads_no_text_and_what_is_no_encoder_say_so(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(DoesNotApply, match="reads no text"):
        open_image_text_encoder(str(folders["dinov2"]))
    with pytest.raises(DoesNotApply, match="reads pictures, not texts"):
        open_image_text_encoder("mini")
    with pytest.raises(UnknownModel, match="Known: mini, dinov2, clip, siglip"):
        open_image_encoder("dinov3000")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelFilesError, match="is a bert; an image encoder is one of"):
        open_image_encoder(str(tmp_path))


def test_weights_that_lack_tensors_are_refused(
    folders: dict[str, Path], pictures: list[Image.Image], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    for path in folders["dinov2"].iterdir():
        os.link(path, tmp_path / path.name)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    save_file(
        {name: value for name, value in state.items() if "norm1" not in name},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(ModelFilesError, match="lacks 4 tensors of a Dinov2Model"):
        open_image_encoder(str(tmp_path)).embed(pictures)
