"""Copies between the processor and a GPU that keep both at work.

A plain copy waits until the GPU has done all that was asked of it before. On a CPU nothing here
copies more than it must.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the processor on a device, without waiting for it."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # only from pinned memory does a copy run beside other work
    return tensor.to(device, non_blocking=True)


def fetched(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return float32 tensors of one device on the processor, by one copy. It waits once."""
    packed = torch.cat([tensor.detach().flatten() for tensor in tensors]).cpu()
    parts = packed.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
