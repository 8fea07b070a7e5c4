"""What is known of an encoder architecture, and the small interface every text encoder has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from dti_geom.models.vocabulary import Vocabulary

Normalization = Literal["layer_norm", "rms_norm"]
Positions = Literal["absolute", "rotary", "partly rotary", "relative"]
BranchKind = Literal["attention", "mlp"]


@dataclass(frozen=True)
class BranchPath:
    """Where one residual update x ← x + f(N(x)) lives inside a block."""

    kind: BranchKind
    norm: str  # N: its input is the state x
    function: str  # the attention or MLP module
    # The module whose output is added; None: `function`. Gemma-2 normalises the update again.
    output: str | None = None


@dataclass(frozen=True)
class Architecture:
    """One encoder architecture.

    Tables are named by the *ending* of their name in a weight file: the same module is saved with
    and without its wrapper's prefix (`text_model.embeddings…`, `embeddings…`).
    """

    name: str
    model_types: tuple[str, ...]  # `model_type` of config.json
    # Class of transformers, or a function of config.json that returns its name.
    module_class: str | Callable[[Mapping[str, Any]], str]
    token_table: tuple[str, ...]
    position_table: tuple[str, ...]
    positions: Positions
    normalization: Normalization
    blocks: str  # ending of the block list's module path
    branches: tuple[BranchPath, ...]  # empty: the blocks are not pre-norm
    # Of config.json, for the class to open the encoder alone.
    settings: Mapping[str, Any] = field(default_factory=dict)
    speaks: bool = False  # whether it is a causal language model, whose output gives next tokens
    position_offset: int = 0  # first row of the position table that a token can have (RoBERTa: 2)

    @property
    def pre_norm(self) -> bool:
        """Whether each block normalises its input and adds its output to the state."""
        return bool(self.branches)

    def module_class_for(self, config: Mapping[str, Any]) -> str:
        """Return the transformers class that opens an encoder with this config.json."""
        return (
            self.module_class if isinstance(self.module_class, str) else self.module_class(config)
        )


@dataclass(frozen=True)
class Tap:
    """Which hidden states of an encoder a denoiser reads.

    blocks_from_end: 0 is the output of the last block, 1 of the one before. The states of several
    blocks are joined along the features, in this order.
    final_norm: whether the encoder's final normalisation is applied; only to the last block.
    """

    blocks_from_end: tuple[int, ...] = (0,)
    final_norm: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError for a final norm on an earlier block."""
        if self.final_norm and self.blocks_from_end != (0,):
            raise ValueError("an encoder applies its final norm to its last block alone.")

    @property
    def unread(self) -> int:
        """How many of the last blocks have no effect on what is read."""
        return min(self.blocks_from_end)


@dataclass(frozen=True)
class Branch:
    """One residual update x ← x + f(N(x)) of a pre-norm block, as the model's own modules."""

    kind: BranchKind
    norm: nn.Module  # N; its input is the state x
    function: nn.Module  # attention or MLP
    output: nn.Module  # its output is added to x; some return it as the first of a tuple


@dataclass(frozen=True)
class Block:
    """A pre-norm block: its module and its branches in the order they act."""

    module: nn.Module
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class HiddenStates:
    """States of a batch of prompts inside an encoder.

    states: x_0 … x_L, each (batch, length, d): the residual stream before and after each block.
    last: (batch, length, d), the encoder's output, after its final normalisation if it has one.
    attention: per layer, where asked for: (batch, heads, length, length); rows sum to 1.
    """

    states: tuple[Tensor, ...]
    last: Tensor
    attention: tuple[Tensor, ...] = ()
    tap: Tap = Tap()

    @property
    def read(self) -> Tensor:
        """What the denoiser reads: (batch, length, d), or wider where it reads several blocks."""
        if self.tap.final_norm:
            return self.last
        parts = [self.states[-1 - number] for number in self.tap.blocks_from_end]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    @property
    def read_name(self) -> str:
        """Name what the denoiser reads, such as "block 11 of 12, before the final norm"."""
        blocks = len(self.states) - 1
        numbers = [str(blocks - number) for number in self.tap.blocks_from_end]
        which = f"block {numbers[0]}" if len(numbers) == 1 else f"blocks {', '.join(numbers)}"
        if self.tap.final_norm and torch.equal(self.last, self.states[-1]):
            return f"{which} of {blocks}; there is no final norm"
        place = "after" if self.tap.final_norm else "before"
        return f"{which} of {blocks}, {place} the final norm"


class TextEncoder(Protocol):
    """All that a probe may use of an encoder; a few lines can fake it."""

    name: str

    @property
    def vocabulary(self) -> Vocabulary:
        """The names of the token table's rows."""
        ...

    @property
    def token_table(self) -> Tensor:
        """(V, d): one row per token, as stored."""
        ...

    @property
    def position_table(self) -> Tensor | None:
        """(L, d): what is added at each position; None for rotary and relative positions."""
        ...

    @property
    def normalization(self) -> Normalization:
        """Which normalisation the blocks use."""
        ...

    @property
    def positions(self) -> Positions:
        """How the encoder represents positions."""
        ...

    @property
    def tap(self) -> Tap:
        """Which hidden states the denoiser reads; of an encoder alone, its output."""
        ...

    @property
    def blocks(self) -> Sequence[Block]:
        """The pre-norm blocks. Raises DoesNotApply for a post-norm encoder."""
        ...

    def logits(self, last: Tensor) -> Tensor:
        """Return what a language model gives next tokens. Raises DoesNotApply for others."""
        ...

    def hidden_states(
        self,
        input_ids: Tensor,
        embeddings: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        attention: bool = False,
        gradient: bool = False,
    ) -> HiddenStates:
        """Return the states of a batch of prompts.

        input_ids: (batch, length). embeddings: (batch, length, d), used in place of the rows that
        `input_ids` would look up. gradient: keep what a backward pass to `embeddings` needs.
        """
        ...


def read_blocks(encoder: TextEncoder) -> Sequence[Block]:
    """Return the blocks up to the last one that the denoiser reads.

    Raises DoesNotApply for a post-norm encoder.
    """
    blocks = encoder.blocks
    return blocks[: len(blocks) - encoder.tap.unread]
