from typing import Any

import pytest
import torch
import transformers

from dti_geom.models.encoders.base import Tap
from dti_geom.models.encoders.unread import leave_out_unread
from pipelines import CAUSAL, seeded

IDS = torch.tensor([[5, 6, 7, 8, 0], [9, 5, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])


def encoder(dtype: torch.dtype) -> Any:
    """Qwen3 with six blocks and a head."""
    sizes = CAUSAL | {"num_hidden_layers": 6}
    config = transformers.Qwen3Config(**sizes, head_dim=8, tie_word_embeddings=False)
    return seeded(lambda: transformers.Qwen3ForCausalLM(config), 1).to(dtype)


def states_of(module: Any) -> tuple[torch.Tensor, ...]:
    """x_0 … x_5, and the last after the final norm."""
    output = module(IDS, attention_mask=MASK, output_hidden_states=True, use_cache=False)
    return output.hidden_states  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tap", [Tap((4, 2), final_norm=False), Tap((1,), final_norm=False), Tap()])
def test_states_that_are_read_keep_every_bit_and_their_numbers(
    dtype: torch.dtype, tap: Tap
) -> None:
    module = encoder(dtype)
    whole = states_of(module)
    leave_out_unread(module, tap)
    cut = states_of(module)
    assert len(cut) == len(whole) == 7
    for place in range(7 - tap.unread):
        assert torch.equal(cut[place], whole[place])


def test_blocks_behind_the_tap_and_the_head_hold_no_parameter() -> None:
    module = encoder(torch.float32)
    block = sum(part.numel() for part in module.model.layers[0].parameters())
    head = module.lm_head.weight.numel()
    before = sum(part.numel() for part in module.parameters())
    for _ in range(2):
        leave_out_unread(module, Tap((2,), final_norm=False))
        after = sum(part.numel() for part in module.parameters())
        assert before - after == 2 * block + head


def test_gradients_of_what_is_read_keep_every_bit() -> None:
    module = encoder(torch.float32).requires_grad_(False)
    gradients = []
    for tap in (None, Tap((3,), final_norm=False)):
        if tap is not None:
            leave_out_unread(module, tap)
        rows = module.get_input_embeddings()(IDS).detach().requires_grad_()
        output = module(inputs_embeds=rows, attention_mask=MASK, output_hidden_states=True)
        output.hidden_states[3].square().sum().backward()
        gradients.append(rows.grad)
    assert torch.equal(*gradients)
