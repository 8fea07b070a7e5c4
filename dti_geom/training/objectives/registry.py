"""The objectives by name. Adding one takes a file beside this one and a line here.

An objective is a function (model, batch, *, min_snr, options) → {name of a loss: (n,) values}, free
of side effects. A run names those that it minimises, or takes `Method.objectives`; the losses are
added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dti_geom.errors import TrainingError, nearest_name
from dti_geom.models.pipelines import TextToImage
from dti_geom.training.config import ObjectiveConfig, RunConfig
from dti_geom.training.data import Batch
from dti_geom.training.objectives.context import context
from dti_geom.training.objectives.dco import dco
from dti_geom.training.objectives.denoising import denoising
from dti_geom.training.objectives.prior_preservation import prior_preservation
from dti_geom.training.objectives.separation import separation


class Compute(Protocol):
    """A function from a batch to named losses, each (n,), one value per sample."""

    def __call__(
        self,
        model: TextToImage,
        batch: Batch,
        *,
        min_snr: float | None = None,
        options: ObjectiveConfig = ObjectiveConfig(),  # noqa: B008
    ) -> dict[str, Tensor]:
        """Return the losses of a batch."""


@dataclass(frozen=True)
class Objective:
    """An objective, and what it needs of a run.

    of_images: whether it reads the training images; every run needs one that does, and no two.
    adapter: whether there must be one. token: whether one must learn. tokens: how many must.
    prior: whether it reads images of the class.
    """

    compute: Compute
    of_images: bool = False
    adapter: bool = False
    token: bool = False
    tokens: int = 1
    prior: bool = False


OBJECTIVES: dict[str, Objective] = {
    "denoising": Objective(denoising, of_images=True),
    "dco": Objective(dco, of_images=True, adapter=True),
    "prior-preservation": Objective(prior_preservation, adapter=True, prior=True),
    "context": Objective(context, token=True),
    "separation": Objective(separation, token=True, tokens=2),
}


def objectives_of(config: RunConfig, own: Sequence[str], *, token_learns: bool) -> tuple[str, ...]:
    """Return the names of what a run minimises.

    own: the method's, for a run that names none. Raises TrainingError for an unknown name and for
    a combination that makes no sense.
    """
    names = tuple(own if config.objective.names is None else config.objective.names)
    for name in names:
        if name not in OBJECTIVES:
            raise TrainingError(
                f"no objective called '{name}'.{nearest_name(name, OBJECTIVES)} Known: "
                f"{', '.join(OBJECTIVES)}."
            )
        _refuse_without_needs(name, config, token_learns)
    if len(set(names)) < len(names):
        raise TrainingError(f"objectives are {', '.join(names)}; expected each once.")
    readers = [name for name in names if OBJECTIVES[name].of_images]
    known = " or ".join(name for name in OBJECTIVES if OBJECTIVES[name].of_images)
    if len(readers) != 1:
        found = ", ".join(readers) or "none of them"
        raise TrainingError(
            f"{found} would learn from the images; expected one of {known}, which measure the same "
            "error. Name one of them, and others beside it."
        )
    return names


def _refuse_without_needs(name: str, config: RunConfig, token_learns: bool) -> None:
    needs, tokens = OBJECTIVES[name], len(config.concepts)
    if needs.adapter and config.adapter is None:
        raise TrainingError(
            f"{name} has no effect without an adapter: nothing but a token learns. Add --adapter "
            "lora, or leave it out."
        )
    if needs.token and not token_learns:
        raise TrainingError(
            f"{name} has no effect on a token that does not learn. Choose another method."
        )
    if tokens < needs.tokens:
        raise TrainingError(
            f"{name} needs {needs.tokens} tokens that learn in one run; this one has {tokens}. "
            "Name several with --concept."
        )
