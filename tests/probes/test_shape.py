from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import DoesNotApply
from dti_geom.files import from_json, to_json
from dti_geom.probes.shape import CloudShape, K, ShapeResult, measure_shape

Fake = Callable[[Tensor], Any]


def clouds_of(result: ShapeResult) -> dict[str, CloudShape]:
    return {cloud.cloud: cloud for cloud in result.clouds}


def test_removing_the_mean_removes_a_common_direction(
    fake_encoder: Fake, seeded_table: Tensor
) -> None:
    shifted = seeded_table + torch.cat([torch.full((1000, 16), 1.0), torch.zeros(3, 16)])
    clouds = clouds_of(measure_shape(fake_encoder(shifted)))
    assert clouds["directions"].mean_cosine > 0.5
    assert abs(clouds["centred"].mean_cosine) < 0.05


def test_random_rows_have_the_shape_of_random_directions(
    fake_encoder: Fake, seeded_table: Tensor
) -> None:
    result = measure_shape(fake_encoder(seeded_table))
    clouds = clouds_of(result)
    assert (result.rows, result.sampled, result.dim) == (1000, 1000, 16)
    for name in ("isotropy", "two_nearest", "dimension"):
        random = getattr(clouds["random"], name)
        assert getattr(clouds["directions"], name) == pytest.approx(random, rel=0.1)


def test_short_rows_are_hubs_by_distance(fake_encoder: Fake, seeded_table: Tensor) -> None:
    table = seeded_table[:1000].clone()
    table[5] *= 0.01
    clouds = clouds_of(measure_shape(fake_encoder(table)))
    assert clouds["rows"].hubs[0].id == 5
    assert clouds["rows"].hubs[0].count > 10 * K
    assert clouds["rows"].hubness > 2 * clouds["directions"].hubness
    assert clouds["random"].hubs == ()


def test_norms_that_grow_with_the_row_number_correlate_fully(
    fake_encoder: Fake, seeded_table: Tensor
) -> None:
    unit = torch.nn.functional.normalize(seeded_table[:200], dim=1)
    grown = unit * torch.linspace(1, 2, 200)[:, None]
    assert measure_shape(fake_encoder(grown)).norm_by_row == pytest.approx(1)
    signs = torch.where(seeded_table[:500] > 0, 1.0, -1.0)  # all of norm 4, exactly
    assert measure_shape(fake_encoder(signs)).norm_by_row is None


def test_zero_rows_and_repeated_rows_are_left_out_and_counted(
    fake_encoder: Fake, seeded_table: Tensor
) -> None:
    table = torch.cat([seeded_table, seeded_table[:7]])
    result = measure_shape(fake_encoder(table.to(torch.bfloat16)))
    assert (result.rows, result.equal_rows) == (1000, 7)


def test_the_result_is_repeatable_and_round_trips_through_json(
    fake_encoder: Fake, seeded_table: Tensor
) -> None:
    result = measure_shape(fake_encoder(seeded_table))
    assert measure_shape(fake_encoder(seeded_table)) == result
    assert from_json(ShapeResult, to_json(result)) == result


def test_a_table_of_a_few_rows_has_no_shape(fake_encoder: Fake) -> None:
    with pytest.raises(DoesNotApply, match="8 different rows"):
        measure_shape(fake_encoder(torch.eye(8)))
