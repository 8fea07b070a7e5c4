"""Learned tokens with all of their text encoders, however many files these are spread over."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dti_geom.errors import EditingError
from dti_geom.files import EmbeddingFile, LearnedToken, join_numbered
from dti_geom.files.run_layout import is_learned_name, tower_of


@dataclass(frozen=True)
class Concept:
    """One token: its vectors for each text encoder, and the files they came from."""

    files: tuple[EmbeddingFile, ...]
    tokens: tuple[LearnedToken, ...]  # one for each text encoder

    @property
    def name(self) -> str:
        """The token as its file calls it."""
        return self.tokens[0].token

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of the vectors for each text encoder."""
        return tuple(part.vectors.shape[1] for part in self.tokens)

    @property
    def label(self) -> str:
        """The token with the path of its file, which no other token has."""
        return f"{self.files[0].path}:{self.name}"

    def renamed(self, token: str) -> "Concept":
        """Return the same vectors under another name."""
        return replace(self, tokens=tuple(replace(part, token=token) for part in self.tokens))


def concepts_of(files: Iterable[EmbeddingFile]) -> list[Concept]:
    """Return every token of these files with all of its text encoders.

    `learned_embeds.safetensors`, `learned_embeds_2.safetensors` and so on of one folder are the
    text encoders of the same tokens. `<x>`, `<x>_1`, `<x>_2` are the vectors of one token.
    """
    concepts: list[Concept] = []
    for group in _grouped(files):
        concepts += _tokens_of(group)
    return concepts


def find_concept(name: str, concepts: Sequence[Concept]) -> Concept | None:
    """Return the token of that name, or None if there is none.

    name: a token, or `path:token`, where path is as it was given or the name of the file. Raises
    EditingError, which lists them, if several files have it.
    """
    named = [concept for concept in concepts if name in _names(concept)]
    if len(named) > 1:
        labels = "\n".join(f"  {concept.label}" for concept in named)
        raise EditingError(
            f"{name} is in {len(named)} files. Write which one, with its path:\n{labels}"
        )
    return named[0] if named else None


def _names(concept: Concept) -> set[str]:
    paths = [file.path for file in concept.files]
    labels = {f"{path}:{concept.name}" for path in paths}
    return labels | {f"{path.name}:{concept.name}" for path in paths} | {concept.name}


def _grouped(files: Iterable[EmbeddingFile]) -> list[tuple[EmbeddingFile, ...]]:
    """Return the files, with those of further text encoders beside the first."""
    by_path = {file.path: file for file in files}
    groups: dict[Path, dict[int, EmbeddingFile]] = {}
    for path, file in by_path.items():
        first, place = tower_of(path) if is_learned_name(path) else (path, 1)
        if first not in by_path:
            first, place = path, 1
        groups.setdefault(first, {})[place] = file
    return [tuple(group[place] for place in sorted(group)) for group in groups.values()]


def _tokens_of(files: tuple[EmbeddingFile, ...]) -> list[Concept]:
    tokens: list[LearnedToken] = []
    for place, file in enumerate(files, 1):
        for learned in join_numbered(file.tokens):
            if len(files) > 1 and learned.tower is None:
                learned = replace(learned, tower=str(place))
            tokens.append(learned)
    by_name: dict[str, list[LearnedToken]] = {}
    for learned in tokens:
        by_name.setdefault(learned.token, []).append(learned)
    return [Concept(files, tuple(towers)) for towers in by_name.values()]
