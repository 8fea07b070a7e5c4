from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dti_geom.errors import DoesNotApply
from dti_geom.files import EmbeddingFile, from_json, to_json
from dti_geom.files.packed import unpack
from dti_geom.probes.learned import LearnedVector, learned_vectors
from dti_geom.probes.map import COSINE_UNIT, MapResult, measure_map

Fake = Callable[[Tensor], Any]
ROWS = 150


@pytest.fixture(scope="module")
def table() -> Tensor:
    """150 random rows of width 16 with norms 1 … 2, two zero rows, and two repeated ones."""
    generator = torch.Generator().manual_seed(0)
    rows = normalize(torch.randn(ROWS, 16, generator=generator), dim=1)
    rows = rows * torch.linspace(1, 2, ROWS)[:, None]
    return torch.cat([rows, torch.zeros(2, 16), rows[:2]])


@pytest.fixture(scope="module")
def learned(table: Tensor, learned_file: Callable[..., EmbeddingFile]) -> list[LearnedVector]:
    """Row 7 at three times its norm, a vector of another width, and a zero vector."""
    return learned_vectors(
        [
            learned_file(3 * table[7], step=40),
            learned_file(torch.ones(9)),
            learned_file(torch.zeros(16)),
        ]
    )


@pytest.fixture(scope="module")
def result(fake_encoder: Fake, table: Tensor, learned: list[LearnedVector]) -> MapResult:
    return measure_map(fake_encoder(table), learned)


def exact(table: Tensor, queries: Tensor, k: int) -> tuple[Any, Any]:
    """Return cosines and rows of the k nearest, by brute force."""
    cosines = normalize(queries.double(), dim=1) @ normalize(table.double(), dim=1).T
    found = cosines.topk(k)
    return found.values.numpy(), found.indices.numpy()


def test_the_stored_neighbours_are_the_exact_ones(result: MapResult, table: Tensor) -> None:
    cosines, rows = exact(table[:ROWS], table[:ROWS], result.k + 1)
    numpy.testing.assert_array_equal(unpack(result.neighbors), rows[:, 1:])
    numpy.testing.assert_allclose(
        unpack(result.cosines) * COSINE_UNIT, cosines[:, 1:], atol=0.51 * COSINE_UNIT
    )


def test_ids_norms_and_tokens_are_those_of_the_rows_shown(result: MapResult, table: Tensor) -> None:
    assert (result.rows, result.equal_rows, len(result.tokens)) == (ROWS, 2, ROWS)
    numpy.testing.assert_array_equal(unpack(result.ids), numpy.arange(ROWS))
    numpy.testing.assert_allclose(unpack(result.norms), table[:ROWS].norm(dim=1), rtol=1e-6)
    assert result.mean_norm == pytest.approx(1.5)
    assert unpack(result.positions).shape == (ROWS, 2)


def test_more_neighbours_are_kept_than_by_chance(result: MapResult) -> None:
    assert result.kept_by_chance == pytest.approx(10 / 149)
    assert 3 * result.kept_by_chance < result.kept < 1


def test_a_learned_vector_lies_beside_the_row_it_is_a_multiple_of(
    result: MapResult, table: Tensor
) -> None:
    (placed,) = result.learned
    assert (placed.neighbors[0].id, placed.step) == (7, 40)
    assert placed.neighbors[0].similarity == pytest.approx(1)
    assert placed.norm == pytest.approx(float(3 * table[7].norm()))
    apart = numpy.linalg.norm(unpack(result.positions) - [placed.x, placed.y], axis=1)
    assert 7 in numpy.argsort(apart)[:5]


def test_learned_vectors_do_not_change_the_map(
    result: MapResult, fake_encoder: Fake, table: Tensor
) -> None:
    assert measure_map(fake_encoder(table)).positions == result.positions


def test_of_a_large_table_a_sample_and_the_neighbours_of_learned_vectors_are_shown(
    fake_encoder: Fake, table: Tensor, learned: list[LearnedVector]
) -> None:
    result = measure_map(fake_encoder(table), learned, rows=60)
    ids = unpack(result.ids)
    near = [neighbor.id for neighbor in result.learned[0].neighbors]
    assert near == exact(table[:ROWS], table[7:8], 10)[1][0].tolist()
    assert set(near) <= set(ids.tolist())
    assert 60 <= len(ids) <= 70
    assert (numpy.diff(ids) > 0).all()
    shown = table[torch.from_numpy(ids.astype(int))]
    numpy.testing.assert_array_equal(unpack(result.neighbors), exact(shown, shown, 11)[1][:, 1:])


def test_the_result_round_trips_through_json(result: MapResult) -> None:
    assert from_json(MapResult, to_json(result)) == result


def test_a_table_of_a_few_rows_has_no_map(fake_encoder: Fake) -> None:
    with pytest.raises(DoesNotApply, match="8 different rows"):
        measure_map(fake_encoder(torch.eye(8)))
