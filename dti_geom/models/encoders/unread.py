"""Blocks and heads of a text encoder whose results nobody reads, taken out of it.

FLUX.2-klein reads the states behind blocks 9, 18 and 27 of Qwen3's 36. The last nine, and the head
that turns each state into scores of 151,936 words, only take memory and time.
"""

from functools import cache
from typing import Any

from torch import Tensor, nn

from dti_geom.models.encoders.base import Tap
from dti_geom.models.encoders.registry import architecture_of
from dti_geom.models.encoders.stored import find_layers


def leave_out_unread(module: nn.Module, tap: Tap) -> None:
    """Empty the blocks behind the last one that `tap` names, and the head over the vocabulary.

    An empty block returns the state it is given, so hidden states keep their numbers, and those up
    to the last one read keep their bytes. Later ones repeat it. Works in place.
    """
    config: Any = module.config
    architecture = architecture_of(config.to_dict(), type(module).__name__)
    layers = find_layers(module, architecture)
    for layer in layers[len(layers) - tap.unread :]:
        _empty(layer)
    encoder: Any = module
    if encoder.get_output_embeddings() is not None:
        encoder.set_output_embeddings(nn.Identity())


def _empty(layer: nn.Module) -> None:
    """Let a block return its input, and release its parameters."""
    if isinstance(layer, _Empty):
        return
    layer.__class__ = _empty_class(type(layer))  # type: ignore[arg-type]  # classes hash
    layer._modules.clear()


class _Empty:
    """A block that returns its input."""

    def forward(self, hidden_states: Tensor, *_args: Any, **_options: Any) -> Tensor:
        return hidden_states


@cache
def _empty_class(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass, since transformers records the states of blocks by their class."""
    return type(f"Empty{kind.__name__}", (_Empty, kind), {})
