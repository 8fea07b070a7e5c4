import dataclasses
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry import (
    PERCENTILES,
    NormSummary,
    norms,
    repeated_rows,
    resembling_rows,
    row_norms,
    summarize_norms,
)


def table_with_norms(values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
    table = torch.zeros(len(values), 5, dtype=dtype)
    table[:, 2] = torch.tensor(values, dtype=dtype)
    return table


def test_summary_of_three_rows_by_hand() -> None:
    summary = summarize_norms(table_with_norms([1.0, 0.0, 2.0, 6.0]))
    assert (summary.count, summary.zero_rows) == (3, 1)
    assert (summary.mean, summary.min, summary.max) == (3.0, 1.0, 6.0)
    assert summary.std == pytest.approx(math.sqrt(14 / 3))
    assert summary.percentiles[PERCENTILES.index(50)] == 2.0
    assert summary.percentiles[PERCENTILES.index(75)] == 4.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_summary_equals_numpy_in_every_dtype(dtype: torch.dtype) -> None:
    table = torch.randn(1000, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = np.linalg.norm(table.double().numpy(), axis=1)
    summary = summarize_norms(table)
    rel = 1e-12 if dtype == torch.float64 else 1e-6
    assert summary.count == 1000
    assert [summary.mean, summary.std, summary.min, summary.max] == pytest.approx(
        [expected.mean(), expected.std(), expected.min(), expected.max()], rel=rel
    )
    assert summary.percentiles == pytest.approx(np.percentile(expected, PERCENTILES), rel=rel)


def test_tables_longer_than_a_chunk_are_summarized_whole() -> None:
    table = torch.ones(5000, 1000)
    table[-1] = 0
    table[-2] *= 2
    summary = summarize_norms(table)
    assert (summary.count, summary.zero_rows) == (4999, 1)
    assert summary.max == 2 * summary.min == pytest.approx(2 * math.sqrt(1000))


def test_rows_whose_squares_leave_float32_are_not_taken_for_zero_or_infinite() -> None:
    summary = summarize_norms(torch.tensor([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0]]))
    assert (summary.count, summary.zero_rows) == (2, 1)
    assert [summary.min, summary.max] == pytest.approx([5e-30, 5e30])


def test_norms_measured_before_give_the_same_summary() -> None:
    table = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(row_norms(table), norms(table))
    assert summarize_norms(table, row_norms(table)) == summarize_norms(table)


def test_a_single_row_is_its_own_summary() -> None:
    summary = summarize_norms(torch.tensor([3.0, 4.0]))
    assert summary == NormSummary(1, 0, 5.0, 0.0, 5.0, 5.0, (5.0,) * 7)


def test_summary_round_trips_through_json() -> None:
    summary = summarize_norms(table_with_norms([1.0, 2.0, 0.3]))
    fields = json.loads(json.dumps(dataclasses.asdict(summary)))
    assert NormSummary(**{**fields, "percentiles": tuple(fields["percentiles"])}) == summary


def test_tables_without_norms_raise() -> None:
    with pytest.raises(GeometryError, match="all 4 rows of the table are zero"):
        summarize_norms(torch.zeros(4, 3))
    with pytest.raises(GeometryError, match="NaN or infinity"):
        summarize_norms(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(GeometryError, match="int64"):
        summarize_norms(torch.ones(4, 3, dtype=torch.int64))


def test_the_table_is_left_as_it_was() -> None:
    table = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    before = table.clone()
    summarize_norms(table)
    assert torch.equal(table, before)


def unread_table() -> Tensor:
    """Return 40 words of norm 3, 200 rows of norm 1 that share a direction, and 5 zero rows."""
    generator = torch.Generator().manual_seed(0)
    words = 3 * torch.nn.functional.normalize(torch.randn(40, 32, generator=generator), dim=-1)
    shared = torch.eye(32)[:1] + 0.05 * torch.randn(200, 32, generator=generator)
    return torch.cat([words, torch.nn.functional.normalize(shared, dim=-1), torch.zeros(5, 32)])


def test_rows_that_point_where_unread_rows_do_are_found_from_some_of_them() -> None:
    table = unread_table()
    found = resembling_rows(table, torch.arange(40, 140))
    assert found[40:140].all()
    assert found[140:240].float().mean() >= 0.9
    assert not found[:40].any()
    assert not found[240:].any()


def test_a_long_row_in_the_direction_of_unread_rows_was_taught() -> None:
    table = torch.cat([unread_table(), 3 * torch.eye(32)[:1]])
    assert not resembling_rows(table, torch.arange(40, 140))[-1]


def test_examples_that_are_few_or_point_everywhere_tell_nothing_of_other_rows() -> None:
    table = unread_table()
    for examples in (torch.arange(40, 44), torch.arange(20), torch.arange(240, 245)):
        found = resembling_rows(table, examples)
        assert found.nonzero().flatten().tolist() == examples.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_copies_of_a_row_are_found_and_zero_rows_are_none(dtype: torch.dtype) -> None:
    table = torch.randn(30, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    table[[3, 17, 29]] = table[5].clone()
    table[[7, 8]] = 0
    assert repeated_rows(table).nonzero().flatten().tolist() == [3, 5, 17, 29]
    assert not repeated_rows(table[:3]).any()
