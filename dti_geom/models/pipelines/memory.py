"""How a model spends the memory of its device.

fast: every part stays on the device, and the forward pass keeps what the backward pass needs.
low: the forward pass keeps the states between blocks alone, and the backward pass computes each
block again; denoiser and text encoders leave the device while the autoencoder works, and pictures
are painted one by one. Losses, gradients and pictures are the same.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dti_geom.models.pipelines.base import TextToImage

MEMORY = ("fast", "low")


def spend_memory(model: TextToImage, memory: str) -> None:
    """Set how a model spends memory from now on: one of `MEMORY`."""
    low = memory == "low"
    model.low_memory = low
    own = [*model.recomputed_blocks()]
    for block in own:
        _recompute(block, low)
    if low and not own:
        model.denoiser.enable_gradient_checkpointing(_recomputed)
    else:
        model.denoiser.disable_gradient_checkpointing()
    for tower in model.towers:
        for layer in _layers(tower.module):
            _recompute(layer, low)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a text encoder that transformers itself would compute again."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return (layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer))


def _recompute(layer: nn.Module, wanted: bool) -> None:
    """Let a layer's backward pass compute the layer again, or no longer.

    transformers does so in training mode alone, where it would also drop out and lose the cache.
    A cache that is passed in must not grow: the layer is called twice.
    """
    layer.__dict__.pop("forward", None)
    if not wanted:
        return
    forward = layer.forward

    def forward_or_recomputed(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return _recomputed(forward, *args, **kwargs)

    layer.__dict__["forward"] = forward_or_recomputed


def _recomputed(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function and keep its arguments alone for the backward pass."""
    # Frozen models in evaluation mode draw no random numbers.
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
