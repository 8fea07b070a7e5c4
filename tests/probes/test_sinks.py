import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from dti_geom.files import from_json, to_json
from dti_geom.models import HiddenStates, Vocabulary, open_encoders
from dti_geom.probes.attention import CONTEXTS, AttentionResult, measure_attention
from dti_geom.probes.material import carrier_prompts, whole_words
from dti_geom.probes.sinks import PADDED, find_sinks

ROWS = torch.tensor([10, 20])
CARRIERS = ("one {} two", "one two {} three four")


class _Planted:
    """Two heads in one layer, one with planted sinks, and an output with one huge number.

    The first head looks at the first position 9 times as much as at another, and at padding, row 0,
    5 times. The second looks at all alike.
    """

    name = "planted"

    def __init__(self, *, causal: bool, positions: int | None = None) -> None:
        self.causal = causal
        self.token_table = torch.eye(64, 64) + 0.01
        self.position_table = None if positions is None else torch.zeros(positions, 64)
        self.vocabulary = Vocabulary(None, 64)

    def hidden_states(
        self, ids: Any, embeddings: Any, mask: Any, *, attention: Any = False
    ) -> HiddenStates:
        length = ids.shape[1]
        allowed = mask[:, None, None, :].bool().expand(-1, 2, length, -1)
        if self.causal:
            allowed = allowed & torch.ones(length, length).tril().bool()
        logits = torch.zeros(len(ids), 2, length, length)
        logits[:, 0] += math.log(5) * (ids == 0)[:, None, :]
        logits[:, 0, :, 0] = math.log(9)
        weights = logits.masked_fill(~allowed, -math.inf).softmax(dim=-1)
        huge = embeddings.clone()
        huge[:, 1, 7] = -500.0
        return HiddenStates((embeddings, huge), huge, (weights,) if attention else ())


Planted: Any = _Planted  # has only what the probe uses


def lengths() -> list[int]:
    found: list[int] = carrier_prompts(Planted(causal=True), CARRIERS).mask.sum(dim=1).tolist()
    return found


def test_a_planted_first_position_draws_its_share_of_a_causal_head() -> None:
    sinks = find_sinks(Planted(causal=True), ROWS, CARRIERS, causal=True)
    behind = [at for length in lengths() for at in range(1, length)]
    (layer,) = sinks.layers
    assert layer.first == pytest.approx([fmean(9 / (9 + at) for at in behind), sinks.even_first])
    assert sinks.even_first == pytest.approx(fmean(1 / (1 + at) for at in behind))
    # Padding stands behind every token, so none can attend to it.
    assert (layer.padding, sinks.even_padding) == ((0, 0), 0)


def test_padding_that_is_not_masked_draws_its_share_of_a_head_without_a_causal_mask() -> None:
    sinks = find_sinks(Planted(causal=False), ROWS, CARRIERS, causal=False)
    asking = [length for length in lengths() for _ in range(1, length)]
    (layer,) = sinks.layers
    assert layer.first[0] == pytest.approx(fmean(9 / (8 + n) for n in asking))
    shares = [5 * (PADDED - n) / (5 * (PADDED - n) + 9 + n - 1) for n in asking]
    assert layer.padding == pytest.approx([fmean(shares), sinks.even_padding])
    assert sinks.even_padding == pytest.approx(fmean((PADDED - n) / PADDED for n in asking))
    assert sinks.positions == PADDED


def test_where_there_is_no_room_for_padding_there_is_no_share() -> None:
    positions = max(lengths())
    sinks = find_sinks(
        Planted(causal=False, positions=positions), ROWS, ("a b {} c d",), causal=False
    )
    assert sinks.positions == positions
    assert (sinks.layers[0].padding, sinks.even_padding) == (None, None)


def test_a_planted_activation_is_found_with_its_token_and_dimension() -> None:
    encoder = Planted(causal=True)
    (layer,) = find_sinks(encoder, ROWS, ("{} one", "one {}"), causal=True).layers
    assert (layer.largest, layer.dimension) == (500, 7)
    assert layer.median == pytest.approx(0.01)
    second = int(carrier_prompts(encoder, ("{} one",)).ids[0, 1])
    assert layer.token in encoder.vocabulary.tokens([second, *ROWS.tolist()])


def test_shares_are_those_of_the_models_own_weights(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder), dtype=torch.float32)
    rows = whole_words(encoder, 1)
    found = find_sinks(encoder, rows, CONTEXTS, causal=True)
    prompts = carrier_prompts(encoder, CONTEXTS)
    ids = prompts.ids.clone()
    ids[torch.arange(len(ids)), prompts.places] = rows
    states = encoder.hidden_states(ids, encoder.token_table[ids], prompts.mask, attention=True)
    lengths = prompts.mask.sum(dim=1).tolist()
    for layer, weights, output in zip(
        found.layers, states.attention, states.states[1:], strict=True
    ):
        shares = [weights[row, 1, 1:length, 0] for row, length in enumerate(lengths)]
        assert layer.first[1] == pytest.approx(float(torch.cat(shares).mean()), rel=1e-4)
        real = output[prompts.mask.bool()].abs()
        assert layer.largest == pytest.approx(float(real.max()), rel=1e-4)
        assert layer.median == pytest.approx(float(real.median()), rel=1e-3)
        assert layer.dimension == int(real.max(dim=0).values.argmax())
    assert found.begin == encoder.vocabulary.tokens([int(ids[0, 0])])[0]


def test_the_attention_probe_measures_sinks_of_every_kind_of_encoder(
    single_encoders: dict[str, Path],
) -> None:
    (encoder,) = open_encoders(str(single_encoders["t5"]), dtype=torch.float32)
    result = measure_attention(encoder, words=2)
    assert result.sinks is not None
    assert [layer.layer for layer in result.sinks.layers] == [1, 2]
    for layer in result.sinks.layers:
        assert layer.padding is not None
        assert 0 < min(layer.padding) <= max(layer.padding) < 1
    assert from_json(AttentionResult, to_json(result)) == result
