"""What a training method is, and the options that a run may set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from dti_geom.errors import TrainingError
from dti_geom.geometry import NormSummary
from dti_geom.models.pipelines import TrainingDefaults
from dti_geom.training.config import MethodConfig

DEFAULTS = TrainingDefaults()

Form = Literal["direction", "free", "normalized"]


@dataclass(frozen=True)
class VocabularyStats:
    """What a method may know about the vocabulary that a token joins, for one text tower."""

    norms: NormSummary  # of the token table's rows that are not zero
    std: float  # of all entries of the table


class Step(NamedTuple):
    """What a method knows after an update."""

    magnitude: Tensor  # (n, 1)
    rate: float  # the learning rate of this update
    strength: float  # of the method; 0 where it has none
    stats: VocabularyStats


AfterStep = Callable[[Tensor, Step], Tensor]  # parameters (n, d) → parameters (n, d)


@dataclass(frozen=True)
class Method:
    """One way to learn a token, with its own value for every option of a run.

    form: how a vector e is parametrised. "direction": e = m·v with v on the unit sphere.
        "free": e itself. "normalized": e = m·u/|u|.
    optimizer: "sphere" moves v along the unit sphere, "adamw" moves the parameters freely.
    learning_rate, kappa, weight_decay: None takes the model's own, see `TrainingDefaults`.
    magnitude: see `dti_geom.models.magnitude`; None leaves the norm free.
    strength: how hard the method holds the token, where it has a number for that; its file says
        of what. None where it has none.
    pull: adds strength·mean((e − start)²), over all numbers of a tower's vectors, to the loss.
    after_step: changes the parameters after each update.
    objectives: names from `dti_geom.training.objectives`, whose losses are added.
    """

    name: str
    summary: str
    form: Form
    optimizer: Literal["sphere", "adamw"] = "adamw"
    learning_rate: float | None = None
    magnitude: str | None = None
    kappa: float | None = None  # strength of the prior, for "sphere"
    weight_decay: float | None = None  # of the parameters, for "adamw"
    strength: float | None = None
    pull: bool = False
    start: str = "word"
    after_step: AfterStep | None = None
    objectives: tuple[str, ...] = ("denoising",)
    beta: float = 0.0  # for "sphere" with sgd
    sphere_optimizer: str = "sgd"
    momentum: float = 0.0  # for "sphere" with sgd
    schedule: str = "constant"
    warmup: int = 0
    average_last: int = 0
    learns: bool = True  # False: the token stays at its start, and an adapter learns


@dataclass(frozen=True)
class Settings:
    """A method with the value of every option: the run's where it gives one, else the method's."""

    method: Method
    learning_rate: float
    magnitude: str | None
    kappa: float
    weight_decay: float
    strength: float  # 0 where the method has none
    beta: float
    optimizer: str  # on the sphere
    momentum: float
    schedule: str
    warmup: int
    average_last: int


def decide(method: Method, config: MethodConfig, defaults: TrainingDefaults = DEFAULTS) -> Settings:
    """Return the value of every option of a method.

    defaults: the model's, for options that neither the run nor the method decides.
    Raises TrainingError for an option that has no effect on this method.
    """
    on_sphere = method.optimizer == "sphere"
    rate = defaults.direction_rate if on_sphere else defaults.vector_rate
    settings = Settings(
        method=method,
        learning_rate=_first(config.learning_rate, method.learning_rate, rate),
        magnitude=config.magnitude or method.magnitude,
        kappa=_first(config.kappa, method.kappa, defaults.kappa),
        weight_decay=_first(config.weight_decay, method.weight_decay, defaults.weight_decay),
        strength=_first(config.strength, method.strength, 0.0),
        beta=_first(config.beta, method.beta),
        optimizer=config.optimizer or method.sphere_optimizer,
        momentum=_first(config.momentum, method.momentum),
        schedule=config.schedule or method.schedule,
        warmup=int(_first(config.warmup, method.warmup)),
        average_last=int(_first(config.average_last, method.average_last)),
    )
    _refuse_without_effect(settings, config)
    return settings


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _refuse_without_effect(settings: Settings, config: MethodConfig) -> None:
    """Raise TrainingError for an option that the method would ignore.

    A value equal to the method's own passes: a saved configuration names every option.
    """
    method = settings.method
    on_sphere = method.optimizer == "sphere"
    by_sgd = on_sphere and settings.optimizer == "sgd"
    ignored = {
        "kappa": config.kappa is not None and not on_sphere,
        "beta": settings.beta != method.beta and not by_sgd,
        "optimizer": settings.optimizer != method.sphere_optimizer and not on_sphere,
        "momentum": settings.momentum != method.momentum and not by_sgd,
        "weight_decay": config.weight_decay is not None and on_sphere,
        "weight_decay of a fixed token": bool(config.weight_decay) and not method.learns,
        "strength": config.strength is not None and method.strength is None,
        "magnitude": config.magnitude is not None and method.magnitude is None,
        "learning_rate": bool(config.learning_rate) and not method.learns,
        "magnitude learned": config.magnitude == "learned" and method.form == "free",
    }
    for option, has_no_effect in ignored.items():
        if has_no_effect:
            raise TrainingError(
                f"{option} has no effect on method '{method.name}' with optimizer "
                f"'{settings.optimizer}'. Leave it out, or choose another method."
            )
