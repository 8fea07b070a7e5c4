import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dti_geom.errors import DoesNotApply
from dti_geom.files import EmbeddingFile, from_json, to_json
from dti_geom.models import open_encoders
from dti_geom.models.encoders.base import Tap
from dti_geom.probes.learned import learned_vectors
from dti_geom.probes.material import carrier_prompts, run_prompts
from dti_geom.probes.measuring import measure_model
from dti_geom.probes.registry import PROBES
from dti_geom.probes.stagnation import StagnationResult, _at_places, _captured, measure_stagnation

DTYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)


class Constant(nn.Module):
    """Adds the same vector to every state."""

    def __init__(self, vector: Any) -> None:
        super().__init__()
        self.vector = vector

    def forward(self, states: Any) -> Any:
        return self.vector.expand_as(states)


@pytest.fixture
def adding(tiny_encoder: Callable[..., Any], orthonormal: Tensor) -> Any:
    """Eight words of norm 0.5 and no positions; each branch adds one vector, whatever comes."""

    def build(*vectors: Any, dtype: torch.dtype = torch.float32, rows: Any = None) -> Any:
        table = 0.5 * orthonormal[:8] if rows is None else rows
        branches = [(nn.Identity(), Constant(vector.to(dtype))) for vector in vectors]
        return tiny_encoder(table.to(dtype), torch.zeros(20, 16, dtype=dtype), branches)

    return build


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_nothing_is_added_nothing_turns_at_any_magnitude(
    adding: Any, dtype: torch.dtype
) -> None:
    measured = measure_stagnation(adding(torch.zeros(16), torch.zeros(16), dtype=dtype))
    assert measured.total_bound == 0
    for one in (measured.natural, *measured.scales):
        for branch in one.branches:
            assert (branch.turn, branch.angle, branch.largest_angle, branch.relative_update) == (
                0,
                0,
                0,
                0,
            )
            assert (branch.bound, branch.tightness) == (0, None)


@DTYPES
def test_orthogonal_updates_turn_a_word_by_known_angles(
    adding: Any, orthonormal: Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    encoder = adding(2 * orthonormal[9], 3 * orthonormal[10], dtype=dtype)
    measured = measure_stagnation(encoder, scales=(1, 5, 16, 64))
    assert measured.reference_norm == pytest.approx(0.5, rel=tolerance)
    assert [one.largest_update for one in measured.bounds] == pytest.approx([2, 3], rel=tolerance)
    assert measured.total_bound == pytest.approx(5, rel=tolerance)
    for one in measured.scales:
        assert one.scale is not None
        start = one.scale / 2
        assert one.start_norm == pytest.approx(start, rel=tolerance)
        assert one.smallest_start_norm == pytest.approx(start, rel=tolerance)
        first, second = one.branches
        between = math.hypot(start, 2)
        assert (first.block, first.kind, second.block) == (0, "mlp", 1)
        assert first.turn == pytest.approx(math.atan2(2, start), rel=tolerance)
        assert first.angle == pytest.approx(first.turn)
        assert second.turn == pytest.approx(math.atan2(3, between), rel=tolerance)
        assert second.angle == pytest.approx(math.atan2(math.hypot(2, 3), start), rel=tolerance)
        assert first.update == pytest.approx(2, rel=tolerance)
        assert second.largest_update == pytest.approx(3, rel=tolerance)
        assert first.relative_update == pytest.approx(2 / start, rel=tolerance)
        assert second.relative_update == pytest.approx(3 / between, rel=tolerance)
        assert first.bound == (
            pytest.approx(math.asin(2 / start), rel=tolerance) if start > 2 else None
        )
        if start > 5:
            assert second.bound == pytest.approx(math.asin(5 / start), rel=tolerance)
            assert second.bound is not None
            assert second.tightness == pytest.approx(second.angle / second.bound, rel=tolerance)
        else:
            assert (second.bound, second.tightness) == (None, None)


@DTYPES
def test_what_is_left_of_the_input_is_told_apart_where_the_turn_no_longer_is(
    adding: Any, orthonormal: Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    """Updates of lengths 20 and 30 across a state without a position: x_L = x_0 + 50 c."""
    encoder = adding(20 * orthonormal[9], 30 * orthonormal[9], dtype=dtype)
    measured = measure_stagnation(encoder, scales=(1, 64))
    for one in measured.scales:
        assert one.scale is not None
        start, end = one.scale / 2, math.hypot(50, one.scale / 2)
        assert one.added == pytest.approx(50 / start, rel=tolerance)
        assert one.start_share == pytest.approx(start / end, rel=tolerance)
        assert one.along_start == pytest.approx(start / end, rel=2 * tolerance)


@DTYPES
def test_the_bound_is_reached_by_the_steepest_update(
    adding: Any, orthonormal: Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    # c with ‖c‖ = 1 and ‖x_0‖ = 2, so that x_0 + c and c are orthogonal: the turn is arcsin(1/2)
    along, across = orthonormal[0], orthonormal[1]
    encoder = adding(-0.5 * along + math.sqrt(0.75) * across, dtype=dtype, rows=2 * along[None])
    measured: Any = measure_stagnation(encoder, scales=(1, 4))
    (end,) = measured.scales[0].branches
    assert end.angle == pytest.approx(math.pi / 6, rel=tolerance)
    assert end.bound == pytest.approx(math.pi / 6, rel=tolerance)
    assert end.tightness == pytest.approx(1, rel=tolerance)
    assert measured.scales[1].branches[0].tightness < 0.95


def test_no_bound_begins_before_the_start_outgrows_the_updates(
    adding: Any, orthonormal: Tensor
) -> None:
    measured = measure_stagnation(adding(2 * orthonormal[9]), scales=(3.9, 4, 4.1))
    assert [one.branches[0].bound is None for one in measured.scales] == [True, True, False]


def test_b_is_the_longest_update_over_words_prompts_magnitudes_and_learned_vectors(
    tiny_encoder: Callable[..., Any],
    orthonormal: Tensor,
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    # The update is the state itself, so B is the longest state that was sent through.
    encoder = tiny_encoder(
        0.5 * orthonormal[:8], torch.zeros(20, 16), [(nn.Identity(), nn.Identity())]
    )
    assert measure_stagnation(encoder, scales=(1, 6)).total_bound == pytest.approx(3)
    learned = learned_vectors([learned_file(9 * orthonormal[12])])
    assert measure_stagnation(encoder, learned, scales=(1, 6)).total_bound == pytest.approx(9)


def test_the_start_holds_the_position_it_stands_at(
    tiny_encoder: Callable[..., Any], orthonormal: Tensor
) -> None:
    positions = torch.stack([orthonormal[9] * place for place in range(5)])
    encoder = tiny_encoder(
        0.5 * orthonormal[:8], positions, [(nn.Identity(), Constant(torch.zeros(16)))]
    )
    measured = measure_stagnation(encoder, carriers=("one two {}", "{}"), scales=(1,))
    assert measured.scales[0].smallest_start_norm == pytest.approx(0.5)
    assert measured.scales[0].start_norm == pytest.approx((0.5 + math.hypot(0.5, 2)) / 2)


@pytest.mark.parametrize("family", ["clip", "llama", "qwen3", "t5", "sana", "sd15"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_the_last_state_is_the_first_plus_every_captured_update(
    single_encoders: dict[str, Path],
    sana_folder: Path,
    sd15_folder: Path,
    family: str,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    folders = single_encoders | {"sana": sana_folder, "sd15": sd15_folder}
    (encoder,) = open_encoders(str(folders[family]), dtype=dtype)
    prompts = carrier_prompts(encoder)
    with _captured(encoder, prompts.places) as (before, updates):
        (states,) = run_prompts(encoder, prompts, encoder.token_table[:2].float(), "")
    assert len(before) == len(updates) == 2 * len(encoder.blocks)
    assert torch.equal(before[0], _at_places(states.states[0], prompts.places))
    rebuilt = before[0].double() + sum(update.double() for update in updates)
    last = _at_places(states.states[-1], prompts.places).double()
    torch.testing.assert_close(
        rebuilt, last, rtol=tolerance, atol=tolerance * float(last.abs().max())
    )


def test_chunks_change_nothing(sd15_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (encoder,) = open_encoders(str(sd15_folder), dtype=torch.float32)
    whole = measure_stagnation(encoder, words=3, scales=(4,))
    monkeypatch.setattr("dti_geom.probes.material._NUMBERS_AT_ONCE", 1)
    chunked = measure_stagnation(encoder, words=3, scales=(4,))
    for one, two in zip(whole.scales[0].branches, chunked.scales[0].branches, strict=True):
        for name in ("turn", "relative_update", "largest_update", "angle", "largest_angle"):
            assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-4)


def test_hooks_are_gone_afterwards(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    measure_stagnation(encoder, words=2, scales=(1,))
    assert not any(
        part._forward_hooks or part._forward_pre_hooks for part in encoder.module.modules()
    )


@pytest.mark.parametrize("family", ["sd15", "sana", "t5"])
def test_no_turn_exceeds_its_bound(
    single_encoders: dict[str, Path], sana_folder: Path, sd15_folder: Path, family: str
) -> None:
    folders = single_encoders | {"sana": sana_folder, "sd15": sd15_folder}
    (encoder,) = open_encoders(str(folders[family]), dtype=torch.float32)
    measured: Any = measure_stagnation(encoder, words=8)
    bounded = [
        branch
        for one in measured.scales
        for branch in one.branches
        if branch.bound is not None and branch.bound > 0
    ]
    assert len(bounded) > 4
    for branch in bounded:
        assert branch.angle <= branch.largest_angle <= branch.bound
        assert 0 < branch.tightness <= 1


def test_a_longer_word_is_turned_less(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder), dtype=torch.float32)
    measured = measure_stagnation(encoder, words=8, scales=(1, 8, 64))
    for branch in range(len(measured.bounds)):
        angles = [one.branches[branch].angle for one in measured.scales]
        assert angles == sorted(angles, reverse=True)


def test_a_learned_vector_goes_its_way_at_its_own_norm_and_at_the_scales(
    adding: Any, orthonormal: Tensor, learned_file: Callable[..., EmbeddingFile]
) -> None:
    learned = learned_vectors(
        [learned_file(20 * orthonormal[12], torch.zeros(16)), learned_file(torch.ones(768))]
    )
    measured = measure_stagnation(
        adding(2 * orthonormal[9], 2 * orthonormal[10]), learned, scales=(1, 4)
    )
    one: Any
    (one,) = measured.learned  # neither the zero vector nor the one of another width
    assert (one.token, one.index, one.norm) == ("<x>", 0, pytest.approx(20))
    assert one.inflation == pytest.approx(40)
    assert one.natural.start_norm == pytest.approx(20)
    assert one.natural.branches[1].angle == pytest.approx(math.atan(math.sqrt(8) / 20), rel=1e-5)
    assert one.angles == pytest.approx(
        [math.atan(math.sqrt(8) / start) for start in (0.5, 2)], rel=1e-5
    )
    # and is not among the words
    assert measured.natural.start_norm == pytest.approx(0.5)


def test_the_same_seed_gives_the_same_result_and_another_seed_other_words(
    sd15_folder: Path,
) -> None:
    (encoder,) = open_encoders(str(sd15_folder), dtype=torch.float32)
    first, again, other = (
        measure_stagnation(encoder, words=3, scales=(1,), seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.natural != other.natural


def test_a_post_norm_encoder_is_told_why(single_encoders: dict[str, Path]) -> None:
    encoders = open_encoders(str(single_encoders["bert"]))
    with pytest.raises(DoesNotApply, match="post-norm"):
        measure_stagnation(encoders[0])
    assert "post-norm" in measure_model(PROBES["stagnation"], "model", encoders).does_not_apply[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_towers_are_measured_and_the_result_round_trips(
    sdxl_folder: Path, learned_file: Callable[..., EmbeddingFile], dtype: torch.dtype
) -> None:
    encoders = open_encoders(str(sdxl_folder), dtype=dtype)
    told = []
    result = measure_model(
        PROBES["stagnation"],
        "model",
        encoders,
        learned_vectors([learned_file(torch.ones(48))]),
        words=3,
        scales=(1, 8),
        progress=lambda *heard: told.append(heard),
    )
    first, second = result.encoders
    assert (first.name, second.name) == ("text_encoder", "text_encoder_2")
    assert (first.dtype, len(first.learned), len(second.learned)) == (
        str(dtype).split(".")[1],
        0,
        1,
    )
    # SDXL's denoiser reads the state behind the first of the two blocks.
    assert [(one.block, one.kind) for one in first.bounds] == [(0, "attention"), (0, "mlp")]
    assert first.read == "block 1 of 2, before the final norm"
    assert told[:4] == [("states of text_encoder", done, 3) for done in range(4)]
    assert from_json(StagnationResult, to_json(first)) == first
    assert from_json(StagnationResult, to_json(second)) == second


def test_what_is_read_after_fewer_blocks_is_measured_as_far_as_it_is_read(
    sdxl_folder: Path,
) -> None:
    options: dict[str, Any] = {"words": 2, "scales": (1.0,)}
    (encoder, _), (whole, _) = open_encoders(str(sdxl_folder)), open_encoders(str(sdxl_folder))
    whole.tap = Tap()
    read, every = (measure_stagnation(one, **options) for one in (encoder, whole))
    assert len(every.bounds) == 2 * len(read.bounds)
    assert read.bounds == every.bounds[: len(read.bounds)]
    assert read.natural.branches == every.natural.branches[: len(read.bounds)]
