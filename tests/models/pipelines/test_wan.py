from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dti_geom.errors import DoesNotApply, UnknownToken
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.models.pipelines.wan import Wan


@pytest.fixture
def model(pipeline_folder: Callable[[str], Path]) -> TextToImage:
    return open_text_to_image(str(pipeline_folder("wan")), dtype=torch.float32)


def test_prompts_have_512_places_which_are_zero_behind_their_end(model: TextToImage) -> None:
    prompts = ["red cat", "red   &amp;\n cat ", "a " * 600]
    found = model.encode_text(prompts)["states"]
    states, _ = model.pipeline.encode_prompt(
        prompts, do_classifier_free_guidance=False, max_sequence_length=512, device="cpu"
    )
    torch.testing.assert_close(found, states)
    assert found.shape == (3, 512, 40)
    assert found[0, :3].any(dim=-1).all()
    assert not found[0, 3:].any()


@pytest.mark.parametrize("token", ["&lt;x&gt;", "<my  dog>", " <x>"])
def test_a_token_that_cleaning_changes_is_refused(model: TextToImage, token: str) -> None:
    with pytest.raises(UnknownToken, match="reads it as"):
        model.place(token, [torch.ones(1, 40)])


def test_a_model_with_two_transformers_is_refused(model: TextToImage) -> None:
    pipeline: Any = model.pipeline
    pipeline.transformer_2 = pipeline.transformer
    with pytest.raises(DoesNotApply, match=r"Wan 2\.2"):
        Wan(pipeline, "two")


def test_an_image_is_a_video_of_one_frame(model: TextToImage) -> None:
    latents = model.encode_images(torch.zeros(2, 3, 64, 64))
    assert latents.mean.shape == (2, 16, 8, 8)
    assert latents.std is not None
    assert latents.std.shape == (2, 16, 8, 8)
    assert model.decode_latents(latents.mean).shape == (2, 3, 64, 64)
