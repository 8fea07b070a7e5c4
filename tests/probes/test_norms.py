from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.files import EmbeddingFile, from_json, to_json
from dti_geom.models import open_encoders
from dti_geom.probes.learned import learned_vectors
from dti_geom.probes.norms import NormsResult, measure_norms, norms_arrays


def test_the_summary_is_what_numpy_says_of_the_nonzero_rows(
    fake_encoder: Callable[[Tensor], Any], seeded_table: Tensor
) -> None:
    measured = measure_norms(fake_encoder(seeded_table))
    lengths = np.linalg.norm(seeded_table.numpy()[:1000].astype(np.float64), axis=1)
    assert (measured.vocab_size, measured.dim) == (1003, 16)
    assert (measured.norms.count, measured.norms.zero_rows) == (1000, 3)
    assert measured.norms.mean == pytest.approx(lengths.mean(), rel=1e-6)
    assert measured.norms.std == pytest.approx(lengths.std(), rel=1e-6)
    assert measured.norms.percentiles == pytest.approx(
        np.percentile(lengths, [1, 5, 25, 50, 75, 95, 99]), rel=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_longest_and_shortest_are_sorted_outwards_and_leave_zero_rows_out(
    fake_encoder: Callable[[Tensor], Any], seeded_table: Tensor, dtype: torch.dtype
) -> None:
    table = seeded_table.to(dtype)
    measured = measure_norms(fake_encoder(table))
    lengths = table.double().norm(dim=-1)
    longest = [one.norm for one in measured.longest]
    shortest = [one.norm for one in measured.shortest]
    assert longest == sorted(longest, reverse=True)
    assert shortest == sorted(shortest)
    assert longest == pytest.approx(lengths.topk(10).values.tolist(), rel=1e-5)
    assert shortest == pytest.approx(
        lengths[:1000].topk(10, largest=False).values.tolist(), rel=1e-5
    )
    for one in (*measured.longest, *measured.shortest):
        assert one.token == f"#{one.id}"
        assert one.norm == pytest.approx(lengths[one.id].item(), rel=1e-5)


def test_a_learned_vector_is_placed_by_zscore_percentile_and_inflation(
    fake_encoder: Callable[[Tensor], Any],
    seeded_table: Tensor,
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    learned = learned_vectors(
        [learned_file(seeded_table[0] / seeded_table[0].norm() * 15, torch.zeros(16) + 0.25)]
    )
    measured = measure_norms(fake_encoder(seeded_table), learned)
    inflated, smallest = measured.learned
    assert inflated.norm == pytest.approx(15, rel=1e-6)
    assert inflated.inflation == pytest.approx(15 / measured.norms.mean, rel=1e-6)
    assert inflated.z_score == pytest.approx(
        (15 - measured.norms.mean) / measured.norms.std, rel=1e-6
    )
    assert (inflated.percentile, inflated.index) == (100, 0)
    # norm exactly 1 is the shortest row's own
    assert smallest.norm == 1
    assert 0 <= smallest.percentile <= 0.1


def test_vectors_of_another_width_are_not_placed(
    fake_encoder: Callable[[Tensor], Any],
    seeded_table: Tensor,
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    learned = learned_vectors([learned_file(torch.ones(768))])
    assert measure_norms(fake_encoder(seeded_table), learned).learned == ()


def test_the_histogram_counts_every_nonzero_row_once_and_names_some_of_each_bin(
    fake_encoder: Callable[[Tensor], Any], seeded_table: Tensor
) -> None:
    measured = measure_norms(fake_encoder(seeded_table))
    histogram, lengths = measured.histogram, seeded_table.norm(dim=-1)
    assert sum(histogram.counts) == 1000
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert list(histogram.edges) == sorted(histogram.edges)
    for place in range(1, len(histogram.counts) - 1):
        low, high = histogram.edges[place : place + 2]
        assert histogram.counts[place] == int(((lengths >= low) & (lengths < high)).sum())
        assert len(histogram.examples[place]) == min(6, histogram.counts[place])
        for token in histogram.examples[place]:
            assert low <= lengths[int(token[1:])].item() < high


def test_one_far_token_does_not_squeeze_the_histogram(
    fake_encoder: Callable[[Tensor], Any], seeded_table: Tensor
) -> None:
    table = torch.cat([seeded_table, torch.full((1, 16), 1000.0)])
    histogram = measure_norms(fake_encoder(table)).histogram
    assert histogram.edges[-1] < 3
    assert sum(histogram.counts) == 1001
    assert len(histogram.counts) == 41  # 4 · 1001^(1/3), rounded up
    assert sum(count > 0 for count in histogram.counts) > 35


def test_rows_of_one_length_make_one_bin_and_no_zscore(
    fake_encoder: Callable[[Tensor], Any], learned_file: Callable[..., EmbeddingFile]
) -> None:
    measured = measure_norms(
        fake_encoder(torch.eye(5)), learned_vectors([learned_file(torch.full((5,), 2.0))])
    )
    assert (measured.histogram.counts, measured.histogram.edges) == ((5,), (1.0, 1.0))
    assert measured.learned[0].z_score is None
    assert measured.learned[0].inflation == pytest.approx(2 * 5**0.5)


def test_a_table_of_zeros_is_refused(fake_encoder: Callable[[Tensor], Any]) -> None:
    with pytest.raises(GeometryError, match="zero"):
        measure_norms(fake_encoder(torch.zeros(4, 4)))


def test_the_result_round_trips_through_json(
    fake_encoder: Callable[[Tensor], Any],
    seeded_table: Tensor,
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    measured = measure_norms(
        fake_encoder(seeded_table), learned_vectors([learned_file(torch.ones(16))])
    )
    assert from_json(NormsResult, to_json(measured)) == measured


def test_arrays_hold_the_norm_of_every_row_by_encoder(
    fake_encoder: Callable[[Tensor], Any], seeded_table: Tensor
) -> None:
    arrays = norms_arrays(fake_encoder(seeded_table))
    assert list(arrays) == ["fake"]
    assert arrays["fake"] == pytest.approx(np.linalg.norm(seeded_table.numpy(), axis=1), rel=1e-6)
    assert (arrays["fake"][-3:] == 0).all()


def test_norms_of_the_studys_trained_encoder_have_not_drifted(shared_data: Path) -> None:
    (encoder,) = open_encoders(str(shared_data / "mini-prototype"))
    measured = measure_norms(encoder)
    assert (measured.norms.count, measured.norms.zero_rows) == (2011, 0)
    assert measured.norms.mean == pytest.approx(0.33164, abs=1e-5)
    assert [(one.token, one.id) for one in measured.longest[:3]] == [
        ("below", 652),
        ("snow", 638),
        ("white", 617),
    ]
    assert {one.token: one.id for one in measured.special} == {
        "<|startoftext|>": 2009,
        "<|endoftext|>": 2010,
    }


def test_groups_hold_every_row_once_and_trained_rows_leave_the_unread_out(
    shared_data: Path,
) -> None:
    (encoder,) = open_encoders(str(shared_data / "mini-prototype"))
    table = encoder.token_table.float().clone()
    table = torch.cat([table, 0.1 * torch.ones(12, table.shape[1])])  # beyond the tokenizer
    encoder.token_table = table
    measured = measure_norms(encoder)
    groups = {group.kind: group for group in measured.groups}
    assert sum(group.rows for group in measured.groups) == len(table)
    beyond = groups["beyond the tokenizer"]
    assert beyond.rows == 12
    assert beyond.norms is not None
    assert beyond.norms.mean == pytest.approx(0.1 * table.shape[1] ** 0.5)
    assert measured.trained is not None
    assert measured.trained.count == 2011
    assert measured.trained.mean == pytest.approx(0.33164, abs=1e-5)
    assert measured.norms.mean > measured.trained.mean


def test_nothing_is_said_of_groups_without_a_tokenizer(
    fake_encoder: Callable[[Tensor], Any], seeded_table: Tensor
) -> None:
    measured = measure_norms(fake_encoder(seeded_table))
    assert (measured.groups, measured.trained) == ((), None)
