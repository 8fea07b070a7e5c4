"""Stochastic gradient descent and Adam on the unit sphere."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dti_geom.errors import GeometryError
from dti_geom.geometry._checks import check_same_space, check_unit, check_vectors, working_dtype
from dti_geom.geometry.sphere import normalize, norms, project_tangent, retract


class _SphereOptimizer(torch.optim.Optimizer):
    """What both optimisers share: rows on the sphere, the prior, rows that rest, and state that survives exactly."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, checked as at construction."""
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
        """Step every row that has a gradient; returns the loss of `closure`, if one is given."""
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
        """Restore options and per-row state, so that the trajectory goes on bit for bit."""
        super().load_state_dict(state_dict)
        # torch casts float state to the parameter's dtype; a bfloat16 parameter would lose its float32 moments.
        saved_ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for saved_id, param in zip(saved_ids, params, strict=True):
            for name, value in state_dict["state"].get(saved_id, {}).items():
                self.state[param][name] = value.detach().clone().to(param.device)


class RiemannianSGD(_SphereOptimizer):
    """Riemannian SGD with a von Mises–Fisher prior, for directions v on the unit sphere.

    Parameters are tensors (..., d) whose rows are unit vectors; each row is stepped on its own:

        g ← ∂L/∂v − κ·μ             posterior gradient
        g ← g − (vᵀg)·v             tangent part
        s ← β·s + (1 − β)·|g|²      g ← g / (√ŝ + ε), ŝ = s / (1 − βⁿ) after n steps of this row
        g ← ρ·T(g₋) + g             with momentum ρ: T projects the last step's g₋ onto the tangent space at v
        v ← (v − η·g) / |v − η·g|   retraction

    With β = 0 every step turns a row by atan(η) radians, and the prior's pull relative to the data is κ/|∂L/∂v|.
    A row whose data gradient is None or exactly zero neither moves nor counts a step, prior or not.
    Computes in at least float32, but v itself is stored as given: a bfloat16 row loses steps below its rounding.

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
    ) -> None:
        """Check the options and that every row of every parameter is unit.

        params: tensors or parameter groups, as for any torch optimiser; every option may differ per group.
        lr: η ≥ 0, radians; kappa: κ ≥ 0; prior_direction: μ, unit, (d,) or anything that broadcasts to the parameter,
        needed when kappa > 0; beta, momentum: in [0, 1); eps: ≥ 0, in units of the gradient.
        """
        defaults = {
            "lr": lr,
            "kappa": kappa,
            "prior_direction": prior_direction,
            "beta": beta,
            "eps": eps,
            "momentum": momentum,
        }
        super().__init__(params, defaults)

    def _step_param(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        moves, g = _tangent_gradient(param, grad, group)
        state = self.state[param]
        if not state:
            state["second_moment"] = torch.zeros_like(g[..., 0])
            state["steps"] = torch.zeros_like(moves, dtype=torch.int64)
        beta = group["beta"]
        state["steps"] += moves
        state["second_moment"] = torch.where(
            moves,
            beta * state["second_moment"] + (1 - beta) * norms(g) ** 2,
            state["second_moment"],
        )
        # Rows that never moved have steps = 0, hence 0/0 here; they are left out below.
        corrected = state["second_moment"] / (1 - beta ** state["steps"].to(g.dtype))
        g = g / (corrected.sqrt() + group["eps"])[..., None]
        if group["momentum"] > 0:
            before = state.setdefault("momentum", torch.zeros_like(g))
            g = torch.where(
                moves[..., None], group["momentum"] * project_tangent(param, before) + g, before
            )
            state["momentum"] = g
        param[moves] = retract(param[moves], -group["lr"] * g[moves]).to(param.dtype)


class RiemannianAdam(_SphereOptimizer):
    """Adam for directions v on the unit sphere, with a von Mises–Fisher prior.

    As `RiemannianSGD`, with a first moment that is carried along from tangent space to tangent space by projection:

        g ← tangent part of ∂L/∂v − κ·μ
        a ← β₁·T(a) + (1 − β₁)·g    b ← β₂·b + (1 − β₂)·|g|², one number per row
        v ← retract(v, −η·â / (√b̂ + ε))

    Bécigneul and Ganea, Riemannian Adaptive Optimization Methods, ICLR 2019 (arXiv 1810.00760), without AMSGrad.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        kappa: float = 0.0,
        prior_direction: Tensor | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """Check the options and that every row of every parameter is unit; they mean what they do in RiemannianSGD."""
        defaults = {
            "lr": lr,
            "kappa": kappa,
            "prior_direction": prior_direction,
            "betas": betas,
            "eps": eps,
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
        carried = beta1 * project_tangent(param, state["first_moment"]) + (1 - beta1) * g
        first = state["first_moment"] = torch.where(
            moves[..., None], carried, state["first_moment"]
        )
        second = state["second_moment"] = torch.where(
            moves,
            beta2 * state["second_moment"] + (1 - beta2) * norms(g) ** 2,
            state["second_moment"],
        )
        count = steps.to(g.dtype)
        size = (second / (1 - beta2**count)).sqrt() + group["eps"]
        step = -group["lr"] * first / (1 - beta1**count)[..., None] / size[..., None]
        param[moves] = retract(param[moves], step[moves]).to(param.dtype)


def _tangent_gradient(param: Tensor, grad: Tensor, group: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Which rows a batch touched, and the tangent part of the posterior's gradient, in at least float32."""
    check_vectors(grad, "the gradient")
    g = grad.to(working_dtype(param))
    if group["kappa"] > 0:
        g = g - group["kappa"] * normalize(group["prior_direction"].to(g))
    return grad.any(dim=-1), project_tangent(param, g)


def _check_group(group: dict[str, Any]) -> None:
    for name, holds, wanted in (
        ("lr", group["lr"] >= 0, "0 or more"),
        ("kappa", group["kappa"] >= 0, "0 or more"),
        ("beta", 0 <= group.get("beta", 0) < 1, "a number in [0, 1)"),
        ("betas", all(0 <= beta < 1 for beta in group.get("betas", ())), "two numbers in [0, 1)"),
        ("momentum", 0 <= group.get("momentum", 0) < 1, "a number in [0, 1)"),
        ("eps", group["eps"] >= 0, "0 or more"),
    ):
        if not holds:
            raise GeometryError(f"{name} is {group[name]}; expected {wanted}.")
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
            check_same_space(param, prior, "a parameter", "prior_direction")
            if torch.broadcast_shapes(param.shape, prior.shape) != param.shape:
                raise GeometryError(
                    f"prior_direction has shape {tuple(prior.shape)}, more rows than the parameter's "
                    f"{tuple(param.shape)}; expected one direction per row, or one for all."
                )
