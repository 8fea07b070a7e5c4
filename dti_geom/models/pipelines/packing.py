"""Latents as a row of patches, as the transformers of FLUX.1 and its relatives take them.

A patch is 2×2 latents; its numbers are ordered channel, row, column.
"""

import torch
from torch import Tensor


def pack(latents: Tensor) -> Tensor:
    """Return the patches of latents: (n, c, h, w) to (n, h/2 · w/2, 4c). h and w are even."""
    patches = torch.nn.functional.pixel_unshuffle(latents, 2)
    return patches.flatten(2).transpose(1, 2)


def unpack(patches: Tensor, height: int, width: int) -> Tensor:
    """Undo `pack`. height, width: of the latents."""
    rows = patches.transpose(1, 2).unflatten(2, (height // 2, width // 2))
    # In the memory layout of an autoencoder's own latents: another one rounds otherwise.
    return torch.nn.functional.pixel_shuffle(rows, 2).contiguous()


def positions(height: int, width: int, device: torch.device) -> Tensor:
    """Return (h/2 · w/2, 3): zero, row and column of each patch of latents of that size."""
    rows, columns = torch.meshgrid(
        torch.arange(height // 2, device=device, dtype=torch.float32),
        torch.arange(width // 2, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)
