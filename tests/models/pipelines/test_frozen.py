import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from dti_geom.models.metering import Meter
from dti_geom.models.pipelines.frozen import keep_no_inputs

CONVOLUTIONS = {
    "plain": nn.Conv2d(6, 4, 3, padding=1),
    "pointwise": nn.Conv2d(6, 4, 1, bias=False),
    "strided": nn.Conv2d(6, 4, (3, 5), stride=2, padding=(1, 2)),
    "dilated": nn.Conv2d(6, 4, 3, dilation=2),
    "depthwise": nn.Conv2d(6, 6, 3, padding=1, groups=6),
    "reflecting": nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"),
    "same": nn.Conv2d(6, 4, 3, padding="same"),
}


def outputs(module: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradient of a loss in the input."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    answer = module(x)
    (gradient,) = torch.autograd.grad(answer.float().square().sum(), x)
    return [answer.detach(), gradient]


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_outputs_and_gradients_are_the_same_bytes(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    plain = copy.deepcopy(CONVOLUTIONS[name]).to(dtype).requires_grad_(False)
    lean = copy.deepcopy(plain)
    keep_no_inputs(lean)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 6, 9, 11, generator=generator).to(dtype).contiguous(memory_format=layout)
        for expected, found in zip(outputs(plain, x), outputs(lean, x), strict=True):
            assert torch.equal(expected, found)


def test_a_copy_computes_with_its_own_weights() -> None:
    lean = copy.deepcopy(CONVOLUTIONS["plain"]).requires_grad_(False)
    keep_no_inputs(lean)
    copied = copy.deepcopy(lean)
    copied.weight.zero_()
    x = torch.randn(1, 6, 5, 5, requires_grad=True)
    assert torch.equal(copied(x), copied(torch.zeros(1, 6, 5, 5)))
    assert not torch.equal(lean(x), copied(x))


def test_weights_that_learn_get_their_gradients() -> None:
    lean = copy.deepcopy(CONVOLUTIONS["plain"])
    keep_no_inputs(lean)
    lean(torch.randn(1, 6, 5, 5, requires_grad=True)).sum().backward()
    assert all(parameter.grad is not None for parameter in lean.parameters())


def test_a_chain_of_convolutions_keeps_nothing() -> None:
    chain = nn.Sequential(*itertools.repeat(nn.Conv2d(3, 3, 3, padding=1), 4))
    chain.requires_grad_(False).to("meta")
    kept: list[int] = []
    for _ in range(2):
        x = torch.empty(1, 3, 64, 64, device="meta", requires_grad=True)
        with Meter() as meter:
            answer = chain(x)
            kept.append(meter.live)
            answer.sum().backward()
        keep_no_inputs(chain)
    picture = 3 * 64 * 64 * 4
    assert kept == [4 * picture, picture]  # the second: the answer alone
