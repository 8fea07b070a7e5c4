import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry import nearest
from dti_geom.geometry import neighbors as module
from dti_geom.geometry.neighbors import Metric
from dti_geom.geometry.sphere import _binary_scale, _row_norms

METRICS: list[Metric] = ["cosine", "euclidean"]
SCREENS = [
    [torch.float64],
    [torch.float32, torch.float64],
    [torch.bfloat16, torch.float32, torch.float64],
]
metrics = pytest.mark.parametrize("metric", METRICS)
# Every machine tests every precision: bfloat16 products are right everywhere, though slow where the
# processor lacks them.
screens = pytest.mark.parametrize("screen", SCREENS, ids=["float64", "float32", "bfloat16"])


def reference(queries: Tensor, table: Tensor, k: int, metric: Metric) -> tuple[Tensor, Tensor]:
    """Every pair in float64, rounded to the result's dtype, ties by row number."""
    q, t = queries.double(), table.double()
    if metric == "cosine":
        scores = (q[:, None] * t).sum(-1) / (q.norm(dim=1)[:, None] * t.norm(dim=1))
        scores = scores.clamp(-1, 1).nan_to_num(-math.inf)
    else:
        scores = -(q[:, None] - t).norm(dim=-1)
    dtype = torch.promote_types(torch.promote_types(queries.dtype, table.dtype), torch.float32)
    values, indices = scores.to(dtype).sort(dim=1, descending=True, stable=True)
    return (values if metric == "cosine" else -values)[:, :k], indices[:, :k]


def assert_exact(queries: Tensor, table: Tensor, k: int, metric: Metric) -> None:
    values, indices = nearest(queries, table, k, metric)
    expected_values, expected_indices = reference(queries, table, k, metric)
    assert torch.equal(indices, expected_indices)
    torch.testing.assert_close(values, expected_values, rtol=0, atol=0)


def random_table(rows: int, dim: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(
        rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def clustered(rows: int, dim: int, noise: float, seed: int = 0) -> Tensor:
    centres = random_table(max(1, rows // 50), dim, seed)
    return centres.repeat(51, 1)[:rows] + noise * random_table(rows, dim, seed + 1)


def integers(rows: int, dim: int) -> Tensor:
    return torch.randint(-1, 2, (rows, dim), generator=torch.Generator().manual_seed(0)).float()


TABLES = {
    "random": lambda: random_table(200, 24),
    "clustered": lambda: clustered(200, 24, 0.05),
    "tight clusters": lambda: clustered(200, 24, 1e-4),
    "one tight bundle": lambda: random_table(1, 24) + 1e-3 * random_table(200, 24, 1),
    "one bundle within float32 rounding": lambda: (
        random_table(1, 24) + 1e-7 * random_table(200, 24, 1)
    ),
    "duplicates": lambda: random_table(20, 24).repeat(10, 1),
    "many ties": lambda: integers(200, 4) + torch.eye(4)[0] * 2,
    "all equal": lambda: torch.ones(200, 24),
    "norms from tiny to huge": lambda: (
        random_table(200, 24) * torch.logspace(-12, 12, 200)[:, None]
    ),
    "norms beyond the reach of float32 squares": lambda: (
        random_table(200, 24) * torch.logspace(-32, 0, 200)[:, None]
    ),
    "tiny": lambda: 1e-25 * random_table(200, 24),
    "huge": lambda: 1e25 * random_table(200, 24),
    "one outlier": lambda: torch.cat([random_table(199, 24), 100 * random_table(1, 24, 1)]),
    "one dimension": lambda: random_table(200, 1),
}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that every seam between them is crossed."""
    monkeypatch.setattr(module, "_BLOCK", 64)
    monkeypatch.setattr(module, "_SCORES", 2000)
    monkeypatch.setattr(module, "_NUMBERS", 5000)


@metrics
@screens
@pytest.mark.parametrize("name", TABLES)
def test_a_table_against_itself_is_exact(
    name: str,
    screen: list[torch.dtype],
    metric: Metric,
    small_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_precisions", lambda *_: screen)
    table = TABLES[name]()
    assert_exact(table, table, 7, metric)


@metrics
@screens
@pytest.mark.parametrize("name", TABLES)
def test_other_queries_are_exact(
    name: str,
    screen: list[torch.dtype],
    metric: Metric,
    small_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_precisions", lambda *_: screen)
    table = TABLES[name]()
    queries = torch.cat([table[:40], table[0].abs().max() * random_table(70, table.shape[1], 9)])
    assert_exact(queries, table, 5, metric)


@metrics
@screens
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype_is_exact(
    dtype: torch.dtype, screen: list[torch.dtype], metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_precisions", lambda *_: screen)
    table = random_table(500, 48, dtype=dtype)
    assert_exact(table, table, 10, metric)
    assert_exact(random_table(5, 48, seed=1), table, 10, metric)


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 12),
    st.integers(1, 90),
    st.integers(0, 999),
)
def test_every_size_is_exact(n: int, rows: int, dim: int, k: int, seed: int) -> None:
    table = random_table(rows, dim, seed).mul(4).round().div(4)
    table[:, 0] += 0.125  # no zero rows
    queries = table if n == rows else random_table(n, dim, seed + 1)
    for metric in METRICS:
        for screen in SCREENS:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "_BLOCK", 32)
                patch.setattr(module, "_precisions", lambda *_, screen=screen: screen)
                assert_exact(queries, table, min(k, rows), metric)


@metrics
def test_a_realistic_table_is_exact_with_the_settings_as_they_are(metric: Metric) -> None:
    table = torch.nn.functional.normalize(clustered(5000, 64, 0.5)) * 0.4
    values, indices = nearest(table, table, 10, metric)
    some = torch.arange(0, 5000, 50)
    expected_values, expected_indices = reference(table[some], table, 10, metric)
    assert torch.equal(indices[some], expected_indices)
    assert torch.equal(values[some], expected_values)


@screens
def test_the_screening_error_stays_within_its_bound(screen: list[torch.dtype]) -> None:
    precision = screen[0]
    for metric in METRICS:
        queries, table = (
            random_table(50, 300),
            random_table(64, 300, 1) * torch.logspace(-3, 0, 64)[:, None],
        )
        norms = [_row_norms(x, "x") for x in (queries, table)]
        scale = _binary_scale(norms[0].max()[None])
        screener = module._Screen(metric, precision, torch.float32, scale, 1)
        q = screener.operand(module._Side(queries, norms[0]), 0, is_query=True)
        t = screener.operand(module._Side(table, norms[1]), 0, is_query=False)
        score = (q.matrix @ t.matrix.T).double()
        if metric == "cosine":
            exact = (queries.double() @ table.double().T) / (
                queries.double().norm(dim=1)[:, None] * table.double().norm(dim=1)
            )
        else:
            exact = -torch.cdist(queries.double(), table.double()).div(scale).square() / 2
        bound = screener.absolute_error(q, t, t.norms) + screener.relative_error() * score.abs()
        assert ((score - exact).abs() <= bound).all()
        # A bound a hundred times too wide would keep everything and prove nothing.
        if precision == torch.bfloat16:
            assert (score - exact).abs().max() > bound.max() / 100


@metrics
def test_queries_too_close_to_tell_apart_are_handed_on_with_nothing_kept(
    metric: Metric, small_blocks: None
) -> None:
    table = random_table(1, 24) + 1e-3 * random_table(200, 24, 1)
    side = module._Side(table, _row_norms(table, "table"))
    query, row, crowded = module._shortlist(side, side, 5, metric, torch.bfloat16, 20, True)
    assert crowded.all()
    assert len(query) == len(row) == 0


@metrics
def test_identical_vectors_are_at_no_distance_at_all(metric: Metric) -> None:
    table = 0.387 * torch.nn.functional.normalize(random_table(200, 768))
    values, indices = nearest(table, table, 1, metric)
    assert torch.equal(values, torch.full_like(values, 1.0 if metric == "cosine" else 0.0))
    assert torch.equal(indices[:, 0], torch.arange(200))


def test_close_distances_do_not_cancel() -> None:
    # Far from the origin, |q|² + |t|² − 2qᵀt in float32 would be off by about 1.
    table = 1000 + torch.arange(8.0)[:, None] * torch.tensor([[3e-3, 4e-3]])
    values, _ = nearest(table[:1], table, 8, "euclidean")
    expected = (table.double() - table[0].double()).norm(dim=1).float()
    torch.testing.assert_close(values[0], expected, rtol=1e-6, atol=0)


@metrics
def test_equal_rows_come_in_row_order(metric: Metric) -> None:
    table = random_table(3, 16).repeat(40, 1)
    _, indices = nearest(table[1:2], table, 6, metric)
    assert indices.tolist() == [[1, 4, 7, 10, 13, 16]]


def test_zero_rows_have_no_cosine_but_a_distance() -> None:
    table = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [-1.0, -1.0]])
    query = torch.tensor([1.0, 0.0])
    values, indices = nearest(query, table, 2)
    assert indices.tolist() == [3, 1]
    assert values.tolist() == pytest.approx([-math.sqrt(0.5), -1.0])
    values, indices = nearest(query, table, 4, "euclidean")
    assert indices.tolist() == [0, 2, 1, 3]
    assert values.tolist() == pytest.approx([1.0, 1.0, 2.0, math.sqrt(5)])
    assert nearest(torch.zeros(2), table, 2, "euclidean").indices.tolist() == [0, 2]


def test_leading_shapes_are_kept() -> None:
    table = random_table(30, 6)
    values, indices = nearest(random_table(8, 6).reshape(2, 4, 6), table, 3)
    assert values.shape == indices.shape == (2, 4, 3)
    assert nearest(table[0], table, 3).indices.shape == (3,)
    assert nearest(table[:0], table, 3).values.shape == (0, 3)


def test_answer_is_a_named_pair_of_promised_dtypes() -> None:
    table = random_table(30, 6, dtype=torch.bfloat16)
    result = nearest(table, table, 3)
    values, indices = result
    assert values is result.values
    assert indices is result.indices
    assert (values.dtype, indices.dtype) == (torch.float32, torch.int64)
    assert nearest(table.double(), table, 3).values.dtype == torch.float64


@metrics
def test_a_lowered_matmul_precision_does_not_change_the_answer(metric: Metric) -> None:
    table = random_table(400, 32)
    before = nearest(table, table, 5, metric)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.float32 not in module._precisions(400, table.device)
        after = nearest(table, table, 5, metric)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(before.indices, after.indices)
    assert torch.equal(before.values, after.values)


@metrics
def test_inputs_are_left_as_they_were_and_may_require_gradients(metric: Metric) -> None:
    table = random_table(100, 8).requires_grad_()
    before = table.detach().clone()
    values, _ = nearest(table[:9], table, 3, metric)
    assert not values.requires_grad
    assert torch.equal(table, before)


def test_searches_that_make_no_sense_are_refused() -> None:
    table = random_table(5, 3)
    table[0] = 0
    with pytest.raises(GeometryError, match="k is 5 and the table has 4 non-zero rows"):
        nearest(table[1], table, 5)
    with pytest.raises(GeometryError, match="k is 6 and the table has 5 rows"):
        nearest(table[1], table, 6, "euclidean")
    with pytest.raises(GeometryError, match="k is 0"):
        nearest(table[1], table, 0)
    with pytest.raises(GeometryError, match="queries holds 1 zero vectors"):
        nearest(table, table, 1)
    with pytest.raises(GeometryError, match="metric is 'dot'"):
        nearest(table[1], table, 1, "dot")  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match=r"queries has shape \(2,\) and table \(5, 3\)"):
        nearest(torch.ones(2), table, 1)
    table[2, 1] = math.nan
    with pytest.raises(GeometryError, match="table holds NaN"):
        nearest(torch.ones(3), table, 1)
