"""Where a token's vectors start, which way the prior points, and how long they shall be."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import EmbeddingFileError, TrainingError
from dti_geom.files import read_embeddings
from dti_geom.models.pipelines import TextToImage, Tower
from dti_geom.training.config import ConceptConfig, MethodConfig
from dti_geom.training.methods import LearnedVectors, Reference, method_named

STARTS = ("word", "output", "mean", "random")


@dataclass(frozen=True)
class Start:
    """The beginning of one token in one tower."""

    vectors: Tensor  # (n, d), float32: what learning starts from
    prior: Tensor  # (n, d): the init word's rows, repeated where there are more vectors than rows


def reference_of(tower: Tower) -> Reference:
    """Norms and spread of a tower's vocabulary."""
    table = tower.token_table
    return Reference(geometry.summarize_norms(table), float(table.float().std()))


def start_of(
    model: TextToImage, number: int, concept: ConceptConfig, method: MethodConfig, seed: int
) -> Start:
    """The start in tower `number`. Raises UnknownToken for an unknown init word, TrainingError for the rest."""
    tower = model.towers[number]
    rows = tower.vocabulary.rows(concept.init)
    table = tower.token_table.float()
    kind = method_named(method.name).start if concept.start == "word" else concept.start
    words = table[rows]
    if kind == "word":
        vectors = words
    elif kind == "output":
        vectors = _output_states(model, tower, concept.init, len(rows))
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
            f"'{concept.init}' has a zero row in {tower.name}, which has no direction. Choose another word."
        )
    return Start(vectors, prior)


def magnitude_of(spec: str, tower: Tower, reference: Reference, start: Start) -> Tensor:
    """(n, 1): the norm that was asked for.

    spec: mean | median | min | max (over the non-zero rows), init (the init word's rows), token:WORD, any of these
    times a number (2*mean), a number, learned (starts at the mean). Raises TrainingError, UnknownToken.
    """
    factor, times, rule = spec.partition("*")
    if times and rule != "learned" and (number := _above_zero(factor)):
        return number * magnitude_of(rule, tower, reference, start)
    summary = reference.norms
    known = {
        "mean": summary.mean,
        "learned": summary.mean,
        "min": summary.min,
        "max": summary.max,
    }
    ones = torch.ones(len(start.vectors), 1, device=start.vectors.device)
    if spec == "init":
        return geometry.norms(start.prior)[:, None]
    if spec in known:
        return known[spec] * ones
    if spec == "median":
        lengths = geometry.row_norms(tower.token_table)
        return float(lengths[lengths > 0].median()) * ones
    if spec.startswith("token:"):
        rows = tower.vocabulary.rows(spec.removeprefix("token:"))
        if len(rows) != 1:
            raise TrainingError(
                f"magnitude '{spec}': the word is {len(rows)} tokens here; choose one of a single token."
            )
        return float(geometry.norms(tower.token_table[rows[0]].float())) * ones
    if number := _above_zero(spec):
        return number * ones
    raise TrainingError(
        f"magnitude is '{spec}'; expected mean, median, min, max, init, token:WORD, a number times one of these "
        "(2*mean), learned or a number above 0."
    )


def _above_zero(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def learned_vectors(
    model: TextToImage, concept: ConceptConfig, method: MethodConfig, seed: int
) -> list[LearnedVectors]:
    """The parameters of one concept, one set for each tower."""
    learned = []
    spec = method.magnitude or method_named(method.name).magnitude
    for number, tower in enumerate(model.towers):
        start, reference = start_of(model, number, concept, method, seed), reference_of(tower)
        magnitude = (
            None if spec is None else magnitude_of(spec, tower, reference, start)
        )  # None: it is free
        learned.append(LearnedVectors(start.vectors, start.prior, magnitude, reference, method))
    return learned


def _repeated(vectors: Tensor, count: int) -> Tensor:
    return vectors[torch.arange(count, device=vectors.device) % len(vectors)]


@torch.no_grad()
def _output_states(model: TextToImage, tower: Tower, word: str, count: int) -> Tensor:
    """(count, d): the encoder's output at the word, averaged over prompts so that none of their contexts stays in it.

    After Cross Initialization (Pang et al., CVPR 2024), which starts from E(word) instead of the word's row.
    """
    states = []
    for template in model.templates:
        ids = tower.tokenizer(template.replace("{}", word), return_tensors="pt").input_ids[0]
        rows = torch.tensor(tower.vocabulary.rows(word))
        places = [i for i in range(len(ids) - count + 1) if torch.equal(ids[i : i + count], rows)]
        if places:
            output = tower.module(input_ids=ids[None].to(model.device))
            states.append(output.last_hidden_state[0, places[0] : places[0] + count].float())
    if not states:
        raise TrainingError(
            f"'{word}' is split differently inside prompts; start from the word itself instead."
        )
    return torch.stack(states).mean(dim=0)


def _stored(model: TextToImage, number: int, path: Path) -> Tensor:
    if not path.exists():
        raise TrainingError(
            f"start is '{path}'; expected {', '.join(STARTS)} or the path of an embedding file."
        )
    file = read_embeddings(path)
    width = model.towers[number].token_table.shape[1]
    fitting = [one.vectors.float() for one in file.tokens if one.vectors.shape[1] == width]
    if len(fitting) != 1:
        raise EmbeddingFileError(
            f"{path} holds {len(fitting)} tokens of width {width}; "
            f"exactly one was expected for {model.towers[number].name}."
        )
    return fitting[0]
