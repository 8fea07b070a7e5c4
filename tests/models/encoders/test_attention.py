from pathlib import Path
from typing import Any

import pytest
import torch

from dti_geom.models import StoredEncoder, open_encoders

FAMILIES = ["llama", "qwen2", "qwen3", "t5", "umt5", "bert", "roberta", "clip", "sd15", "sana"]
IDS = torch.tensor([[5, 9, 11, 7]])


@pytest.fixture(params=FAMILIES)
def encoder(
    request: pytest.FixtureRequest,
    single_encoders: dict[str, Path],
    sd15_folder: Path,
    sana_folder: Path,
) -> StoredEncoder:
    folders = single_encoders | {"sd15": sd15_folder, "sana": sana_folder}
    return open_encoders(str(folders[request.param]), dtype=torch.float32)[0]


def test_weights_are_given_per_layer_and_head_and_each_row_sums_to_one(
    encoder: StoredEncoder,
) -> None:
    found = encoder.hidden_states(IDS, attention=True)
    assert len(found.attention) == len(found.states) - 1
    for weights in found.attention:
        assert weights.shape == (1, 4, 4, 4)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 4, 4))


def test_asking_for_weights_leaves_the_states_and_the_kernel_as_they_were(
    encoder: StoredEncoder,
) -> None:
    module: Any = encoder.module
    kernel = module.config._attn_implementation
    plain, watched = encoder.hidden_states(IDS), encoder.hidden_states(IDS, attention=True)
    assert plain.attention == ()
    torch.testing.assert_close(watched.last, plain.last)
    assert module.config._attn_implementation == kernel


def test_the_fused_kernel_comes_back_after_an_error(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    module: Any = encoder.module
    kernel = module.config._attn_implementation
    assert kernel != "eager"
    with pytest.raises(ValueError, match="embeddings of shape"):
        encoder.hidden_states(IDS, torch.zeros(1, 5, 32), attention=True)
    assert module.config._attn_implementation == kernel
