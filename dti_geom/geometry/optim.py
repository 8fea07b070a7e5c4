"""Stochastic gradient descent on the unit sphere."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dti_geom.errors import GeometryError
from dti_geom.geometry._checks import check_same_space, check_unit, check_vectors, working_dtype
from dti_geom.geometry.sphere import normalize, norms, project_tangent, retract


class RiemannianSGD(torch.optim.Optimizer):
    """Riemannian SGD with a von Mises–Fisher prior, for directions v on the unit sphere.

    Parameters are tensors (..., d) whose rows are unit vectors; each row is stepped on its own:

        g ← ∂L/∂v − κ·μ             posterior gradient
        g ← g − (vᵀg)·v             tangent part
        s ← β·s + (1 − β)·|g|²      g ← g / (√ŝ + ε), ŝ = s / (1 − βⁿ) after n steps of this row
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
    ) -> None:
        """Check the options and that every row of every parameter is unit.

        params: tensors or parameter groups, as for any torch optimiser; every option may differ per group.
        lr: η ≥ 0, radians; kappa: κ ≥ 0; prior_direction: μ, unit, (d,) or anything that broadcasts to the parameter,
        needed when kappa > 0; beta: in [0, 1); eps: ≥ 0, in units of the gradient.
        """
        defaults = {"lr": lr, "kappa": kappa, "prior_direction": prior_direction, "beta": beta, "eps": eps}
        super().__init__(params, defaults)

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
        check_vectors(grad, "the gradient")
        moves = grad.any(dim=-1)
        g = grad.to(working_dtype(param))
        if group["kappa"] > 0:
            g = g - group["kappa"] * normalize(group["prior_direction"].to(g))
        g = project_tangent(param, g)

        state = self.state[param]
        if not state:
            state["second_moment"] = torch.zeros_like(g[..., 0])
            state["steps"] = torch.zeros_like(moves, dtype=torch.int64)
        beta = group["beta"]
        state["steps"] += moves
        state["second_moment"] = torch.where(
            moves, beta * state["second_moment"] + (1 - beta) * norms(g) ** 2, state["second_moment"]
        )
        # Rows that never moved have steps = 0, hence 0/0 here; they are left out below.
        corrected = state["second_moment"] / (1 - beta ** state["steps"].to(g.dtype))
        step = -group["lr"] * g / (corrected.sqrt() + group["eps"])[..., None]
        param[moves] = retract(param[moves], step[moves]).to(param.dtype)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore options and per-row state, so that the trajectory goes on bit for bit."""
        super().load_state_dict(state_dict)
        # torch casts float state to the parameter's dtype; a bfloat16 parameter would lose its float32 moments.
        saved_ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for saved_id, param in zip(saved_ids, params, strict=True):
            for name, value in state_dict["state"].get(saved_id, {}).items():
                self.state[param][name] = value.detach().clone().to(param.device)


def _check_group(group: dict[str, Any]) -> None:
    for name, holds, wanted in (
        ("lr", group["lr"] >= 0, "0 or more"),
        ("kappa", group["kappa"] >= 0, "0 or more"),
        ("beta", 0 <= group["beta"] < 1, "a number in [0, 1)"),
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
