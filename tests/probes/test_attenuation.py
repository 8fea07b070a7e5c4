import dataclasses
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
from dti_geom.probes.attenuation import AttenuationResult, measure_attenuation
from dti_geom.probes.learned import learned_vectors
from dti_geom.probes.measuring import measure_model
from dti_geom.probes.registry import PROBES

SCALES = tuple(2.0**power for power in range(-3, 9))
WORDS, POSITIONS, LENGTH, STEP = 8, 4, 0.5, 0.3  # STEP is the norm of a position


@pytest.fixture
def orthogonal(tiny_encoder: Callable[..., Any], orthonormal: Tensor) -> Any:
    """Orthogonal words and positions, a plain LayerNorm and an identity head: all is known."""

    def build(dtype: torch.dtype = torch.float32, norm: Any = None, positions: Any = None) -> Any:
        norm = norm or nn.LayerNorm(16, eps=0, elementwise_affine=False)
        attention: Any = nn.Module()
        attention.q_proj = attention.k_proj = nn.Identity()
        attention.num_heads = 1
        positions = (
            STEP * orthonormal[WORDS : WORDS + POSITIONS] if positions is None else positions
        )
        return tiny_encoder(
            (LENGTH * orthonormal[:WORDS]).to(dtype), positions.to(dtype), [(norm, attention)]
        )

    return build


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_orthogonal_words_and_positions_give_the_closed_form(
    orthogonal: Any, dtype: torch.dtype, tolerance: float
) -> None:
    scales = (
        SCALES if dtype == torch.float32 else SCALES[:7]
    )  # beyond, bfloat16 rounds the position away
    measured: Any = measure_attenuation(orthogonal(dtype), scales=scales)
    assert (measured.words, measured.positions, measured.chance) == (
        WORDS,
        POSITIONS,
        1 / POSITIONS,
    )
    for one in measured.scales:
        token, position = (one.scale * LENGTH) ** 2, STEP**2
        by_position, by_word = position * (1 - 1 / POSITIONS), token * (1 - 1 / WORDS)
        assert one.position_share == pytest.approx(
            by_position / (by_position + by_word), rel=tolerance
        )
        assert one.word_share == pytest.approx(by_word / (by_position + by_word), rel=tolerance)
        assert one.cosine == pytest.approx(token / (token + position), rel=tolerance)
        on_position = position**2 / POSITIONS * (1 - 1 / POSITIONS)
        on_word = token**2 / WORDS * (1 - 1 / WORDS)
        assert one.logit_share == pytest.approx(
            on_position / (on_position + on_word), rel=3 * tolerance
        )
        distance = math.sqrt(2 * 16 * (1 - math.sqrt(token / (token + position))))
        assert one.distance == pytest.approx(distance, rel=tolerance)
        assert one.largest_distance == pytest.approx(distance, rel=tolerance)
        assert one.bound == pytest.approx(
            math.sqrt(16) * 2 * STEP / (one.scale * LENGTH), rel=tolerance
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slopes_are_minus_two_and_minus_one_where_theory_applies(
    orthogonal: Any, dtype: torch.dtype
) -> None:
    measured = measure_attenuation(orthogonal(dtype), scales=SCALES)
    # ‖p‖ ≤ ‖e‖/4 from ×2.4 on; in bfloat16 it falls under eight epsilons, 1/16 of ‖e‖, beyond ×9.6
    assert measured.fitted == ((4, 256) if dtype == torch.float32 else None)
    if dtype == torch.float32:
        assert measured.share_slope == pytest.approx(-2, abs=0.01)
        assert measured.distance_slope == pytest.approx(-1, abs=0.01)
    else:
        assert measured.share_slope is None
        finer = measure_attenuation(orthogonal(dtype), scales=(3, 4, 5, 6, 7, 8, 9, 10))
        assert finer.fitted == (3, 9)
        assert finer.share_slope == pytest.approx(-2, abs=0.1)
        assert finer.distance_slope == pytest.approx(-1, abs=0.1)


def test_a_large_epsilon_inside_the_norm_moves_the_fit_to_longer_tokens(orthogonal: Any) -> None:
    norm = nn.LayerNorm(16, eps=0.009, elementwise_affine=False)
    # variance ‖e‖²/16 ≥ 100 · 0.009 from ×8 on
    assert measure_attenuation(orthogonal(norm=norm), scales=SCALES).fitted == (8, 256)


def test_no_distance_exceeds_the_bound_whatever_gain_and_bias(
    tiny_encoder: Callable[..., Any],
) -> None:
    generator = torch.Generator().manual_seed(0)
    for centred in (True, False):
        norm = nn.LayerNorm(32) if centred else nn.RMSNorm(32)
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter.copy_(torch.randn(32, generator=generator))
        table, positions = (
            torch.randn(40, 32, generator=generator),
            5 + torch.randn(9, 32, generator=generator),
        )
        encoder = tiny_encoder(table, positions, [(norm, nn.Identity())])
        encoder.normalization = "layer_norm" if centred else "rms_norm"
        measured: Any = measure_attenuation(encoder)
        assert measured.gain == pytest.approx(float(norm.weight.detach().abs().max()))
        for one in (measured.natural, *measured.scales):
            assert one.distance < one.largest_distance <= one.bound
        # both fall as 1/m, so that their ratio stays
        assert measured.scales[-1].largest_distance > 0.1 * measured.scales[-1].bound


def test_the_bound_of_a_layer_norm_ignores_the_mean_of_a_position(
    orthogonal: Any, orthonormal: Tensor
) -> None:
    shifted = STEP * orthonormal[WORDS : WORDS + POSITIONS] + 7
    plain, other = (measure_attenuation(orthogonal(positions=each)) for each in (None, shifted))
    for one, two in zip(plain.scales, other.scales, strict=True):
        assert two.bound == pytest.approx(one.bound, rel=1e-4)
        assert two.position_share == pytest.approx(one.position_share, rel=1e-3)


def test_positions_that_are_all_alike_explain_nothing_and_are_read_at_chance(
    orthogonal: Any, orthonormal: Tensor
) -> None:
    measured = measure_attenuation(orthogonal(positions=STEP * orthonormal[[9] * POSITIONS]))
    for one in (measured.natural, *measured.scales):
        assert one.position_share == pytest.approx(0, abs=1e-12)
        assert one.cosine == pytest.approx(1)
        assert one.accuracy == pytest.approx(1 / POSITIONS)
    assert measured.share_slope is None


def test_without_projections_there_is_no_logit_share(
    tiny_encoder: Callable[..., Any], orthonormal: Tensor
) -> None:
    norm = nn.LayerNorm(16, elementwise_affine=False)
    encoder = tiny_encoder(orthonormal[:8], orthonormal[8:12], [(norm, nn.Identity())])
    assert measure_attenuation(encoder).natural.logit_share is None


def test_the_classifier_is_asked_about_words_it_has_not_seen_at_every_position(
    orthogonal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        """Right about what it has seen; about all else it says 0."""

        def __init__(self, states: Any) -> None:
            self.seen = {
                tuple(row): place for word in states.tolist() for place, row in enumerate(word)
            }

        def predict(self, states: Any) -> Any:
            return torch.tensor([self.seen.get(tuple(row), 0) for row in states.tolist()]).numpy()

    monkeypatch.setattr("dti_geom.probes.attenuation._fit_classifier", Memory)
    measured = measure_attenuation(orthogonal())
    assert measured.natural.accuracy_by_position == (1, 0, 0, 0)
    assert measured.natural.accuracy == 1 / POSITIONS


def test_a_position_is_read_better_the_shorter_the_token() -> None:
    (encoder,) = open_encoders("mini", dtype=torch.float32)
    measured = measure_attenuation(encoder, words=64, scales=(1, 4, 16, 64))
    accuracies = [one.accuracy for one in measured.scales]
    assert accuracies == sorted(accuracies, reverse=True)
    assert measured.natural.accuracy > 0.99
    assert accuracies[-1] < 3 * measured.chance
    assert all(len(one.accuracy_by_position) == 24 for one in measured.scales)
    assert accuracies[1] == pytest.approx(sum(measured.scales[1].accuracy_by_position) / 24)


def test_a_learned_vector_is_measured_at_its_own_norm(
    orthogonal: Any, orthonormal: Tensor, learned_file: Callable[..., EmbeddingFile]
) -> None:
    learned = learned_vectors(
        [learned_file(8 * LENGTH * orthonormal[0], torch.zeros(16), LENGTH * orthonormal[13])]
    )
    measured: Any = measure_attenuation(orthogonal(), learned, scales=(1, 8))
    inflated, usual = measured.learned  # the zero vector has no direction
    assert (inflated.token, inflated.index, usual.index) == ("<x>", 0, 2)
    assert (inflated.inflation, usual.inflation) == (pytest.approx(8), pytest.approx(1))
    for one, at in ((usual, measured.scales[0]), (inflated, measured.scales[1])):
        assert one.cosine == pytest.approx(at.cosine, rel=1e-5)
        assert one.largest_distance == pytest.approx(at.largest_distance, rel=1e-5)
        assert one.bound == pytest.approx(at.bound, rel=1e-5)
    assert (
        measure_attenuation(orthogonal(), learned_vectors([learned_file(torch.ones(768))])).learned
        == ()
    )


def test_a_vector_that_the_norm_removes_altogether_has_no_bound(
    orthogonal: Any, learned_file: Callable[..., EmbeddingFile]
) -> None:
    (one,) = measure_attenuation(
        orthogonal(), learned_vectors([learned_file(torch.ones(16))])
    ).learned
    assert one.bound is None
    assert one.cosine == pytest.approx(0, abs=1e-6)


def test_the_same_seed_gives_the_same_result_and_another_seed_other_words() -> None:
    (encoder,) = open_encoders("mini", dtype=torch.float32)
    first, again, other = (
        measure_attenuation(encoder, words=20, scales=(1,), seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.natural.cosine != other.natural.cosine


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("llama", "rotary positions: nothing is added"),
        ("t5", "relative positions"),
        ("bert", "post-norm"),
    ],
)
def test_encoders_without_positions_at_the_first_norm_are_told_why(
    single_encoders: dict[str, Path], family: str, reason: str
) -> None:
    encoders = open_encoders(str(single_encoders[family]))
    with pytest.raises(DoesNotApply, match=reason):
        measure_attenuation(encoders[0])
    result = measure_model(PROBES["attenuation"], "model", encoders)
    assert result.encoders == ()
    assert reason in result.does_not_apply[0]


def test_too_few_words_or_positions_are_told(
    orthogonal: Any, tiny_encoder: Callable[..., Any], orthonormal: Tensor
) -> None:
    with pytest.raises(DoesNotApply, match="1 position; at least two"):
        measure_attenuation(orthogonal(positions=torch.ones(1, 16)))
    norm = nn.LayerNorm(16)
    with pytest.raises(DoesNotApply, match="3 whole words; four"):
        measure_attenuation(tiny_encoder(orthonormal[:3], orthonormal[8:12], [(norm, norm)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_towers_are_measured_and_the_result_round_trips(
    sdxl_folder: Path, learned_file: Callable[..., EmbeddingFile], dtype: torch.dtype
) -> None:
    encoders = open_encoders(str(sdxl_folder), dtype=dtype)
    told = []
    result = measure_model(
        PROBES["attenuation"],
        "model",
        encoders,
        learned_vectors([learned_file(torch.ones(48))]),
        words=12,
        scales=(1, 8, 64),
        progress=lambda *heard: told.append(heard),
    )
    first, second = result.encoders
    assert (first.name, second.name) == ("text_encoder", "text_encoder_2")
    assert (first.dtype, len(first.learned), len(second.learned)) == (
        str(dtype).split(".")[1],
        0,
        1,
    )
    assert first.natural.logit_share is not None
    assert told[:6] == [("positions of text_encoder", done, 5) for done in range(6)]
    assert from_json(AttenuationResult, to_json(first)) == first
    assert from_json(AttenuationResult, to_json(second)) == second


def test_chunks_change_nothing(orthogonal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure_attenuation(orthogonal(), scales=(1, 8))
    monkeypatch.setattr("dti_geom.probes.material._NUMBERS_AT_ONCE", 1)
    for one, two in zip(
        whole.scales, measure_attenuation(orthogonal(), scales=(1, 8)).scales, strict=True
    ):
        for field in dataclasses.fields(one):
            assert getattr(one, field.name) == pytest.approx(getattr(two, field.name), rel=1e-6)
