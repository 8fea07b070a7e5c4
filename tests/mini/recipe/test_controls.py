from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.mini.recipe.controls import TOWERS, lesson
from dti_geom.mini.recipe.export import SHIPPED
from dti_geom.mini.recipe.muon import is_hidden_matrix
from dti_geom.mini.recipe.text import end_states
from dti_geom.mini.recipe.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer(SHIPPED / "tokenizer")


@pytest.fixture(scope="module")
def captions() -> Tensor:
    return lesson(TOKENIZER, 4, 0.0, seed=0)[0]


@pytest.fixture(params=list(TOWERS))
def tower(request: pytest.FixtureRequest) -> tuple[str, Any]:
    torch.manual_seed(0)
    return request.param, TOWERS[request.param](TOKENIZER).eval()


@torch.no_grad()
def test_a_tower_sees_only_what_stands_before(tower: tuple[str, Any], captions: Tensor) -> None:
    _, encoder = tower
    changed = captions.clone()
    changed[:, 6] = 7
    before, after = (encoder(ids).last_hidden_state for ids in (captions, changed))
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@torch.no_grad()
def test_only_unit_states_do_not_know_how_long_a_token_is(
    tower: tuple[str, Any], captions: Tensor
) -> None:
    name, encoder = tower
    before = end_states(encoder, captions)
    encoder.get_input_embeddings().weight.mul_(10)
    change = (end_states(encoder, captions) - before).norm() / before.norm()
    assert (change < 1e-5) == (name == "unit-norm")


@torch.no_grad()
def test_the_end_state_is_what_clip_pools(captions: Tensor) -> None:
    encoder = TOWERS["absolute"](TOKENIZER)
    assert torch.equal(end_states(encoder, captions), encoder(captions).pooler_output)


def test_no_token_table_is_made_orthogonal(tower: tuple[str, Any]) -> None:
    _, encoder = tower
    for name, parameter in encoder.named_parameters():
        if len(parameter) == len(TOKENIZER):
            assert not is_hidden_matrix(name, parameter)


def test_towers_have_about_as_many_parameters(tower: tuple[str, Any]) -> None:
    _, encoder = tower
    assert sum(parameter.numel() for parameter in encoder.parameters()) == pytest.approx(
        3.07e6, rel=0.01
    )
