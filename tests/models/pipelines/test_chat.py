from pathlib import Path

import pytest
from transformers import AutoTokenizer

from dti_geom.models.pipelines.chat import as_message, tokens_before
from pipelines import qwen_tokenizer


@pytest.mark.parametrize("thinking", [True, False])
def test_a_prompt_stands_behind_as_many_tokens_as_are_counted(
    tmp_path: Path, thinking: bool
) -> None:
    qwen_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = as_message(tokenizer, "red cat", enable_thinking=thinking)
    tokens = tokenizer.tokenize(text)
    assert tokens[tokens_before(tokenizer, enable_thinking=thinking) :][:2] == ["red", "Ġcat"]
    assert ("<think>" in tokens) != thinking
