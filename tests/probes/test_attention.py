import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dti_geom.errors import DoesNotApply
from dti_geom.files import EmbeddingFile, from_json, to_json
from dti_geom.models import HiddenStates, Vocabulary, open_encoders
from dti_geom.probes import attention
from dti_geom.probes.attention import AttentionResult, measure_attention
from dti_geom.probes.learned import learned_vectors
from dti_geom.probes.material import carrier_prompts, run_prompts, whole_words
from dti_geom.probes.measuring import measure_model
from dti_geom.probes.registry import PROBES

WIDTH = 65  # 64 orthonormal rows, and one direction that is in none of them


class _OneHead:
    """One attention layer: every query's logit for a key is the key's last coordinate."""

    name = "one-head"
    position_table = None

    def __init__(self, *, causal: Any = True, dtype: torch.dtype = torch.float32) -> None:
        self.causal, self.dtype = causal, dtype
        self.token_table = torch.eye(64, WIDTH)
        self.vocabulary = Vocabulary(None, 64)

    def hidden_states(
        self,
        input_ids: Any,
        embeddings: Any = None,
        attention_mask: Any = None,
        *,
        attention: Any = False,
    ) -> Any:
        x = embeddings.to(self.dtype)
        length = x.shape[1]
        allowed = attention_mask[:, None, None, :].bool().expand(-1, 1, length, -1)
        if self.causal:
            allowed = allowed & torch.ones(length, length).tril().bool()
        logits = x[:, None, None, :, -1].expand(-1, 1, length, -1)
        weights = logits.masked_fill(~allowed, -math.inf).softmax(dim=-1)
        mixed = weights[:, 0] @ x
        return HiddenStates((x, mixed), mixed, (weights,) if attention else ())


OneHead: Any = _OneHead  # has only what the probe uses


@pytest.fixture
def along_last(learned_file: Callable[..., EmbeddingFile]) -> Any:
    """A learned vector in the direction that the head looks for, at twice the mean norm."""
    return learned_vectors([learned_file(2 * torch.eye(WIDTH)[-1])])


def curves(encoder: Any, learned: Any, scales: Any = (0.5, 1.0, 4.0)) -> Any:
    found = measure_attention(encoder, learned, scales=scales)
    return found, found.curves[1]


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_a_hand_made_head_gives_the_closed_form(
    along_last: Any, dtype: torch.dtype, close: float
) -> None:
    found, learned = curves(OneHead(dtype=dtype), along_last)
    (head,) = learned.heads
    assert learned.scales == (0.5, 1.0, 2.0, 4.0)
    for at, m in enumerate(learned.scales):
        gets = [
            math.exp(m) / (math.exp(m) + before) for before in (4, 5, 6)
        ]  # positions 4 to 6 stand behind it
        mine, other = math.exp(m) / (math.exp(m) + 3), 1 / (math.exp(m) + 3)
        assert head.received[at] == pytest.approx(sum(gets) / 3, abs=close)
        assert head.itself[at] == pytest.approx(mine, abs=close)
        assert head.entropy[at] == pytest.approx(
            -mine * math.log(mine) - 3 * other * math.log(other), abs=4 * close
        )
    assert found.causal
    assert found.uniform == pytest.approx((1 / 5 + 1 / 6 + 1 / 7) / 3)
    assert found.most_entropy == pytest.approx(math.log(4))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_context_sensitivity_is_one_minus_the_mean_cosine_over_prompts(
    along_last: Any, dtype: torch.dtype, close: float
) -> None:
    encoder = OneHead(dtype=dtype)
    _, learned = curves(encoder, along_last)
    before = (
        torch.eye(64)[carrier_prompts(encoder, attention.CONTEXTS).ids[:, :3]].sum(dim=1).double()
    )
    for at, m in enumerate(learned.scales):
        state = torch.cat([before, torch.full((len(before), 1), math.exp(m) * m)], dim=1)
        cosines = torch.nn.functional.cosine_similarity(state[:, None], state[None], dim=-1)
        pairs = len(before) * (len(before) - 1)
        expected = 1 - float(cosines.sum() - len(before)) / pairs
        assert [one.layer for one in learned.sensitivity] == [0, 1]
        for one in learned.sensitivity:
            assert one.values[at] == pytest.approx(expected, abs=close)


def test_words_the_head_does_not_look_for_get_an_equal_share_at_any_norm() -> None:
    found = measure_attention(OneHead())
    (head,) = found.curves[0].heads
    assert head.received == pytest.approx([found.uniform] * 8)
    assert head.entropy == pytest.approx([found.most_entropy] * 8)


def test_without_a_causal_mask_every_other_position_may_attend(along_last: Any) -> None:
    found, learned = curves(OneHead(causal=False), along_last)
    m = learned.scales[0]
    assert not found.causal
    assert learned.heads[0].received[0] == pytest.approx(math.exp(m) / (math.exp(m) + 6))
    assert found.uniform == pytest.approx(1 / 7)


def test_padding_neither_attends_nor_counts(
    along_last: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CONTEXTS", ("{} one two", "{} one"))
    found, learned = curves(OneHead(causal=False), along_last)
    m = learned.scales[0]
    gets = [math.exp(m) / (math.exp(m) + others) for others in (2, 1)]
    assert learned.heads[0].received[0] == pytest.approx(sum(gets) / 2)
    assert found.uniform == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert len(found.mapped) == 3


def test_a_prompt_in_which_nothing_may_attend_to_the_token_is_left_out(
    along_last: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CONTEXTS", ("one {}", "one {} two"))
    _, learned = curves(OneHead(), along_last)
    m = learned.scales[0]
    assert learned.heads[0].received[0] == pytest.approx(math.exp(m) / (math.exp(m) + 2))
    monkeypatch.setattr(attention, "CONTEXTS", ("one {}", "two {}"))
    with pytest.raises(DoesNotApply, match="in no prompt may any other position attend"):
        measure_attention(OneHead())


def test_contexts_without_a_common_place_do_not_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "CONTEXTS", ("one {} two", "{} two"))
    with pytest.raises(DoesNotApply, match="no two prompts have the token at one place"):
        measure_attention(OneHead())


def test_an_encoder_without_weights_is_refused() -> None:
    class Silent(_OneHead):
        def hidden_states(self, *arguments: Any, **options: Any) -> Any:
            no_weights: Any = (None,)
            states = super().hidden_states(*arguments, **options)
            return HiddenStates(states.states, states.last, no_weights)

    silent: Any = Silent()
    with pytest.raises(DoesNotApply, match="no attention weights"):
        measure_attention(silent)


def test_maps_are_the_weights_of_the_first_prompt_with_a_word_in_it() -> None:
    found = measure_attention(OneHead())
    assert [(one.layer, one.scale) for one in found.maps] == [(1, 1.0), (1, 4.0), (1, 32.0)]
    expected = torch.ones(7, 7).tril() / torch.arange(1, 8)[:, None]
    torch.testing.assert_close(torch.tensor(found.maps[0].weights), expected)
    assert found.place == 3
    assert len(found.mapped) == 7


def test_figures_are_read_off_the_models_own_attention(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    found = measure_attention(encoder, words=1, scales=(1.0,))
    prompts = carrier_prompts(encoder, attention.CONTEXTS)
    ids = prompts.ids.clone()
    ids[torch.arange(len(ids)), prompts.places] = whole_words(encoder, 1)
    vectors = encoder.token_table[ids]
    at = torch.arange(len(ids)), prompts.places
    vectors[at] = vectors[at] * (found.mean_norm / vectors[at].norm(dim=-1, keepdim=True))
    states = encoder.hidden_states(ids, vectors, prompts.mask, attention=True)
    received = [
        sum(
            float(states.attention[1][prompt, 2, source, place])
            for source in range(place + 1, int(prompts.mask[prompt].sum()))
        )
        / (int(prompts.mask[prompt].sum()) - place - 1)
        for prompt, place in enumerate(prompts.places.tolist())
    ]
    head = next(one for one in found.curves[0].heads if (one.layer, one.head) == (2, 3))
    assert head.received[0] == pytest.approx(sum(received) / len(received), rel=1e-4)


def test_the_kernel_is_as_it_was_afterwards(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    config: Any = encoder.module.config
    kernel = config._attn_implementation
    measure_attention(encoder, words=2)
    assert config._attn_implementation == kernel != "eager"


@pytest.mark.parametrize(
    ("family", "causal"), [("t5", False), ("bert", False), ("llama", True), ("sana", True)]
)
def test_it_runs_on_every_kind_of_encoder(
    single_encoders: dict[str, Path], sana_folder: Path, family: str, causal: Any
) -> None:
    folders = single_encoders | {"sana": sana_folder}
    (encoder,) = open_encoders(str(folders[family]), dtype=torch.float32)
    found = measure_attention(encoder, words=2)
    assert found.causal == causal
    assert len(found.curves[0].heads) == 8


def test_the_result_of_a_model_round_trips_through_json(
    sdxl_folder: Path, learned_file: Callable[..., EmbeddingFile]
) -> None:
    learned = learned_vectors([learned_file(torch.ones(32))])
    encoders = open_encoders(str(sdxl_folder))
    found = measure_model(PROBES["attention"], "mine", encoders, learned, words=2)
    assert [len(one.curves) for one in found.encoders] == [2, 1]
    assert from_json(AttentionResult, to_json(found.encoders[0])) == found.encoders[0]


def test_context_sensitivity_of_sdxl_is_that_of_the_state_its_denoiser_reads(
    sdxl_folder: Path,
) -> None:
    encoder, _ = open_encoders(str(sdxl_folder))
    read, first, last = measure_attention(encoder, words=2).curves[0].sensitivity
    # Of two blocks the denoiser reads the first one's output.
    assert (read.layer, read.values) == (0, first.values)
    assert read.values != last.values


def test_context_sensitivity_is_centred_and_its_share_of_variance_is_known(
    sd15_folder: Path, learned_file: Callable[..., EmbeddingFile]
) -> None:
    """Known from the states themselves: about the mean word, between contexts of one word."""
    (encoder,) = open_encoders(str(sd15_folder), dtype=torch.float32)
    vector = 3 * encoder.token_table[7].float()
    learned = learned_vectors([learned_file(vector)])
    found = measure_attention(encoder, learned, words=3, scales=(1.0, 4.0))
    prompts = carrier_prompts(encoder, attention.CONTEXTS)
    table = encoder.token_table
    words = torch.nn.functional.normalize(table[whole_words(encoder, 3)].float(), dim=-1)
    every = torch.arange(len(prompts.places))

    def read(vectors: torch.Tensor) -> torch.Tensor:
        (states,) = run_prompts(encoder, prompts, vectors, "")
        rows: torch.Tensor = states.read.unflatten(0, (-1, len(every)))
        return rows[:, every, prompts.places]

    # Two contexts have the token at one place, four at another.
    groups = [[0, 1], [2, 3, 4, 5]]
    assert [len(set(prompts.places[group].tolist())) for group in groups] == [1, 1]
    for curves, directions in (
        (found.curves[0], words),
        (found.curves[1], torch.nn.functional.normalize(vector, dim=-1)[None]),
    ):
        sensitivity = curves.sensitivity[0]
        for at, scale in enumerate(curves.scales):
            norm = scale * found.mean_norm
            states, ordinary = read(norm * directions), read(norm * words)
            within = total = 0.0
            apart: list[float] = []
            for group in groups:
                about = states[:, group] - ordinary[:, group].mean(dim=(0, 1))
                total += float(about.square().sum())
                within += float((about - about.mean(dim=1, keepdim=True)).square().sum())
                unit = torch.nn.functional.normalize(about, dim=-1)
                others = ~torch.eye(len(group), dtype=torch.bool)
                apart += (1 - (unit @ unit.mT)[:, others]).flatten().tolist()
            assert sensitivity.share[at] == pytest.approx(within / total, rel=1e-3)
            assert sensitivity.centred[at] == pytest.approx(sum(apart) / len(apart), rel=1e-3)
    assert found.read == "block 2 of 2, after the final norm"
