"""Where a token's vectors start, and the direction of the prior."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import DoesNotApply, EmbeddingFileError, TrainingError
from dti_geom.files import read_embeddings
from dti_geom.models.pipelines import TextToImage, Tower
from dti_geom.training.checks import init_rows
from dti_geom.training.config import ConceptConfig
from dti_geom.training.methods.base import Method, VocabularyStats

STARTS = ("word", "output", "mean", "random")


@dataclass(frozen=True)
class Start:
    """The beginning of one token in one tower."""

    vectors: Tensor  # (n, d), float32: what learning starts from
    prior: Tensor  # (n, d): the init word's rows, repeated where there are more vectors than rows


def vocabulary_stats(tower: Tower) -> VocabularyStats:
    """Return norms and spread of a tower's token table."""
    table = tower.token_table
    return VocabularyStats(geometry.summarize_norms(table), float(table.float().std()))


def start_of(
    model: TextToImage, number: int, concept: ConceptConfig, method: Method, seed: int
) -> Start:
    """Return where a concept's token starts in tower `number`.

    Raises UnknownToken for an unknown init word; TrainingError for one in pieces (`init_rows`), or
    a start that has no direction or does not fit `concept.vectors`; EmbeddingFileError for a file
    that does not fit; DoesNotApply for an encoder's output where its last blocks are left out.
    """
    tower = model.towers[number]
    rows = init_rows(tower.vocabulary, concept, model.name)
    table = tower.token_table.float()
    kind = method.start if concept.start == "word" else concept.start
    words = table[rows]
    if kind == "word":
        vectors = words
    elif kind == "output":
        vectors = _output_states(model, tower, concept.init, rows)
    elif kind == "mean":
        vectors = table[table.any(dim=1)].mean(dim=0, keepdim=True)
    elif kind == "random":
        generator = torch.Generator().manual_seed(seed + number)
        direction = geometry.normalize(torch.randn(1, table.shape[1], generator=generator))
        vectors = (geometry.summarize_norms(table).mean * direction).to(table.device)
    else:
        vectors = _stored(model, number, Path(kind)).to(table.device)
    count = concept.vectors or len(vectors)
    if count < len(vectors):
        raise TrainingError(
            f"'{concept.init}' starts from {len(vectors)} vectors, but {count} were asked for. "
            f"Ask for {len(vectors)} or more, or choose a word of {count} tokens."
        )
    vectors, prior = _repeated(vectors, count), _repeated(words, count)
    if not vectors.any(dim=1).all() or not prior.any(dim=1).all():
        raise TrainingError(
            f"'{concept.init}' has a zero row in {tower.name}, which has no direction. Choose "
            "another word."
        )
    return Start(vectors, prior)


def _repeated(vectors: Tensor, count: int) -> Tensor:
    """(n, d) → (count, d): the rows in turn."""
    return vectors[torch.arange(count, device=vectors.device) % len(vectors)]


@torch.no_grad()
def _output_states(model: TextToImage, tower: Tower, word: str, rows: list[int]) -> Tensor:
    """Return the encoder's output, after its final norm, at each row of a bare word, (n, d).

    Cross Initialization (Pang et al., CVPR 2024) starts from it, at its own norm and not centred.
    Nothing stands around the word but the tokenizer's special tokens.
    """
    unread = model.unread_blocks(tower)
    if unread:
        raise DoesNotApply(
            f"start 'output' begins with an encoder's output; {model.name} does not read it, and "
            f"the last {unread} blocks of its {tower.name} are left out. Choose another start, "
            "such as word."
        )
    whole: list[int] = tower.tokenizer(word)["input_ids"]
    bare: list[int] = tower.tokenizer(word, add_special_tokens=False)["input_ids"]
    length = len(bare)
    place = next(i for i in range(len(whole)) if whole[i : i + length] == bare)
    # The rows, not the ids of the text: a word may be a row number, such as #320, or have its row
    # only after a space.
    ids = torch.tensor([whole[:place] + rows + whole[place + length :]], device=model.device)
    output = tower.module(input_ids=ids, output_hidden_states=True)
    # A causal language model names its last state only so; that of CLIP is before the final norm.
    states: Tensor = getattr(output, "last_hidden_state", output.hidden_states[-1])
    return states[0, place : place + len(rows)].float()


def _stored(model: TextToImage, number: int, path: Path) -> Tensor:
    """Return the vectors of the one token in an embedding file that fits tower `number`."""
    if not path.exists():
        raise TrainingError(
            f"start is '{path}'; expected {', '.join(STARTS)} or the path of an embedding file."
        )
    file = read_embeddings(path)
    width = model.towers[number].token_table.shape[1]
    fitting = [token.vectors.float() for token in file.tokens if token.vectors.shape[1] == width]
    if len(fitting) != 1:
        raise EmbeddingFileError(
            f"{path} holds {len(fitting)} tokens of width {width}; "
            f"exactly one was expected for {model.towers[number].name}."
        )
    return fitting[0]
