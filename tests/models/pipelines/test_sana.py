from pathlib import Path
from typing import Any

import pytest
import torch

from dti_geom.errors import UnknownToken
from dti_geom.models.pipelines import View, open_text_to_image

VIEW = View((640, 480), (10, 0), (64, 64))


def test_sana_reads_its_instruction_in_training_as_in_generation(sana_pipeline: Path) -> None:
    model = open_text_to_image(str(sana_pipeline), dtype=torch.float32)
    seen = []

    def keep(_module: Any, args: Any, kwargs: Any) -> None:
        seen.append((args[0] if args else kwargs["input_ids"])[0].clone())

    model.towers[0].module.register_forward_pre_hook(keep, with_kwargs=True)
    model.encode_prompts(["a dog"], [VIEW])
    model.generate(["a dog"], [0], steps=1, size=64)
    assert torch.equal(seen[0], seen[1])
    assert len(seen[0]) > 300  # the prompt's own 300 places, and the instruction before them


def test_a_token_with_capitals_is_refused_where_prompts_are_lowered(sana_pipeline: Path) -> None:
    model = open_text_to_image(str(sana_pipeline), dtype=torch.float32)
    with pytest.raises(UnknownToken, match="lower case"):
        model.place("<MyDog>", [torch.ones(1, 32)])
