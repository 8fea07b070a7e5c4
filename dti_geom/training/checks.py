"""What can be checked of a run before its model is loaded."""

from difflib import get_close_matches

from dti_geom.errors import TrainingError
from dti_geom.models import open_encoders
from dti_geom.models.catalog import check_device
from dti_geom.models.vocabulary import Vocabulary
from dti_geom.training.config import ConceptConfig, RunConfig
from dti_geom.training.data import image_files
from dti_geom.training.methods.base import Method, decide
from dti_geom.training.methods.registry import method_named
from dti_geom.training.objectives.registry import objectives_of

NEAREST = 5  # words named beside one that is not known


def check_before_loading(config: RunConfig) -> None:
    """Raise what the run would raise once its model is loaded, in a second instead of minutes.

    It reads names, folders and tokenizers, and no weights. Raises TrainingError, UnknownModel,
    UnknownToken, DtiGeomError for the device.
    """
    method = method_named(config.method.name)
    decide(method, config.method)
    refuse_fixed_alone(config, method)
    objectives_of(config, method.objectives, token_learns=method.learns)
    for concept in config.concepts:
        image_files(concept)
    check_device(config.device)
    for encoder in open_encoders(config.model):
        if encoder.tokenizer is None:
            continue
        vocabulary = Vocabulary(encoder.tokenizer, len(encoder.tokenizer))
        for concept in config.concepts:
            init_rows(vocabulary, concept, config.model)


def refuse_fixed_alone(config: RunConfig, method: Method) -> None:
    """Raise TrainingError where nothing would learn from the first update."""
    if not method.learns and (config.adapter is None or config.adapter.from_step):
        raise TrainingError(
            f"method '{method.name}' leaves the token as it starts, so an adapter must learn from "
            "the first update. Add --adapter lora without --adapter-from, or choose another method."
        )


def init_rows(vocabulary: Vocabulary, concept: ConceptConfig, model: str) -> list[int]:
    """Return the rows of a concept's init words, one for each word.

    A word that is one token only after a space, as many nouns are in Gemma's vocabulary, gets that
    row: it is the one that stands in prompts. More rows than words are taken only if
    `concept.vectors` asks for that many vectors: a word in pieces is no start that anybody means.
    model: its name, for messages. Raises TrainingError for a word in pieces, UnknownToken for one
    that has no rows.
    """
    rows = vocabulary.rows(concept.init)
    words = len(concept.init.split())
    if len(rows) > words:
        inside = vocabulary.rows(f" {concept.init}")
        rows = inside if len(inside) <= words else rows
    if concept.vectors is not None or len(rows) <= words:
        return rows
    pieces = vocabulary.tokens(rows)
    similar = get_close_matches(concept.init, _words(vocabulary), n=NEAREST, cutoff=0.5)
    known = f" Words spelled like it: {', '.join(similar)}." if similar else ""
    apart = " ".join(piece.strip("…") for piece in pieces)
    raise TrainingError(
        f"{model} has no single token for '{concept.init}': it splits into {', '.join(pieces)}."
        f"{known} Choose a word of the model with --init (`dti-geom neighbors` shows some). To "
        f'train {len(rows)} vectors on purpose: --vectors {len(rows)}, or --init "{apart}".'
    )


def _words(vocabulary: Vocabulary) -> list[str]:
    """Return the whole words of a vocabulary, of two letters or more."""
    names = vocabulary.tokens(range(vocabulary.size))
    return [name for name in names if name.isalpha() and len(name) > 1]
