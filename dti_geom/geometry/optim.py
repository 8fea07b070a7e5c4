"""Stochastic gradient descent and Adam on the unit sphere."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dti_geom.errors import GeometryError
from dti_geom.geometry._checks import check_same_space, check_unit, check_vectors, working_dtype
from dti_geom.geometry.sphere import _norms, _tangent, _unit


class _SphereOptimizer(torch.optim.Optimizer):
    """Common part of both optimisers: checks, the loop over parameters, and exact saved state."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, checked as in the constructor."""
        super().add_param_group(param_group)
        try:
            _check_group(self.param_groups[-1])
        except GeometryError:
            self.param_groups.pop()
            raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Step every row that has a gradient. Returns the loss of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._step_param(param, param.grad.to_dense(), group)
        return loss

    def _step_param(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore options and state exactly: later steps are the same bit for bit."""
        super().load_state_dict(state_dict)
        # torch casts state to the dtype of the parameter, so a bfloat16 parameter would lose its
        # float32 moments. Hence they are copied again, as saved.
        for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            for saved_id, param in zip(saved["params"], group["params"], strict=True):
                for name, value in state_dict["state"].get(saved_id, {}).items():
                    self.state[param][name] = value.detach().clone().to(param.device)


class RiemannianSGD(_SphereOptimizer):
    """Riemannian SGD with a von Mises–Fisher prior, for directions v on the unit sphere.

    Parameters are tensors (..., d) whose rows are unit vectors. Each row takes its own steps:

        g ← ∂L/∂v − κ·μ             posterior gradient
        g ← g − (vᵀg)·v             tangent part
        s ← β·s + (1 − β)·|g|²      g ← g / (√ŝ + ε), ŝ = s / (1 − βⁿ) after n steps of this row
        g ← ρ·T(g₋) + g             with momentum ρ: T projects the last step's g₋ onto the tangent
                                    space at v
        v ← (v − η·g) / |v − η·g|   retraction

    With β = 0 every step turns a row by atan(η) radians, whatever the size of its gradient. The
    pull of the prior relative to the data is then κ/|∂L/∂v|.

    A row whose data gradient is None or exactly zero does not move and counts no step, even with a
    prior. Computes in at least float32. v is stored in its own dtype: a bfloat16 row loses steps
    that are smaller than its rounding.

    Kim et al., Directional Textual Inversion, ICLR 2026 (arXiv 2512.13672).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        kappa: float = 0.0,
        prior_direction: Tensor | None = None,
        beta: float = 0.0,
        eps: float = 1e-8,
        momentum: float = 0.0,
        check: bool = True,
    ) -> None:
        """Check the options and the parameters.

        params: tensors of unit rows, or parameter groups, as for any torch optimiser. Every option
            may differ per group.
        lr: η ≥ 0, radians.
        kappa: κ ≥ 0, strength of the prior, in the units of the gradient.
        prior_direction: μ, unit, (d,) or any shape that broadcasts to the parameter. Needed if
            kappa > 0.
        beta, momentum: β and ρ in [0, 1). eps: ε ≥ 0, in the units of the gradient.
        check: at each step, raise GeometryError for a gradient that is not finite or a row that is
            not unit. On a GPU every check waits for it; without them a NaN spreads.

        Raises GeometryError for an option out of range or a row that is not unit.
        """
        defaults = {
            "lr": lr,
            "kappa": kappa,
            "prior_direction": prior_direction,
            "beta": beta,
            "eps": eps,
            "momentum": momentum,
            "check": check,
        }
        super().__init__(params, defaults)

    def _step_param(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        moves, g = _tangent_gradient(param, grad, group)
        state = self.state[param]
        if not state:
            state["second_moment"] = torch.zeros_like(g[..., 0])
            state["steps"] = torch.zeros_like(moves, dtype=torch.int64)
        beta = group["beta"]
        # Steps are counted per row, since a batch may touch only some of the rows.
        state["steps"] += moves
        state["second_moment"] = torch.where(
            moves,
            beta * state["second_moment"] + (1 - beta) * _norms(g) ** 2,
            state["second_moment"],
        )
        # The average starts at 0; dividing by 1 − βⁿ corrects for that (Kingma and Ba 2015, §3).
        # Rows that never moved have n = 0 and so 0/0 here. They are left out below.
        corrected = state["second_moment"] / (1 - beta ** state["steps"].to(g.dtype))
        g = g / (corrected.sqrt() + group["eps"])[..., None]
        if group["momentum"] > 0:
            before = state.setdefault("momentum", torch.zeros_like(g))
            # The last step was tangent at the last v; projection carries it to the present v.
            carried = group["momentum"] * _tangent(_unit(param.to(g.dtype)), before) + g
            g = torch.where(moves[..., None], carried, before)
            state["momentum"] = g
        _move(param, moves, -group["lr"] * g)


class RiemannianAdam(_SphereOptimizer):
    """Riemannian Adam with a von Mises–Fisher prior, for directions v on the unit sphere.

    As `RiemannianSGD`, with a first moment a that projection carries from one tangent space to the
    next:

        g ← tangent part of ∂L/∂v − κ·μ
        a ← β₁·T(a) + (1 − β₁)·g    b ← β₂·b + (1 − β₂)·|g|², one number per row
        v ← retract(v, −η·â / (√b̂ + ε))

    Bécigneul and Ganea, Riemannian Adaptive Optimization Methods, ICLR 2019 (arXiv 1810.00760),
    without AMSGrad.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        kappa: float = 0.0,
        prior_direction: Tensor | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        check: bool = True,
    ) -> None:
        """Check the options and the parameters, as `RiemannianSGD` does.

        betas: β₁ and β₂ in [0, 1). The other options mean what they mean in `RiemannianSGD`.
        """
        defaults = {
            "lr": lr,
            "kappa": kappa,
            "prior_direction": prior_direction,
            "betas": betas,
            "eps": eps,
            "check": check,
        }
        super().__init__(params, defaults)

    def _step_param(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        moves, g = _tangent_gradient(param, grad, group)
        state = self.state[param]
        if not state:
            state["first_moment"] = torch.zeros_like(g)
            state["second_moment"] = torch.zeros_like(g[..., 0])
            state["steps"] = torch.zeros_like(moves, dtype=torch.int64)
        (beta1, beta2), steps = group["betas"], state["steps"]
        steps += moves
        # The first moment was tangent at the last v; projection carries it to the present v.
        carried = beta1 * _tangent(_unit(param.to(g.dtype)), state["first_moment"])
        carried = carried + (1 - beta1) * g
        first = state["first_moment"] = torch.where(
            moves[..., None], carried, state["first_moment"]
        )
        second = state["second_moment"] = torch.where(
            moves,
            beta2 * state["second_moment"] + (1 - beta2) * _norms(g) ** 2,
            state["second_moment"],
        )
        # Both averages start at 0; 1 − βⁿ corrects for that. Rows with n = 0 are left out below.
        count = steps.to(g.dtype)
        size = (second / (1 - beta2**count)).sqrt() + group["eps"]
        step = -group["lr"] * first / (1 - beta1**count)[..., None] / size[..., None]
        _move(param, moves, step)


def _tangent_gradient(param: Tensor, grad: Tensor, group: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return which rows the batch touched, and the tangent part of the posterior gradient.

    The gradient is in at least float32.
    """
    if group["check"]:
        check_vectors(grad, "the gradient")
        check_vectors(param, "a parameter")
        check_unit(param, "a parameter")
    g = grad.to(working_dtype(param))
    if group["kappa"] > 0:
        # log p(v) = κ·μᵀv + constant, so the loss −log p has the gradient −κ·μ.
        g = g - group["kappa"] * _unit(group["prior_direction"].to(g))
    # Rows are told apart by the data gradient: with the prior every row would move in every step.
    return grad.any(dim=-1), _tangent(_unit(param.to(g.dtype)), g)


def _move(param: Tensor, moves: Tensor, step: Tensor) -> None:
    """Retract the rows that move, in place. A choice, not an index: an index waits for the GPU."""
    there = _unit(_unit(param.to(step.dtype)) + step).to(param.dtype)
    param.copy_(torch.where(moves[..., None], there, param))


def _check_group(group: dict[str, Any]) -> None:
    for name, valid, expected in (
        ("lr", group["lr"] >= 0, "0 or more"),
        ("kappa", group["kappa"] >= 0, "0 or more"),
        ("beta", 0 <= group.get("beta", 0) < 1, "a number in [0, 1)"),
        ("betas", all(0 <= beta < 1 for beta in group.get("betas", ())), "two numbers in [0, 1)"),
        ("momentum", 0 <= group.get("momentum", 0) < 1, "a number in [0, 1)"),
        ("eps", group["eps"] >= 0, "0 or more"),
    ):
        if not valid:
            raise GeometryError(f"{name} is {group[name]}; expected {expected}.")
    prior = group["prior_direction"]
    if group["kappa"] > 0 and prior is None:
        raise GeometryError(
            f"kappa is {group['kappa']} but prior_direction is None; expected a unit vector. "
            "Pass the initialiser word's direction, or kappa=0."
        )
    if prior is not None:
        check_vectors(prior, "prior_direction")
        check_unit(prior, "prior_direction")
    for param in group["params"]:
        check_vectors(param, "a parameter")
        check_unit(param, "a parameter")
        if prior is not None:
            _check_prior_fits(param, prior)


def _check_prior_fits(param: Tensor, prior: Tensor) -> None:
    check_same_space(param, prior, "a parameter", "prior_direction")
    if torch.broadcast_shapes(param.shape, prior.shape) != param.shape:
        raise GeometryError(
            f"prior_direction has shape {tuple(prior.shape)}, more rows than the parameter's "
            f"{tuple(param.shape)}; expected one direction per row, or one for all."
        )
