from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from dti_geom.errors import DoesNotApply
from dti_geom.models import open_encoders
from dti_geom.probes.ask import FRAMES, QUESTION, RANDOM, measure_ask
from dti_geom.probes.learned import LearnedVector
from pipelines import gemma_tokenizer, qwen_tokenizer, seeded

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def qwen(folder: Path, *, tied: bool) -> Any:
    size = qwen_tokenizer(folder)
    config = transformers.Qwen3Config(**SIZES, vocab_size=size, tie_word_embeddings=tied)
    return _saved(lambda: transformers.Qwen3ForCausalLM(config), folder)


def gemma(folder: Path) -> Any:
    size = gemma_tokenizer(folder)
    config = transformers.Gemma2Config(
        **SIZES, vocab_size=size, query_pre_attn_scalar=8, final_logit_softcapping=0.5
    )
    return _saved(lambda: transformers.Gemma2ForCausalLM(config), folder)


def gemma_alone(folder: Path) -> Any:
    """As SANA's text encoder: the body without a head, which Gemma ties to the token table."""
    model = gemma(folder)
    model.model.save_pretrained(folder)
    return model


def mistral(folder: Path) -> Any:
    size = qwen_tokenizer(folder, chat=False)
    config = transformers.MistralConfig(**SIZES, vocab_size=size)
    return _saved(lambda: transformers.MistralForCausalLM(config), folder)


def llama(folder: Path) -> Any:
    size = qwen_tokenizer(folder, chat=False)
    config = transformers.LlamaConfig(**SIZES, vocab_size=size)
    return _saved(lambda: transformers.LlamaForCausalLM(config), folder)


def _saved(build: Callable[[], Any], folder: Path) -> Any:
    model = seeded(build, 1)
    model.save_pretrained(folder)
    return model.eval()


BUILDERS: dict[str, Callable[[Path], Any]] = {
    "Qwen, tied": lambda folder: qwen(folder, tied=True),
    "Qwen, with a head": lambda folder: qwen(folder, tied=False),
    "Gemma-2": gemma,
    "Gemma-2 alone": gemma_alone,
    "Mistral": mistral,
    "Llama": llama,
}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An encoder of a tiny language model in the published layout."""
    folder = tmp_path_factory.mktemp("qwen")
    qwen(folder, tied=True)
    (encoder,) = open_encoders(str(folder))
    return encoder


def learned(vector: Tensor) -> list[LearnedVector]:
    return [LearnedVector("<x>", 0, None, Path("x.bin"), vector, "<x>")]


@pytest.mark.parametrize("name", BUILDERS)
def test_logits_are_those_of_the_whole_language_model(name: str, tmp_path: Path) -> None:
    model = BUILDERS[name](tmp_path)
    (encoder,) = open_encoders(str(tmp_path))
    ids = torch.tensor([[5, 9, 4, 7]])
    with torch.no_grad():
        expected = model(ids).logits
    found = encoder.logits(encoder.hidden_states(ids).last)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_words_own_row_gives_the_words_own_answer_bit_for_bit(spoken: Any) -> None:
    (row,) = spoken.vocabulary.rows("cat")
    by_word = measure_ask(spoken, tokens="cat", length=4)
    by_vector = measure_ask(spoken, learned(spoken.token_table[row]), tokens="<x>", length=4)
    (word,), (vector,) = by_word.tokens, by_vector.tokens
    assert word.answers == vector.answers
    assert [answer.frame for answer in word.answers] == [*FRAMES, QUESTION]
    # Random directions of the same length, too.
    assert by_word.random == by_vector.random


def test_a_word_never_answers_itself(spoken: Any) -> None:
    for asked in measure_ask(spoken, tokens=["cat", "dog"], length=6).tokens:
        assert all(asked.id not in answer.ids for answer in asked.answers)


def test_likelihoods_are_those_of_the_answer_after_the_frame(spoken: Any) -> None:
    (asked,) = measure_ask(spoken, tokens="cat", length=3).tokens
    answer = asked.answers[0]
    frame = spoken.vocabulary.tokenizer(FRAMES[0].replace("{}", "cat"))["input_ids"]
    ids = torch.tensor([[*frame, *answer.ids]])
    logits = spoken.logits(spoken.hidden_states(ids).last)[0, len(frame) - 1 : -1]
    logits[:, asked.id] = -torch.inf
    expected = logits.log_softmax(-1).gather(1, torch.tensor(answer.ids)[:, None]).mean()
    assert answer.log_likelihood == pytest.approx(float(expected), abs=1e-5)


def echo(encoder: Any, *, deaf: bool) -> Any:
    return Echo(encoder, deaf)


class Echo:
    """A language model that names rows near a vector, whatever the frame; others it ignores."""

    def __init__(self, encoder: Any, deaf: bool) -> None:
        self.encoder, self.deaf = encoder, deaf

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def hidden_states(self, ids: Tensor, rows: Tensor, mask: Tensor) -> Any:
        table = self.encoder.token_table.float()
        strange = (rows[0] - table[ids[0]]).norm(dim=-1).argmax()
        vector = table[3] if self.deaf else rows[0, strange]
        self.last = vector.expand_as(rows)
        return self

    def logits(self, last: Tensor) -> Tensor:
        table = torch.nn.functional.normalize(self.encoder.token_table.float(), dim=-1)
        cosines = torch.nn.functional.normalize(last, dim=-1) @ table.T
        return 40 * (cosines - 0.6).relu()


def test_what_any_vector_is_called_counts_as_not_heard(spoken: Any) -> None:
    vector = spoken.token_table[20].float() + spoken.token_table[21].float()
    hears = measure_ask(echo(spoken, deaf=False), learned(vector), tokens="<x>", length=2)
    assert hears.heard(hears.tokens[0])
    assert len(hears.random) == RANDOM
    deaf = measure_ask(echo(spoken, deaf=True), learned(vector), tokens="<x>", length=2)
    assert deaf.tokens[0].gain == pytest.approx(0, abs=1e-6)
    assert not deaf.heard(deaf.tokens[0])


def test_an_encoder_that_cannot_speak_says_so(tmp_path: Path) -> None:
    (mini,) = open_encoders("mini")
    with pytest.raises(DoesNotApply, match="CLIP text tower and cannot speak"):
        measure_ask(mini, tokens="fox")
    size = qwen_tokenizer(tmp_path)
    config = transformers.Qwen3Config(**SIZES, vocab_size=size, tie_word_embeddings=False)
    _saved(lambda: transformers.Qwen3Model(config), tmp_path)
    (headless,) = open_encoders(str(tmp_path))
    with pytest.raises(DoesNotApply, match=r"has no lm_head\.weight.*Fetch the whole"):
        measure_ask(headless, tokens="cat")
