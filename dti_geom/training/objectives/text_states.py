"""What the text encoders make of prompts, place by place, for objectives on text alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dti_geom.models.encoders.base import Tap
from dti_geom.models.pipelines import TextToImage, Tower
from dti_geom.models.pipelines.base import names_of


@dataclass(frozen=True)
class TextStates:
    """What is read of one text encoder for some prompts, without their padding."""

    tower: Tower
    ids: list[list[int]]  # of each prompt; its end token is last, where the encoder has one
    states: list[Tensor]  # (tokens, d) for each prompt, float32, differentiable

    def place_of(self, prompt: int, token: str) -> int:
        """Return where the last vector of a learned token stands in a prompt."""
        count = len(self.tower.learned[token])
        last = self.tower.tokenizer.convert_tokens_to_ids(names_of(token, count)[-1])
        return self.ids[prompt].index(last)


def text_states(model: TextToImage, prompts: Sequence[str]) -> list[TextStates]:
    """Return what each text encoder makes of prompts, encoded as for training."""
    with _heard(model) as calls:
        model.encode_text(list(prompts))
    return [_without_padding(tower, calls[tower.name]) for tower in model.towers]


@dataclass
class _Call:
    """The last call of a text encoder."""

    ids: Tensor | None = None  # (n, length)
    mask: Tensor | None = None  # (n, length or more): 0 where padding stands
    output: Tensor | None = None  # (n, length, d)


@contextmanager
def _heard(model: TextToImage) -> Iterator[dict[str, _Call]]:
    """Give what goes into and comes out of the text encoders inside, by tower."""
    calls = {tower.name: _Call() for tower in model.towers}
    hooks = []
    for tower in model.towers:
        listen = partial(_listen, calls[tower.name], model.taps.get(tower.name, Tap()))
        hooks.append(tower.module.register_forward_hook(listen, with_kwargs=True))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _listen(
    call: _Call,
    tap: Tap,
    _module: Any,
    arguments: tuple[Any, ...],
    named: dict[str, Any],
    output: Any,
) -> None:
    """Keep what went in and came out of a text encoder; a forward hook behind its first two."""
    call.ids = arguments[0] if arguments else named["input_ids"]
    call.mask, call.output = named.get("attention_mask"), _read(output, tap)


def _read(output: Any, tap: Tap) -> Tensor:
    """Return the states that the denoiser reads, (n, length, d).

    A language model with a head returns its states alone, the last after the final norm.
    """
    last: Tensor | None = getattr(output, "last_hidden_state", None)
    if tap.final_norm and last is not None:
        return last
    return torch.cat([output.hidden_states[-1 - block] for block in tap.blocks_from_end], dim=-1)


def _without_padding(tower: Tower, call: _Call) -> TextStates:
    assert call.ids is not None
    assert call.output is not None
    ids, states = [], []
    for row, numbers in enumerate(call.ids.tolist()):
        if call.mask is None:
            end = tower.tokenizer.eos_token_id  # CLIP's padding may be its end token too
            kept = list(range(numbers.index(end) + 1 if end in numbers else len(numbers)))
        else:  # it may also cover what was read before
            kept = call.mask[row, -len(numbers) :].nonzero().flatten().tolist()
        ids.append([numbers[place] for place in kept])
        states.append(call.output[row, torch.tensor(kept, device=call.output.device)].float())
    return TextStates(tower, ids, states)
