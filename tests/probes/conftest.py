from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dti_geom.files import EmbeddingFile, LearnedToken
from dti_geom.models import Block, Branch, HiddenStates, Vocabulary
from dti_geom.models.encoders.base import Tap


class FakeEncoder:
    """All a geometry probe asks for: a name, a vocabulary and a token table."""

    name = "fake"

    def __init__(self, token_table: Tensor) -> None:
        self.token_table = token_table
        self.vocabulary = Vocabulary(None, len(token_table))


class TinyEncoder:
    """A pre-norm encoder of given parts: x ← x + function(norm(x)) for each pair.

    The first x is embeddings + positions.
    """

    name = "tiny"
    positions = "absolute"
    normalization = "layer_norm"
    tap = Tap()

    def __init__(
        self,
        token_table: Tensor,
        position_table: Tensor,
        branches: Sequence[tuple[nn.Module, nn.Module]],
    ) -> None:
        self.token_table, self.position_table = token_table, position_table
        self.vocabulary = Vocabulary(None, len(token_table))
        self.blocks = [
            Block(function, (Branch("mlp", norm, function, function),))
            for norm, function in branches
        ]

    def hidden_states(
        self,
        input_ids: Any,
        embeddings: Any = None,
        attention_mask: Any = None,
        *,
        attention: Any = False,
    ) -> HiddenStates:
        rows = (
            self.token_table[input_ids] if embeddings is None else embeddings.to(self.token_table)
        )
        states = [rows + self.position_table[: rows.shape[1]]]
        for block in self.blocks:
            (branch,) = block.branches
            states.append(states[-1] + branch.function(branch.norm(states[-1])))
        return HiddenStates(tuple(states), states[-1])


@pytest.fixture
def tiny_encoder() -> type[TinyEncoder]:
    return TinyEncoder


@pytest.fixture(scope="session")
def orthonormal() -> Tensor:
    """15 orthonormal vectors of width 16 without mean: LayerNorm and RMSNorm agree on them."""
    centred = torch.eye(16, dtype=torch.float64) - 1 / 16
    vectors: Tensor = torch.linalg.eigh(centred).eigenvectors
    return vectors[:, 1:].T.float()


@pytest.fixture(scope="session")
def fake_encoder() -> Callable[[Tensor], FakeEncoder]:
    return FakeEncoder


@pytest.fixture(scope="session")
def learned_file() -> Callable[..., EmbeddingFile]:
    def build(
        *vectors: Tensor, token: str = "<x>", name: str = "x.bin", step: int | None = None
    ) -> EmbeddingFile:
        return EmbeddingFile(
            Path(name), "diffusers", (LearnedToken(token, None, torch.stack(vectors)),), step, {}
        )

    return build


@pytest.fixture
def seeded_table() -> Tensor:
    """1000 rows of width 16 with norms 1 … 2, and three zero rows at the end."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(1000, 16, generator=generator), dim=-1)
    rows = rows * torch.linspace(1, 2, 1000)[torch.randperm(1000, generator=generator), None]
    return torch.cat([rows, torch.zeros(3, 16)])
