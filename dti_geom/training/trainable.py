"""What the training loop knows about the thing it trains.

`TokenVectors` is a trainable: the vectors of one token in all text towers of a model.
`AdapterTraining` is another. The loop, checkpoints and results use this interface.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from dti_geom.models.pipelines import TextToImage
from dti_geom.training.config import ConceptConfig, MethodConfig

Values = dict[str, Tensor]  # what was learned, by part; for a token its vectors by tower


@dataclass(frozen=True)
class VectorRecord:
    """One vector after a step; geometry in embedding units and radians."""

    token: str
    tower: str
    index: int  # among the token's vectors
    norm: float
    angle_to_start: float
    cosine_to_prior: float
    gradient_norm: float  # of the loss, in the parameters
    nearest: tuple[str, ...] = ()  # words by direction, nearest first; looked up now and then


@dataclass(frozen=True)
class AdapterRecord:
    """An adapter after a step."""

    norm: float  # of its change of the adapted weights, relative to the norm of these weights
    gradient_norm: float  # of the loss, in its parameters; 0 before it begins to learn


@dataclass(frozen=True)
class LearnedVectorResult:
    """One vector as a run leaves it; geometry in embedding units and radians."""

    token: str
    tower: str
    index: int
    norm: float
    inflation: float  # norm / mean norm of the vocabulary's non-zero rows
    angle_to_start: float
    cosine_to_prior: float
    nearest: tuple[str, ...]  # by direction, nearest first


class Trainable(Protocol):
    """Parameters that learn one concept, and everything that belongs to them.

    Parameters are float32. `values` returns copies, which later steps do not change; `state` may
    return the live tensors.
    """

    def parameters(self) -> list[Tensor]:
        """Return what the optimisers move; each gets its gradient from the loss."""

    def place(self, model: TextToImage, *, differentiable: bool) -> None:
        """Put the current values into the model. Gradients reach them if `differentiable`."""

    def penalty(self) -> Tensor | None:
        """Return a scalar to add to the loss, or None for no penalty."""

    def step(self, share: float) -> None:
        """Move along the gradients at `share` of the learning rate, and clear them."""

    def values(self) -> Values:
        """Return what is learned so far, detached and on the CPU."""

    def average(self, recent: Sequence[Values]) -> Values:
        """Return the average of the values after several updates."""

    def place_values(self, model: TextToImage, values: Values) -> None:
        """Put these values into the model, to paint with them."""

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned, bit for bit."""

    def save(self, folder: Path, values: Values, metadata: Mapping[str, str]) -> None:
        """Write values as files that other tools load, replacing earlier ones."""

    def figures(self) -> list[Tensor]:
        """Return, where they are, the float32 tensors that `records` needs after a step."""

    def records(self, figures: Sequence[Tensor], *, nearest: bool) -> tuple[VectorRecord, ...]:
        """Describe the vectors after a step; () for a trainable without vectors.

        figures: on the CPU. nearest: also look up the nearest words, which is slow.
        """

    def results(self, values: Values) -> tuple[LearnedVectorResult, ...]:
        """Describe final vectors; () for a trainable without vectors."""


# Builds the trainable of one concept. Arguments: model, concept, method, seed.
Build = Callable[[TextToImage, ConceptConfig, MethodConfig, int], Trainable]
