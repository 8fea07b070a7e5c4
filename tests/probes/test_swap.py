import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dti_geom.errors import DoesNotApply, DtiGeomError, UnknownToken
from dti_geom.files import EmbeddingFile, from_json, to_json
from dti_geom.models import HiddenStates, Vocabulary, open_encoders
from dti_geom.models.encoders.base import Tap
from dti_geom.probes.learned import learned_vectors
from dti_geom.probes.measuring import measure_model
from dti_geom.probes.registry import PROBES
from dti_geom.probes.swap import CENTRE, SwapResult, measure_swap

EYE = torch.eye(64)


class _Reader:
    """An encoder whose state at each position is some reading of the embeddings up to there."""

    name = "reader"
    position_table = None

    def __init__(self, read: Any, table: Any = EYE, dtype: torch.dtype = torch.float32) -> None:
        self.read, self.token_table, self.dtype = read, table, dtype
        self.vocabulary = Vocabulary(None, len(table))

    def hidden_states(
        self,
        input_ids: Any,
        embeddings: Any = None,
        attention_mask: Any = None,
        *,
        attention: Any = False,
    ) -> Any:
        states = self.read(embeddings).to(self.dtype)
        return HiddenStates((states, states), states)


Reader: Any = _Reader  # has only what the probe uses


def add_up(embeddings: Any) -> Any:
    return embeddings.cumsum(dim=1)


def directions_only(embeddings: Any) -> Any:
    return torch.nn.functional.normalize(embeddings, dim=-1).cumsum(dim=1)


def norms_only(embeddings: Any) -> Any:
    return embeddings.norm(dim=-1, keepdim=True).cumsum(dim=1)


def spread_norms(seed: Any = 0) -> Any:
    """64 directions with norms from 1 to 8."""
    rows = torch.randn(64, 32, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=-1, keepdim=True) * torch.logspace(0, 3, 64, base=2)[:, None]


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_an_encoder_that_reads_directions_alone_always_follows_direction(
    dtype: torch.dtype, close: float
) -> None:
    found = measure_swap(Reader(directions_only, spread_norms(), dtype), count=8)
    assert {one.output for one in found.sums} == {"token", "pooled", "end"}
    for one in found.sums:
        assert one.direction == pytest.approx(1, abs=close)
        assert one.magnitude == pytest.approx(one.donors, abs=close)
        assert (one.wins.right, one.wins.total) == (8, 8)
    assert all(
        value == pytest.approx(1, abs=close)
        for one in found.curves[0].outputs
        for value in one.similarity
    )
    assert all(one.leaves is None for one in found.curves[0].outputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_encoder_that_reads_norms_alone_always_follows_magnitude(dtype: torch.dtype) -> None:
    found = measure_swap(Reader(norms_only, spread_norms(), dtype), count=8, stretches=(4.0,))
    for one in found.sums:
        # The shorter of each pair lies below the mean norm, the longer above it: opposite
        # differences from the mean.
        assert one.magnitude == pytest.approx(1, abs=2e-2)
        assert one.direction == pytest.approx(-1, abs=2e-2)
        assert one.wins.right == 0


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_similarities_match_the_closed_form_of_a_sum_of_orthonormal_words(
    dtype: torch.dtype, close: float
) -> None:
    scales = (0.5, 1.0, 4.0)
    found = measure_swap(
        Reader(add_up, dtype=dtype), count=4, stretches=(1.0,), scales=scales, words=CENTRE
    )
    share = (
        1 / CENTRE
    )  # of the centre c along each word e of those it is the mean of; |c|² is the same
    expected = [
        (s - s * share) / math.sqrt((s * s - 2 * s * share + share) * (1 - share)) for s in scales
    ]
    for one in found.curves[0].outputs:
        assert one.similarity == pytest.approx(expected, abs=close)
        assert one.low == pytest.approx(expected, abs=close)
        assert one.high == pytest.approx(expected, abs=close)
    for total in found.sums:  # all norms are one, so the swap changes nothing
        assert total.direction == pytest.approx(1, abs=close)
        assert total.ratio == pytest.approx(1)


def test_prompts_that_end_in_the_token_count_for_the_token_alone() -> None:
    found = measure_swap(Reader(lambda embeddings: embeddings), count=4)  # no position sees another
    by_output = {one.output: one for one in found.curves[0].outputs}
    assert by_output["token"].similarity[-1] > 0.9
    assert by_output["pooled"].similarity == pytest.approx([0.0] * 8)
    assert by_output["end"].similarity == pytest.approx([0.0] * 8)


def test_an_output_that_turns_round_leaves_itself_where_it_does() -> None:
    def turn(embeddings: Any) -> Any:  # above norm 3 the sign flips
        return (embeddings * (1 - 2 * (embeddings.norm(dim=-1, keepdim=True) > 3).float())).cumsum(
            dim=1
        )

    found = measure_swap(Reader(turn), count=4, scales=(0.25, 1.0, 2.0, 4.0, 8.0))
    assert [one.leaves for one in found.curves[0].outputs] == [4.0, 4.0, 4.0]


def test_drawn_pairs_join_short_words_to_long_ones_and_are_seeded() -> None:
    encoder = Reader(add_up, spread_norms())
    found = measure_swap(encoder, count=16, seed=3)
    middle = encoder.token_table.norm(dim=-1).median()
    assert len(found.pairs) == 16
    for pair in found.pairs:
        assert pair.norms[0] < middle < pair.norms[1]
    plain, stretched = found.sums[0], found.sums[-1]
    ratios = torch.tensor([pair.norms[1] / pair.norms[0] for pair in found.pairs])
    assert plain.ratio == pytest.approx(float(ratios.median()), rel=1e-5)
    assert stretched.ratio == pytest.approx(16 * plain.ratio, rel=1e-5)
    assert measure_swap(encoder, count=16, seed=3) == found
    assert measure_swap(encoder, count=16, seed=4).pairs != found.pairs


def test_named_pairs_are_swapped_as_they_stand() -> None:
    encoder = Reader(directions_only, spread_norms())
    (pair,) = measure_swap(encoder, pairs=[("#5", "#60")]).pairs
    assert (pair.first, pair.second, pair.learned) == ("#5", "#60", False)
    assert pair.norms == pytest.approx(tuple(encoder.token_table[[5, 60]].norm(dim=-1).tolist()))


def test_words_of_a_category_are_paired_and_those_of_several_tokens_listed(
    sd15_folder: Path,
) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    found = measure_swap(encoder, category=["cat", "dog", "house", "catdog", "cat"], count=9)
    assert found.left_out == ("catdog",)
    assert len(found.pairs) == 1
    assert {found.pairs[0].first, found.pairs[0].second} <= {"cat", "dog", "house"}


def test_learned_vectors_are_swapped_and_swept_apart_from_the_words(
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    encoder = Reader(add_up, spread_norms())
    mean = float(encoder.token_table.norm(dim=-1).mean())
    files = [
        learned_file(5 * mean * torch.eye(32)[0], torch.eye(32)[1]),
        learned_file(torch.ones(9)),
    ]
    learned = learned_vectors(files)
    found = measure_swap(encoder, learned, count=8)
    assert [pair.first for pair in found.pairs if pair.learned] == ["<x>[0]"] * 8 + ["<x>[1]"] * 8
    assert found.sums == measure_swap(encoder, count=8).sums
    assert [curve.token for curve in found.curves] == [None, "<x>[0]", "<x>[1]"]
    assert found.curves[1].inflation == pytest.approx(5, rel=1e-5)
    assert found.curves[1].inflation in found.curves[1].scales


def test_tokens_that_cannot_be_swapped_are_refused_by_name(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    with pytest.raises(UnknownToken, match="'catx' is 3 tokens in text_encoder"):
        measure_swap(encoder, pairs=[("dog", "catx")])
    with pytest.raises(UnknownToken, match="names 'cat' twice"):
        measure_swap(encoder, pairs=[("cat", "cat")])
    with pytest.raises(DoesNotApply, match="1 word of one token"):
        measure_swap(encoder, category=["cat", "catx"])


def test_an_output_that_overflows_is_named_with_its_dtype() -> None:
    with pytest.raises(DtiGeomError, match="outputs in float16 are not finite"):
        measure_swap(Reader(lambda embeddings: 1e5 * embeddings, dtype=torch.float16))


@pytest.mark.parametrize("family", ["t5", "bert", "llama"])
def test_it_runs_on_every_kind_of_encoder(single_encoders: dict[str, Path], family: str) -> None:
    (encoder,) = open_encoders(str(single_encoders[family]), dtype=torch.float32)
    assert len(measure_swap(encoder, count=2, words=2).sums) == 9


def test_the_result_of_a_model_round_trips_through_json(sdxl_folder: Path) -> None:
    found = measure_model(PROBES["swap"], "mine", open_encoders(str(sdxl_folder)), count=2)
    assert [one.name for one in found.encoders] == ["text_encoder", "text_encoder_2"]
    assert from_json(SwapResult, to_json(found.encoders[0])) == found.encoders[0]


def test_the_token_output_of_sdxl_is_the_state_its_denoiser_reads(sdxl_folder: Path) -> None:
    options: dict[str, Any] = {"pairs": [("cat", "dog")], "words": 2}
    (first, _), (other, _) = open_encoders(str(sdxl_folder)), open_encoders(str(sdxl_folder))
    other.tap = Tap()
    read, last = (measure_swap(encoder, **options) for encoder in (first, other))
    by_output = [{sum.output: sum.direction for sum in result.sums} for result in (read, last)]
    assert by_output[0]["token"] != by_output[1]["token"]
    assert by_output[0]["pooled"] == by_output[1]["pooled"]
    assert by_output[0]["end"] == by_output[1]["end"]
