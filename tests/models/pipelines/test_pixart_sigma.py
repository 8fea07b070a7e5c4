from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dti_geom.errors import UnknownToken
from dti_geom.models.pipelines import TextToImage, open_text_to_image

# Of different lengths, empty, in capitals and spaces, and longer than the 300 places.
PROMPTS = ["a dog", "", "  A Red <x> ", "a <x> in the house " * 80, "phone"]


@pytest.fixture
def model(pipeline_folder: Callable[[str], Path]) -> TextToImage:
    return open_text_to_image(str(pipeline_folder("pixart")), dtype=torch.float32)


@pytest.mark.parametrize("prompts", [PROMPTS[:3], PROMPTS])
def test_the_conditioning_is_the_pipelines_own_without_its_padding(
    model: TextToImage, prompts: list[str]
) -> None:
    vectors = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    model.place("<x>", [vectors])
    states, mask, _, _ = model.pipeline.encode_prompt(
        [model.written(prompt) for prompt in prompts],
        do_classifier_free_guidance=False,
        device="cpu",
    )
    found = model.encode_text(prompts)
    width = int(mask.sum(dim=1).max())
    assert torch.equal(found["mask"], mask[:, :width])
    live = mask[:, :width, None]
    torch.testing.assert_close(found["states"] * live, states[:, :width] * live)


def test_a_token_with_capitals_is_refused_and_a_tag_in_small_letters_is_read(
    model: TextToImage,
) -> None:
    with pytest.raises(UnknownToken, match="lower case"):
        model.place("<MyDog>", [torch.ones(1, 40)])
    plain = model.encode_text(["a <my-dog>"])["states"]
    model.place("<my-dog>", [torch.ones(1, 40)])
    assert model.encode_text(["a <my-dog>"])["states"].shape != plain.shape
    learned = model.generate(["a <my-dog>"], [0], steps=2, size=64)
    model.place("<my-dog>", [-torch.ones(1, 40)])
    assert (
        model.generate(["a <my-dog>"], [0], steps=2, size=64)[0].tobytes() != learned[0].tobytes()
    )
