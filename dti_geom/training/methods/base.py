"""How a token's vectors may learn: one entry of `METHODS` per method.

A method says in which form the vectors are held, which optimiser moves them, and what is done to them after each step.
Adding one is an entry; the loop, the checkpoints and the command line need not know.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import TrainingError
from dti_geom.geometry import NormSummary
from dti_geom.training.config import MethodConfig

Form = Literal["direction", "free", "normalized"]


@dataclass(frozen=True)
class Reference:
    """What a method may know of the vocabulary a token joins, for one tower."""

    norms: NormSummary  # of the token table's non-zero rows
    std: float  # of all entries of the table


MAGNITUDE_RATE = 5e-3  # of Adam on the logarithm of a learned magnitude

AfterStep = Callable[
    [Tensor, Tensor, float, Reference], Tensor
]  # vectors (n, d), m (n, 1), learning rate → vectors


@dataclass(frozen=True)
class Method:
    """One way to learn a token.

    form: "direction" holds e = m·v with v on the unit sphere, "free" holds e itself, "normalized" holds u and uses
    e = m·u/|u|. Weight decay and the pull act on what is held, the latter as pull·|e − start|² in the loss.
    """

    what: str
    form: Form
    optimizer: Literal["sphere", "adamw"] = "adamw"
    learning_rate: float | None = (
        0.02  # per update at batch 4; None: the model's rate for directions
    )
    magnitude: str | None = None  # None: the norm is free
    kappa: float = 0.0
    weight_decay: float = 1e-2
    pull: float = 0.0
    start: str = "word"
    after_step: AfterStep | None = None


def _project(e: Tensor, m: Tensor, _rate: float, _reference: Reference) -> Tensor:
    return m * geometry.normalize(e)


def _decay(e: Tensor, m: Tensor, rate: float, _reference: Reference) -> Tensor:
    norm = geometry.norms(e)[:, None]
    return geometry.normalize(e) * (norm + min(1.0, 100 * rate) * (m - norm))


def _match_std(e: Tensor, _m: Tensor, _rate: float, reference: Reference) -> Tensor:
    return e * (reference.std / e.std()) ** 0.1


METHODS: dict[str, Method] = {
    "dti": Method(
        "direction on the sphere by Riemannian SGD with a von Mises–Fisher prior, magnitude fixed (Kim et al., 2026)",
        "direction",
        optimizer="sphere",
        learning_rate=None,
        magnitude="mean",
        kappa=1e-4,
    ),
    "ti": Method("a free vector by AdamW (Gal et al., 2023)", "free"),
    "crossinit": Method(
        "TI that starts from the text encoder's output for the word, pulled toward it (Pang et al., 2024)",
        "free",
        pull=1e-5,
        start="output",
    ),
    "median-projection": Method(
        "TI, set to the vocabulary's median norm after each step",
        "free",
        magnitude="median",
        after_step=_project,
    ),
    "norm-decay": Method(
        "TI, its norm drawn toward 0.4 by min(1, 100·rate) after each step",
        "free",
        magnitude="0.4",
        after_step=_decay,
    ),
    "std-retraction": Method(
        "TI, scaled by (table's std / its std)^0.1 after each step", "free", after_step=_match_std
    ),
    "category-norm": Method(
        "e = m·u/|u| with the init word's norm, u by AdamW", "normalized", magnitude="init"
    ),
    "adamw-sphere": Method(
        "AdamW on the direction, projected back to the sphere after each step",
        "direction",
        magnitude="mean",
        after_step=lambda v, _m, _rate, _reference: geometry.normalize(v),
    ),
}

METHODS["dti-tuned"] = replace(
    METHODS["dti"],
    what="dti at the rate and κ that the bake-off found on the tuning concepts of mini (reports/bakeoff)",
    learning_rate=0.01,
    kappa=1e-2,
)


def method_named(name: str) -> Method:
    """The method of that name. Raises TrainingError, naming those there are."""
    if name not in METHODS:
        raise TrainingError(f"no method called '{name}'. Known: {', '.join(METHODS)}.")
    return METHODS[name]


class LearnedVectors:
    """The vectors of one token in one tower while they learn: float32 parameters and the optimisers that move them."""

    def __init__(
        self,
        start: Tensor,
        prior: Tensor,
        magnitude: Tensor | None,
        reference: Reference,
        config: MethodConfig,
    ) -> None:
        """start, prior: (n, d), not zero. magnitude: (n, 1), None for a free norm."""
        self.method = method = method_named(config.name)
        refuse_what_has_no_effect(config, method)
        self.reference = reference
        self.start = start.float()
        self.prior = geometry.normalize(prior.float())
        held = self.start if method.form != "direction" else geometry.normalize(self.start)
        self.held = held.clone().requires_grad_()
        self.magnitude = torch.ones(len(start), 1) if magnitude is None else magnitude.float()
        self.magnitude = self.magnitude.to(start.device)
        self.log_magnitude: Tensor | None = None
        if (
            config.magnitude == "learned"
        ):  # its logarithm learns, so that it stays positive and no retraction undoes it
            self.log_magnitude = self.magnitude.log().requires_grad_()
        self.optimizers = self._optimizers(config)

    def vectors(self) -> Tensor:
        """e, (n, d), float32, differentiable in the parameters."""
        magnitude = self.magnitude if self.log_magnitude is None else self.log_magnitude.exp()
        if self.method.form == "direction":
            return magnitude * self.held
        if self.method.form == "normalized":
            return magnitude * self.held / self.held.norm(dim=-1, keepdim=True)
        return self.held

    def parameters(self) -> list[Tensor]:
        """What learns."""
        return [self.held] if self.log_magnitude is None else [self.held, self.log_magnitude]

    def pull(self) -> Tensor:
        """The part of the loss that holds the vectors near their start; 0 for most methods."""
        return self.method.pull * (self.vectors() - self.start).square().sum()

    def step(self, share: float) -> None:
        """Move along the gradients, at `share` of the learning rate, and forget them."""
        for optimizer, rate in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * rate
            optimizer.step()
            optimizer.zero_grad()
        if self.method.after_step:
            rate = share * self.optimizers[0][1]
            with torch.no_grad():
                self.held.copy_(
                    self.method.after_step(self.held, self.magnitude, rate, self.reference)
                )

    def gradient_norms(self) -> Tensor:
        """(n,): norms of the loss's gradient in what is held."""
        return (
            torch.zeros(len(self.held))
            if self.held.grad is None
            else geometry.norms(self.held.grad)
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""
        state = {"held": self.held.detach()}
        if self.log_magnitude is not None:
            state["log_magnitude"] = self.log_magnitude.detach()
        for place, (optimizer, _) in enumerate(self.optimizers):
            for number, values in optimizer.state_dict()["state"].items():
                state |= {
                    f"optimizer{place}.{number}.{name}": value for name, value in values.items()
                }
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`, bit for bit."""
        with torch.no_grad():
            self.held.copy_(state["held"])
            if self.log_magnitude is not None:
                self.log_magnitude.copy_(state["log_magnitude"])
        for place, (optimizer, _) in enumerate(self.optimizers):
            whole = optimizer.state_dict()
            for key, value in state.items():
                if key.startswith(f"optimizer{place}."):
                    _, number, name = key.split(".")
                    whole["state"].setdefault(int(number), {})[name] = value.clone()
            optimizer.load_state_dict(whole)

    def _optimizers(self, config: MethodConfig) -> list[tuple[torch.optim.Optimizer, float]]:
        """Each with its learning rate."""
        method, rate = self.method, config.learning_rate
        assert rate is not None, "the model's default is filled in before"
        optimizer: torch.optim.Optimizer
        if method.optimizer == "adamw":
            decay = method.weight_decay if config.weight_decay is None else config.weight_decay
            optimizer = torch.optim.AdamW([self.held], lr=rate, weight_decay=decay)
        else:
            kappa = method.kappa if config.kappa is None else config.kappa
            if config.optimizer == "adam":
                optimizer = geometry.RiemannianAdam(
                    [self.held], lr=rate, kappa=kappa, prior_direction=self.prior
                )
            else:
                optimizer = geometry.RiemannianSGD(
                    [self.held],
                    lr=rate,
                    kappa=kappa,
                    prior_direction=self.prior,
                    beta=config.beta,
                    momentum=config.momentum,
                )
        optimizers: list[tuple[torch.optim.Optimizer, float]] = [(optimizer, rate)]
        if self.log_magnitude is not None:
            optimizers.append(
                (torch.optim.Adam([self.log_magnitude], lr=MAGNITUDE_RATE), MAGNITUDE_RATE)
            )
        return optimizers


def refuse_what_has_no_effect(config: MethodConfig, method: Method) -> None:
    """An option that this method would silently ignore is a mistake to be told of."""
    sphere, adamw = method.optimizer == "sphere", method.optimizer == "adamw"
    given = {
        "kappa": config.kappa is not None and not sphere,
        "beta": config.beta != 0 and not (sphere and config.optimizer == "sgd"),
        "optimizer": config.optimizer != "sgd" and not sphere,
        "momentum": config.momentum != 0 and not (sphere and config.optimizer == "sgd"),
        "weight_decay": config.weight_decay is not None and not adamw,
        "magnitude": config.magnitude is not None and method.magnitude is None,
        "magnitude learned": config.magnitude == "learned" and method.form == "free",
    }
    for name, wrong in given.items():
        if wrong:
            raise TrainingError(
                f"{name} has no effect on method '{config.name}' with optimizer '{config.optimizer}'."
            )
