from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dti_geom.artifacts import EmbeddingFile, LearnedToken
from dti_geom.models import Vocabulary


class FakeEncoder:
    """All a geometry probe asks for: a name, a vocabulary and a token table."""

    name = "fake"

    def __init__(self, token_table: Tensor) -> None:
        self.token_table = token_table
        self.vocabulary = Vocabulary(None, len(token_table))


@pytest.fixture
def fake_encoder() -> Callable[[Tensor], FakeEncoder]:
    return FakeEncoder


@pytest.fixture
def learned_file() -> Callable[..., EmbeddingFile]:
    def build(*vectors: Tensor, token: str = "<x>", name: str = "x.bin", step: int | None = None) -> EmbeddingFile:
        return EmbeddingFile(Path(name), "diffusers", (LearnedToken(token, None, torch.stack(vectors)),), step, {})

    return build


@pytest.fixture
def seeded_table() -> Tensor:
    """1000 rows of width 16 with norms 1 … 2, and three zero rows at the end."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(1000, 16, generator=generator), dim=-1)
    rows = rows * torch.linspace(1, 2, 1000)[torch.randperm(1000, generator=generator), None]
    return torch.cat([rows, torch.zeros(3, 16)])
