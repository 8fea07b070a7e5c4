"""Let a language model say what a token is: its vector stands where a word would.

What a model says of any vector says nothing of this one. Each answer is held against random
directions of the same length: how much likelier does the vector make it?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import DoesNotApply
from dti_geom.models import TextEncoder
from dti_geom.probes.learned import LearnedVector
from dti_geom.probes.material import open_prompt
from dti_geom.probes.neighbors import WORDS, Query, named_queries, parse_queries
from dti_geom.probes.result import Result
from dti_geom.progress import Progress, silent

FRAMES = ("{} is a kind of", "The meaning of the word {} is", "A photo of {} shows")
QUESTION = "Describe {} in a few words."  # in the chat template of a model that has one
RANDOM = 8  # random directions
KNOWN = 3  # words that are asked about as well


@dataclass(frozen=True)
class Answer:
    """What the model says in one frame."""

    frame: str
    text: str
    ids: tuple[int, ...]
    log_likelihood: float  # of the answer, nats per token
    # The same less its mean after random directions. 0: the model did not hear the vector.
    gain: float


@dataclass(frozen=True)
class AskedToken:
    """The answers for one vector."""

    query: str
    id: int | None  # its row; None for a learned token or a random direction
    path: str | None  # the file of a learned token
    step: int | None
    norm: float  # embedding units
    answers: tuple[Answer, ...]

    @property
    def gain(self) -> float:
        """The mean over its answers, nats per token."""
        return fmean(answer.gain for answer in self.answers)


@dataclass(frozen=True)
class AskResult(Result):
    """What one language model says of tokens."""

    name: str
    length: int  # of an answer, at most
    frames: tuple[str, ...]
    tokens: tuple[AskedToken, ...]
    known: tuple[AskedToken, ...]  # words
    random: tuple[AskedToken, ...]  # random directions of the first token's length

    def heard(self, token: AskedToken) -> bool:
        """Return whether its answers gain more than those of each random direction."""
        return token.gain > max(other.gain for other in self.random)


@dataclass(frozen=True)
class _Frame:
    text: str
    ids: list[int]
    place: int


def measure_ask(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    tokens: str | Sequence[str] = (),
    length: int = 16,
    with_learned: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> AskResult:
    """Return what a language model says of each token, of known words and of random directions.

    tokens: as in `measure_neighbors`. length: the most tokens of an answer. Answers are the
    likeliest token, again and again, never the row nearest to the vector: a word does not answer
    itself. Each vector is asked about alone, so the same vector has the same answer.

    Raises UnknownToken, and DoesNotApply for an encoder that cannot speak or has no tokenizer.
    """
    _tokenizer(encoder)
    encoder.logits(torch.zeros(encoder.token_table.shape[1], device=encoder.token_table.device))
    queries = named_queries(encoder, learned, tokens, with_learned=with_learned)
    asked = [query.label for query in queries]
    known = [word for word in WORDS if word not in asked and _is_word(encoder, word)][:KNOWN]
    draw = torch.Generator().manual_seed(seed)
    norm = geometry.norms(queries[0].vector.float()).cpu()
    drawn = torch.randn(RANDOM, encoder.token_table.shape[1], generator=draw)
    random = [
        Query(f"random {number}", vector)
        for number, vector in enumerate(norm * geometry.normalize(drawn), 1)
    ]
    frames = list(_frames(encoder))
    everything = [*queries, *parse_queries(encoder, known), *random]
    spoken = []
    for number, query in enumerate(everything):
        progress("answers", number, len(everything))
        others = [other.vector for other in random if other is not query]
        spoken.append(_asked(encoder, query, frames, others, length))
    progress("answers", len(everything), len(everything))
    middle, last = len(queries), len(everything) - len(random)
    return AskResult(
        name=encoder.name,
        length=length,
        frames=tuple(frame.text for frame in frames),
        tokens=tuple(spoken[:middle]),
        known=tuple(spoken[middle:last]),
        random=tuple(spoken[last:]),
    )


def _tokenizer(encoder: TextEncoder) -> Any:
    tokenizer = encoder.vocabulary.tokenizer
    if tokenizer is None:
        raise DoesNotApply(f"{encoder.name} came without a tokenizer, so no question can be asked.")
    return tokenizer


def _is_word(encoder: TextEncoder, word: str) -> bool:
    return len(encoder.vocabulary.rows(word)) == 1


def _frames(encoder: TextEncoder) -> Sequence[_Frame]:
    """Return the frames, and the question in the model's chat template where it has one."""
    frames = [_Frame(text, *open_prompt(encoder, text)) for text in FRAMES]
    tokenizer = _tokenizer(encoder)
    if getattr(tokenizer, "chat_template", None):
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True
        )
        frames.append(_Frame(QUESTION, *open_prompt(encoder, chat, framed=False)))
    return frames


def _asked(
    encoder: TextEncoder,
    query: Query,
    frames: Sequence[_Frame],
    others: Sequence[Tensor],
    length: int,
) -> AskedToken:
    table = encoder.token_table
    vector = query.vector.to(table.device)
    # A row of zeros, such as padding, has no direction and is never nearest.
    lengths = geometry.row_norms(table).float().clamp(min=torch.finfo(torch.float32).tiny)
    own = int((table.float() @ vector.float() / lengths).argmax())
    answers = []
    for frame in frames:
        ids, likelihood = _continued(encoder, frame, vector, own, length)
        chance = [_likelihood(encoder, frame, other, own, ids) for other in others]
        answers.append(
            Answer(
                frame=frame.text,
                text=_tokenizer(encoder).decode(ids, skip_special_tokens=True).strip(),
                ids=tuple(ids),
                log_likelihood=likelihood,
                gain=likelihood - fmean(chance),
            )
        )
    source = query.learned
    return AskedToken(
        query=query.label,
        id=query.id,
        path=None if source is None else str(source.path),
        step=None if source is None else source.step,
        norm=float(geometry.norms(query.vector.float())),
        answers=tuple(answers),
    )


def _continued(
    encoder: TextEncoder, frame: _Frame, vector: Tensor, own: int, length: int
) -> tuple[list[int], float]:
    """Return the likeliest tokens after a frame, never `own`, and their likelihood per token."""
    said: list[int] = []
    for _ in range(length):
        logits = _logits(encoder, frame, vector, said)[-1]
        logits[own] = -torch.inf
        said.append(int(logits.argmax()))
        if said[-1] == _tokenizer(encoder).eos_token_id:
            break
    return said, _likelihood(encoder, frame, vector, own, said)


def _likelihood(
    encoder: TextEncoder, frame: _Frame, vector: Tensor, own: int, said: list[int]
) -> float:
    """Return the log-likelihood of an answer after a vector, of all but `own`, nats per token."""
    logits = _logits(encoder, frame, vector, said[:-1])[-len(said) :]
    logits[:, own] = -torch.inf
    likelihoods = logits.log_softmax(dim=-1)[torch.arange(len(said)), torch.tensor(said)]
    return float(likelihoods.mean())


def _logits(encoder: TextEncoder, frame: _Frame, vector: Tensor, said: list[int]) -> Tensor:
    """Return the logits behind the frame's last token and behind each said one: (…, V)."""
    table = encoder.token_table
    ids = torch.tensor([[*frame.ids, *said]], device=table.device)
    rows = table[ids].float()
    rows[0, frame.place] = vector.to(rows)
    states = encoder.hidden_states(ids, rows, torch.ones_like(ids))
    return encoder.logits(states.last[0, len(frame.ids) - 1 :])
