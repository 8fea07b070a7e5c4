"""Prompts as messages of a chat: what a language model's template writes before and behind them."""

from typing import Any

_MARK = "\ue000"  # a private character, which no template writes


def as_message(tokenizer: Any, prompt: str, *, enable_thinking: bool) -> str:
    """Return the template's text of one message, up to where the answer would begin."""
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=enable_thinking,
    )
    return text


def tokens_before(tokenizer: Any, *, enable_thinking: bool) -> int:
    """Return how many tokens of the template stand before a prompt."""
    text = as_message(tokenizer, _MARK, enable_thinking=enable_thinking)
    return len(tokenizer.encode(text[: text.index(_MARK)], add_special_tokens=False))
