"""Reward guidance (Lee et al., 2024): how far an adapter may lead away from the frozen model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from dti_geom.errors import DoesNotApply
from dti_geom.models.adapters import AdapterLayers


@contextmanager
def reward_guided(
    denoiser: Any, adapter: AdapterLayers, reward: float, *, guidance: float, prompts: int
) -> Iterator[None]:
    """Let the sampler inside follow ε∅ + w(ε_c − ε∅) + r(ε_adapter − ε_c).

    ε∅ and ε_c are the frozen model's answers without and with the prompt, ε_adapter is the
    adapter's with it. denoiser: as the pipeline calls it, with the rows without the prompt before
    those with it, or with these alone where w = `guidance` is 1 or less. reward: r. prompts: their
    number. Every call of the denoiser becomes two.
    """
    inner = denoiser.forward
    # The sampler multiplies the difference of the two answers by w.
    share = reward / guidance if guidance > 1 else reward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with adapter.without():
            plain = inner(*args, **kwargs)
        (answer, *others), adapted = plain, inner(*args, **kwargs)[0]
        conditioned = _conditioned(answer, prompts, guidance)
        answer[conditioned] += share * (adapted[conditioned] - answer[conditioned])
        return (answer, *others)

    denoiser.__dict__["forward"] = forward
    try:
        yield
    finally:
        del denoiser.__dict__["forward"]


def _conditioned(answer: Tensor, prompts: int, guidance: float) -> slice:
    """Return the rows that have the prompt."""
    if len(answer) != (2 * prompts if guidance > 1 else prompts):
        raise DoesNotApply(
            f"the pipeline asks its denoiser for {len(answer)} answers to {prompts} prompts at "
            f"guidance {guidance:g}; reward guidance needs those with and without the prompt at "
            "once. Leave --reward out."
        )
    return slice(len(answer) - prompts, None)
