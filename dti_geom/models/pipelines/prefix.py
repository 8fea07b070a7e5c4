"""Prompts that begin with the same tokens, which a causal text encoder reads once.

A template or an instruction before a prompt does not change with it, and in a causal encoder no
later token changes what the encoder makes of it.
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dti_geom.models.encoders.base import Tap
from dti_geom.models.pipelines.base import Tower
from dti_geom.models.transfer import sent


class _Prefix(NamedTuple):
    """Tokens that stand before every prompt, as the text encoder has read them."""

    key: object  # the tokens, and where and in which dtype they were read
    states: Tensor  # (1, s, d)
    cache: Any  # keys and values of transformers, which reading on does not change


class PrefixReader:
    """Read rows of tokens with a tower's causal encoder, and what begins them all only once."""

    def __init__(self, tower: Tower, tap: Tap) -> None:
        """Read nothing yet. tap: of one block."""
        self._tower, self._tap = tower, tap
        self._known: _Prefix | None = None

    def read(self, rows: Sequence[list[int]], shared: int, kept: int) -> tuple[Tensor, Tensor]:
        """Return states and mask of rows of tokens, (n, s, d) and (n, s), s of the longest row.

        shared: how many tokens begin every row. kept: of how many of these the states are wanted;
        the others are left out of both. Padding stands behind the tokens.
        """
        before = rows[0][:shared]
        known = [row[:shared] == before for row in rows]
        # A learned token in the prefix gets gradients there; then all is read each time.
        if before and all(known) and set(self._tower.learned_ids()).isdisjoint(before):
            return self._read_on([row[shared:] for row in rows], before, kept)
        ids, mask = self._padded(rows)
        states = self._states(ids, attention_mask=mask, use_cache=False)
        seen = [*range(kept), *range(shared, states.shape[1])]
        return states[:, seen], mask[:, seen]

    def _read_on(
        self, rows: Sequence[list[int]], before: list[int], kept: int
    ) -> tuple[Tensor, Tensor]:
        """Return states and mask of rows that follow `before`, whose first `kept` come first."""
        ids, mask = self._padded(rows)
        prefix = self._prefix(before)
        attended = torch.cat([mask.new_ones(len(rows), len(before)), mask], dim=1)
        states = self._states(ids, attention_mask=attended, past_key_values=prefix.cache)
        first = prefix.states[:, :kept].expand(len(rows), -1, -1)
        return torch.cat([first, states], dim=1), attended[:, len(before) - kept :]

    def _padded(self, rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Return tokens and mask of rows of different lengths, (n, s) each."""
        width = max(1, *(len(row) for row in rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        device = self._tower.token_table.device
        return sent(ids, device), sent(mask, device)

    @torch.no_grad()
    def _prefix(self, tokens: list[int]) -> _Prefix:
        """Return what the encoder makes of tokens that no gradient reaches; the last is kept."""
        from transformers import DynamicCache

        encoder: Any = self._tower.module
        device = self._tower.token_table.device
        key = (tokens, device, encoder.dtype)
        if self._known is None or self._known.key != key:
            cache: Any = DynamicCache(config=encoder.config)
            ids = torch.tensor([tokens], device=device)
            states = self._states(ids, past_key_values=cache, use_cache=True)
            cache.update = partial(_joined, cache.layers)
            self._known = _Prefix(key, states.clone(), cache)
        return self._known

    def _states(self, ids: Tensor, **options: Any) -> Tensor:
        """Return the states that the tap names, (n, s, d)."""
        encoder: Any = self._tower.module
        if self._tap.final_norm and encoder.get_output_embeddings() is None:
            last: Tensor = encoder(ids, **options)[0]
            return last
        states = encoder(ids, output_hidden_states=True, **options).hidden_states
        (block,) = self._tap.blocks_from_end
        tapped: Tensor = states[-1 - block]
        return tapped


def _joined(
    layers: Sequence[Any], keys: Tensor, values: Tensor, layer: int
) -> tuple[Tensor, Tensor]:
    """Return a cached layer's keys and values with new ones behind them.

    Takes the place of a cache's `update`. The cache stays as it is: for the next prompts, and for
    checkpointing, which computes a layer twice.
    """
    joined = copy.copy(layers[layer])
    joined.keys = joined.keys.expand(len(keys), -1, -1, -1)
    joined.values = joined.values.expand(len(values), -1, -1, -1)
    return joined.update(keys, values)  # type: ignore[no-any-return]
