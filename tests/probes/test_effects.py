from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dti_geom import geometry
from dti_geom.errors import DoesNotApply, DtiGeomError
from dti_geom.files import EmbeddingFile, from_json, to_json
from dti_geom.models import HiddenStates, open_encoders
from dti_geom.probes.effects import EffectsResult, measure_effects
from dti_geom.probes.learned import learned_vectors
from dti_geom.probes.measuring import measure_model
from dti_geom.probes.registry import PROBES

TABLE = torch.randn(12, 16, generator=torch.Generator().manual_seed(1))
POSITIONS = 0.5 * torch.randn(20, 16, generator=torch.Generator().manual_seed(2))


def by_cell(result: EffectsResult, group: int = 0) -> dict[str, Any]:
    return {cell.cell: cell for cell in result.groups[group].cells}


def sizes(result: EffectsResult, group: int = 0) -> dict[str, float]:
    return {size.effect: size.moved.mean for size in result.groups[group].effects}


@pytest.fixture
def bare(tiny_encoder: Callable[..., Any]) -> Any:
    """An encoder without blocks: what is read is the input."""
    return tiny_encoder(TABLE, POSITIONS, [])


@pytest.fixture
def normalising(tiny_encoder: Any) -> Any:
    """What is read is the input's direction, as a final norm would give it."""

    class Normalising(tiny_encoder):  # type: ignore[misc]
        def hidden_states(self, *args: Any, **options: Any) -> HiddenStates:
            states = super().hidden_states(*args, **options).states
            return HiddenStates(states, geometry.normalize(states[-1]))

    return Normalising(TABLE, POSITIONS, [])


def test_where_the_input_is_read_states_move_as_the_inputs_differ(bare: Any) -> None:
    """Each prompt has one place; distances of inputs are known there."""
    result = measure_effects(bare, scale=4, words=12)
    e = geometry.summarize_norms(TABLE).mean * geometry.normalize(TABLE)
    # Where the carriers have the word; two words are apart as their e are.
    p = POSITIONS[[0, 3, 0, 5, 10]]
    apart = torch.cdist(e, e).sum() / (12 * 11)
    assert by_cell(result)["I"].moved.mean == pytest.approx(
        float((0.75 * p).norm(dim=-1).mean() / apart), rel=1e-4
    )
    assert by_cell(result)["II"].moved.mean == pytest.approx(
        float((3 * (e[:, None] + p)).norm(dim=-1).mean() / apart), rel=1e-4
    )
    assert by_cell(result)["both"].moved.mean == pytest.approx(
        float(3 * e.norm(dim=-1).mean() / apart), rel=1e-4
    )
    ordinary = by_cell(result)["neither"]
    assert ordinary.moved.mean == ordinary.turned.mean == 0


def test_behind_a_final_norm_only_effect_one_is_left(normalising: Any) -> None:
    """Without blocks the norm divides the length out: II does nothing, and both is as I."""
    result = measure_effects(normalising, scale=4)
    cells = by_cell(result)
    assert cells["II"].moved.mean == pytest.approx(0, abs=1e-6)
    assert cells["I"].moved.mean == pytest.approx(cells["both"].moved.mean, rel=1e-4)
    assert cells["I"].turned.mean > 0.01
    assert sizes(result)["I"] == pytest.approx(cells["I"].moved.mean, rel=1e-4)
    assert sizes(result)["II"] == pytest.approx(0, abs=1e-6)
    assert sizes(result)["interaction"] == pytest.approx(0, abs=1e-6)


def test_main_effects_are_means_over_the_other_effect(bare: Any) -> None:
    result = measure_effects(bare, scale=4)
    neither, one, two, both = (by_cell(result)[name].moved.mean for name in by_cell(result))
    assert sizes(result)["I"] == pytest.approx((one - neither + both - two) / 2)
    assert sizes(result)["II"] == pytest.approx((two - neither + both - one) / 2)
    assert sizes(result)["interaction"] == pytest.approx(both - one - two + neither)
    (interval,) = [s.moved for s in result.groups[0].effects if s.effect == "I"]
    assert interval.subjects == 12
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < interval.mean < interval.high


def test_a_factor_of_one_changes_nothing(bare: Any) -> None:
    for cell in measure_effects(bare, scale=1).groups[0].cells:
        assert cell.moved.mean == pytest.approx(0, abs=1e-6)


def test_the_reader_names_places_until_they_are_hidden(
    tiny_encoder: Callable[..., Any], orthonormal: Tensor
) -> None:
    """Words and positions across each other: places are read from x_0 and from k·x_0."""
    encoder = tiny_encoder(orthonormal[:4], orthonormal[4:14], [])
    result = measure_effects(encoder, scale=1000)
    assert result.places == 10
    shares = {name: cell.readable.share for name, cell in by_cell(result).items()}
    assert shares["neither"] == shares["II"] == 1
    assert shares["I"] == pytest.approx(0.1)


def test_an_end_that_does_not_depend_on_the_word_is_not_measured(bare: Any) -> None:
    """Without blocks nothing passes from the token to the end."""
    assert {cell.moved_end for cell in measure_effects(bare).groups[0].cells} == {None}


def test_a_learned_vector_is_measured_at_the_mean_norm(
    bare: Any, learned_file: Callable[..., EmbeddingFile]
) -> None:
    long, short = (
        learned_vectors([learned_file(factor * TABLE[3], torch.zeros(16))]) for factor in (9, 1)
    )
    first, second = (measure_effects(bare, vectors) for vectors in (long, short))
    (_, group), (_, other) = first.groups, second.groups  # the zero vector is left out
    assert (group.token, group.tokens) == ("<x>[0]", 1)
    assert other.inflation is not None
    assert group.inflation == pytest.approx(9 * other.inflation)
    assert [cell.moved.mean for cell in group.cells] == pytest.approx(
        [cell.moved.mean for cell in other.cells], rel=1e-5
    )
    assert group.cells[1].moved.values == 5


def test_without_positions_effect_two_is_measured_alone(sana_folder: Path) -> None:
    (encoder,) = open_encoders(str(sana_folder))
    result = measure_effects(encoder, words=4)
    assert [*by_cell(result)] == ["neither", "II"]
    assert [*sizes(result)] == ["II"]
    assert "rotary positions" in str(result.without_positions)


def test_a_post_norm_encoder_is_told_why(single_encoders: dict[str, Path]) -> None:
    (encoder,) = open_encoders(str(single_encoders["bert"]))
    with pytest.raises(DoesNotApply, match="after each addition"):
        measure_effects(encoder)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_above_zero_is_refused(bare: Any, scale: float) -> None:
    with pytest.raises(DtiGeomError, match="above 0"):
        measure_effects(bare, scale=scale)


def test_too_few_words_are_refused(tiny_encoder: Callable[..., Any]) -> None:
    with pytest.raises(DoesNotApply, match="3 whole words"):
        measure_effects(tiny_encoder(TABLE[:3], POSITIONS, []))


def test_the_state_of_sdxl_is_that_which_its_denoiser_reads_and_the_result_round_trips(
    sdxl_folder: Path, learned_file: Callable[..., EmbeddingFile]
) -> None:
    learned = learned_vectors([learned_file(torch.ones(32))])
    found = measure_model(
        PROBES["effects"], "mine", open_encoders(str(sdxl_folder)), learned, words=4, scale=3.0
    )
    first, second = found.encoders
    assert first.read == "block 1 of 2, before the final norm"
    assert [len(result.groups) for result in found.encoders] == [2, 1]
    assert from_json(EffectsResult, to_json(first)) == first
    assert second.scale == 3
    # The end token stands behind the word in each of five prompts.
    assert {cell.moved_end.values for cell in second.groups[0].cells} == {4 * 5}


def test_the_same_seed_gives_the_same_result(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder), dtype=torch.float32)
    first, again, other = (measure_effects(encoder, words=4, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.groups != other.groups


def test_a_block_that_reads_the_position_lets_effect_one_show_behind_it(
    tiny_encoder: Callable[..., Any],
) -> None:
    """The block adds 100 times its normalised input: the stream has no memory of its length."""
    double = nn.Linear(16, 16, bias=False)
    with torch.no_grad():
        double.weight.copy_(100 * torch.eye(16))
    branches = [(nn.LayerNorm(16), double)]
    result = measure_effects(tiny_encoder(TABLE, POSITIONS, branches), scale=4)
    assert sizes(result)["I"] > 5 * abs(sizes(result)["II"])
