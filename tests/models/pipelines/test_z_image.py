from collections.abc import Callable
from pathlib import Path

import torch

from dti_geom.models.pipelines import View, open_text_to_image

VIEW = View((64, 64), (0, 0), (64, 64))


def test_a_list_of_prompts_stays_as_it_is(pipeline_folder: Callable[[str], Path]) -> None:
    """The pipeline writes its template into the list that it is given."""
    model = open_text_to_image(str(pipeline_folder("z-image")), dtype=torch.float32)
    prompts = ["a dog", "a cat"]
    model.encode_prompts(prompts, [VIEW, VIEW])
    model.encode_text(prompts)
    model.generate(prompts, [0, 1], steps=2, size=64)
    assert prompts == ["a dog", "a cat"]
