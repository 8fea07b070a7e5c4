import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dti_geom.errors import GeometryError
from dti_geom.geometry import sparse
from dti_geom.geometry.sparse import sparse_sums


def unit_rows(rows: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


def planted(table: Tensor, words: int, seed: int, noise: float = 0.0) -> tuple[list[int], Tensor]:
    """Rows and weights of a sum, heaviest first, and the sum; noise: its norm ÷ the sum's."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(table), generator=generator)[:words]
    weights = 0.25 + torch.rand(words, generator=generator, dtype=torch.float64)
    weights = weights.sort(descending=True).values
    vector = weights @ normalize(table[rows].double(), dim=1)
    direction = torch.randn(table.shape[1], generator=generator, dtype=torch.float64)
    vector = vector + noise * vector.norm() * normalize(direction, dim=0)
    return rows.tolist(), torch.cat([weights, vector])


@pytest.mark.parametrize("words", [1, 2, 5, 8])
def test_a_planted_sum_is_recovered_with_its_order_and_weights(words: int) -> None:
    table = unit_rows(3000, 128) * torch.linspace(0.3, 20, 3000)[:, None]  # norms do not count
    for seed in range(5):
        rows, numbers = planted(table, words, seed)
        weights, vector = numbers[:words], numbers[words:]
        (sums,) = sparse_sums(vector[None].float(), table, 8)
        assert sums[-1].rows == tuple(rows)
        found = torch.tensor(sums[-1].weights, dtype=torch.float64) * vector.norm()
        torch.testing.assert_close(found, weights, rtol=0.01, atol=0)
        assert sums[-1].share == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_a_sum_of_eight_words_is_recovered_from_a_table_of_the_size_of_clips() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(49408, 768, generator=generator)
    sums = [planted(table, 8, seed) for seed in range(4)]
    found = sparse_sums(torch.stack([numbers[8:] for _, numbers in sums]), table, 8)
    for (rows, numbers), (*_, last) in zip(sums, found, strict=True):
        assert last.rows == tuple(rows)
        weights = torch.tensor(last.weights, dtype=torch.float64) * numbers[8:].norm()
        torch.testing.assert_close(weights, numbers[:8], rtol=0.01, atol=0)


def test_the_words_of_a_sum_are_found_under_noise_of_a_third_of_its_length() -> None:
    table = unit_rows(3000, 128)
    for seed in range(5):
        rows, numbers = planted(table, 4, seed, noise=1 / 3)
        (sums,) = sparse_sums(numbers[None, 4:], table, 8)
        assert set(sums[3].rows) == set(rows)
        assert sums[3].share == pytest.approx(1 / (1 + 1 / 9), abs=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_a_sum_of_itself(dtype: torch.dtype) -> None:
    table = unit_rows(200, 32).to(dtype)
    rounded = 7 * table[:5]  # rounding is not explained by further rows
    for row, (first, *more) in enumerate(sparse_sums(rounded, table, 4)):
        assert first.rows == (row,)
        assert first.weights == pytest.approx((1.0,), abs=1e-4)
        assert not more


def test_a_row_that_may_not_be_used_is_not() -> None:
    table = unit_rows(200, 32)
    for row, sums in enumerate(sparse_sums(table[:5], table, 4, without=range(5))):
        assert len(sums) == 4
        assert all(row not in found.rows for found in sums)


def test_each_sum_has_positive_weights_and_explains_more_than_the_one_before() -> None:
    table, vectors = unit_rows(300, 16), unit_rows(10, 16, seed=1)
    for vector, sums in zip(vectors, sparse_sums(vectors, table, 6), strict=True):
        shares = [found.share for found in sums]
        assert shares == sorted(set(shares))
        assert shares[0] == pytest.approx(float((table @ vector).max()) ** 2)
        for count, found in enumerate(sums, 1):
            assert len(found.rows) == len(set(found.rows)) == count
            weights = torch.tensor(found.weights, dtype=torch.float64)
            assert (weights > 0).all()
            rest = vector - weights @ table[list(found.rows)]
            assert 1 - float(rest @ rest) == pytest.approx(found.share)


def test_rows_beyond_the_first_candidates_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    table, vectors = unit_rows(2000, 24), unit_rows(8, 24, seed=1)
    whole = sparse_sums(vectors, table, 6)
    monkeypatch.setattr(sparse, "_CANDIDATES", 8)
    monkeypatch.setattr(sparse, "_ROWS", 300)
    for expected, found in zip(whole, sparse_sums(vectors, table, 6), strict=True):
        assert [one.rows for one in found] == [one.rows for one in expected]


def test_zero_rows_and_equal_rows_do_no_harm() -> None:
    table = torch.cat([unit_rows(50, 16), torch.zeros(3, 16), unit_rows(50, 16)])
    vector = 2 * table[4] + table[9]
    (sums,) = sparse_sums(vector[None], table, 8)
    assert sums[-1].share == pytest.approx(1)
    assert {row % 53 for row in sums[-1].rows} == {4, 9}
    (sums,) = sparse_sums(torch.ones(1, 4), torch.cat([torch.zeros(3, 4), torch.eye(4)]), 8)
    assert set(sums[-1].rows) == {3, 4, 5, 6}


def test_a_vector_that_points_away_from_every_row_has_no_sum() -> None:
    assert sparse_sums(-torch.ones(1, 4), torch.eye(4), 2) == [()]


def test_vectors_without_direction_and_of_another_width_are_refused() -> None:
    with pytest.raises(GeometryError, match="zero vectors"):
        sparse_sums(torch.zeros(1, 4), torch.eye(4), 2)
    with pytest.raises(GeometryError, match="same d"):
        sparse_sums(torch.ones(1, 3), torch.eye(4), 2)
    with pytest.raises(GeometryError, match="at least 1"):
        sparse_sums(torch.ones(1, 4), torch.eye(4), 0)
