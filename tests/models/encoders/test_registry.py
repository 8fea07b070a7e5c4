import json
from pathlib import Path

import pytest
import torch
import transformers

from dti_geom.errors import ModelFilesError
from dti_geom.models.encoders.registry import ARCHITECTURES, architecture_of
from dti_geom.models.encoders.stored import pre_norm_blocks

PUBLISHED = (
    Path(__file__).parents[2] / "data" / "published"
)  # facts: the published configurations and parameter counts


@pytest.mark.parametrize(
    ("name", "kind", "width", "layers", "positions"),
    [
        ("clip-vit-l-14-text", "clip_text_model", 768, 12, 77),
        ("openclip-vit-h-14-text", "clip_text_model", 1024, 23, 77),
        ("openclip-vit-bigg-14-text", "clip_text_model", 1280, 32, 77),
        ("gemma-2-2b", "gemma2", 2304, 26, None),
        ("t5-v1_1-xxl-encoder", "t5", 4096, 24, None),
        ("umt5-xxl-encoder", "umt5", 4096, 24, None),
    ],
)
def test_every_published_encoder_is_understood_at_its_full_size(
    name: str, kind: str, width: int, layers: int, positions: int | None
) -> None:
    facts = json.loads((PUBLISHED / f"{name}.json").read_text())
    cls = getattr(transformers, facts["cls"])
    with torch.device("meta"):
        module = cls(cls.config_class(**facts["config"]))
    assert sum(parameter.numel() for parameter in module.parameters()) == facts["parameters"]

    architecture = architecture_of({"model_type": kind}, name)
    state = module.state_dict()
    table = next(key for key in state if key.endswith(architecture.token_table))
    assert state[table].shape == (facts["config"]["vocab_size"], width)
    places = [
        state[key].shape
        for key in state
        if architecture.position_table and key.endswith(architecture.position_table)
    ]
    assert places == ([] if positions is None else [(positions, width)])

    blocks = pre_norm_blocks(module, architecture)
    assert len(blocks) == layers
    for block in blocks:
        assert [branch.kind for branch in block.branches] == ["attention", "mlp"]
        for branch in block.branches:
            assert "norm" in type(branch.norm).__name__.lower()


def test_an_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(ModelFilesError, match=r"model_type 'mamba'.*Known: bert, clip"):
        architecture_of({"model_type": "mamba"}, "x/config.json")


def test_no_two_architectures_claim_the_same_model_type() -> None:
    claimed: list[str] = []
    for architecture in ARCHITECTURES:
        claimed += architecture.model_types
    assert len(claimed) == len(set(claimed))


def test_only_encoders_with_absolute_positions_have_a_position_table() -> None:
    for architecture in ARCHITECTURES:
        assert bool(architecture.position_table) == (architecture.positions == "absolute")
