"""Convolutions with frozen weights, without the inputs that autograd keeps for their gradients.

PyTorch keeps the input of every convolution. It is read for the gradient of the weights alone,
which nobody asks for here: a fifth of what a SANA step keeps. Results are the same bytes.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def keep_no_inputs(module: nn.Module) -> None:
    """Let the 2-D convolutions in a frozen module keep no inputs for the backward pass."""
    for part in module.modules():
        if type(part) is nn.Conv2d and part.padding_mode == "zeros" and part.padding != "same":
            settings = part.stride, part.padding, part.dilation, part.groups
            part.__dict__["_conv_forward"] = partial(_convolve, settings)


def _convolve(settings: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution of x, (n, c, h, w)."""
    # A compiler decides by itself what to keep.
    if not x.requires_grad or weight.requires_grad or torch.compiler.is_compiling():
        return torch.nn.functional.conv2d(x, weight, bias, *settings)
    convolution: Any = _FrozenConvolution
    result: Tensor = convolution.apply(x, weight, bias, *settings)
    return result


class _FrozenConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.strides, ctx.settings = x.shape, x.stride(), settings
        return torch.nn.functional.conv2d(x, weight, bias, *settings)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        # Only the size and the memory layout of the input are read.
        x = torch.empty_strided(ctx.size, ctx.strides, dtype=weight.dtype, device=weight.device)
        gradient, _, _ = torch.ops.aten.convolution_backward(
            gradients[0],
            x,
            weight,
            bias_sizes=None,
            stride=stride,
            padding=padding,
            dilation=dilation,
            transposed=False,
            output_padding=[0, 0],
            groups=groups,
            output_mask=[True, False, False],
        )
        return gradient, None, None, None, None, None, None
