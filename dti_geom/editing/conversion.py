"""Writing learned tokens in another tool's layout, at another magnitude if wanted."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dti_geom import __version__, geometry
from dti_geom.editing.rescaling import encoder_for, rescale, target_norm
from dti_geom.errors import EditingError
from dti_geom.files import EmbeddingFile, LearnedToken, embedding_bytes, join_numbered, write_files
from dti_geom.files.run_layout import is_learned_name, second_tower
from dti_geom.models import TextEncoder

SUFFIXES = {"diffusers": "", "webui": ".pt", "sdxl": ".safetensors", "kohya": ".safetensors"}


@dataclass(frozen=True)
class ConvertedVector:
    """One vector before and after; the two norms are equal unless it was rescaled."""

    tower: str | None
    index: int
    dim: int
    norm_before: float  # embedding units
    norm_after: float


@dataclass(frozen=True)
class Converted:
    """One token, written in another layout."""

    token: str
    layout: str
    sources: tuple[str, ...]
    files: tuple[str, ...]
    vectors: tuple[ConvertedVector, ...]


@dataclass(frozen=True)
class _Concept:
    """A token with its towers, and where they came from."""

    files: tuple[EmbeddingFile, ...]
    tokens: tuple[LearnedToken, ...]


def convert(
    files: Sequence[EmbeddingFile],
    layout: str,
    out: Path,
    *,
    rescale_to: str | None = None,
    encoders: Sequence[TextEncoder] = (),
    token: str | None = None,
    overwrite: bool = False,
) -> tuple[Converted, ...]:
    """Write every token of some files into the folder `out`, each under the name of its file.

    `learned_embeds.safetensors` and `learned_embeds_2.safetensors` of one folder are the two towers
    of one token. The metadata of the sources (step, method, base model) is copied, and the norms
    before and after are added.

    layout: a key of `SUFFIXES`.
    rescale_to: a magnitude as for `target_norm`; None leaves every bit of the vectors.
    encoders: those of the model, for magnitudes that refer to a vocabulary.
    token: a new name, for a single token.

    Raises EditingError, MagnitudeError, EmbeddingFileError or FileExists before anything is
    written.
    """
    concepts = _concepts(files)
    if token is not None:
        if len(concepts) > 1:
            raise EditingError(
                f"--token names one token, and these files hold {len(concepts)}. Convert one at a "
                "time."
            )
        concepts = [_renamed(concept, token) for concept in concepts]
    contents: dict[Path, bytes] = {}
    results = []
    for concept in concepts:
        after = tuple(_rescaled(learned, rescale_to, encoders) for learned in concept.tokens)
        vectors: list[ConvertedVector] = []
        for pair in zip(concept.tokens, after, strict=True):
            vectors += _compare(*pair)
        path = output_path(concept.files[0], after[0].token, layout, out)
        metadata = _metadata(concept, vectors, rescale_to)
        written = embedding_bytes(path, after, layout, metadata=metadata)
        if twice := contents.keys() & written.keys():
            raise EditingError(
                f"two of these would be written to {min(twice)}. Convert them into folders of "
                "their own."
            )
        contents |= written
        results.append(
            Converted(
                token=after[0].token,
                layout=layout,
                sources=tuple(str(file.path) for file in concept.files),
                files=tuple(map(str, written)),
                vectors=tuple(vectors),
            )
        )
    write_files(contents, overwrite=overwrite)
    return tuple(results)


def output_path(source: EmbeddingFile, token: str, layout: str, out: Path) -> Path:
    """Return where a token is written.

    It is named after its file, or after the folder of a `learned_embeds` file. If a file holds
    several tokens, the token's own name is added.
    """
    is_learned = is_learned_name(source.path)
    name = source.path.resolve().parent.name if is_learned else source.path.stem
    if len({learned.token for learned in join_numbered(source.tokens)}) > 1:
        name = f"{name}-{re.sub(r'[^0-9A-Za-z._-]+', '', token)[:60]}"
    return out / f"{name}{SUFFIXES.get(layout, '')}"


def _concepts(files: Iterable[EmbeddingFile]) -> list[_Concept]:
    """Return every token of these files with all of its towers."""
    concepts: list[_Concept] = []
    for group in _paired(files):
        concepts += _concepts_of(group)
    return concepts


def _paired(files: Iterable[EmbeddingFile]) -> list[tuple[EmbeddingFile, ...]]:
    """Return the files, with the second tower of a `learned_embeds` file beside the first."""
    by_path = {file.path: file for file in files}
    firsts = [path for path in by_path if is_learned_name(path)]
    second_of = {path: second for path in firsts if (second := second_tower(path)) in by_path}
    groups: list[tuple[EmbeddingFile, ...]] = []
    for path, file in by_path.items():
        if path in second_of:
            groups.append((file, by_path[second_of[path]]))
        elif path not in second_of.values():
            groups.append((file,))
    return groups


def _concepts_of(files: tuple[EmbeddingFile, ...]) -> list[_Concept]:
    """Return every token of one file, or of the two files of one token's towers."""
    tokens: list[LearnedToken] = []
    for place, file in enumerate(files, 1):
        for learned in join_numbered(file.tokens):
            if len(files) > 1 and learned.tower is None:
                learned = replace(learned, tower=str(place))
            tokens.append(learned)
    by_name: dict[str, list[LearnedToken]] = {}
    for learned in tokens:
        by_name.setdefault(learned.token, []).append(learned)
    return [_Concept(files, tuple(towers)) for towers in by_name.values()]


def _renamed(concept: _Concept, token: str) -> _Concept:
    return replace(
        concept, tokens=tuple(replace(learned, token=token) for learned in concept.tokens)
    )


def _rescaled(
    learned: LearnedToken, magnitude: str | None, encoders: Sequence[TextEncoder]
) -> LearnedToken:
    if magnitude is None:
        return learned
    return rescale(learned, target_norm(magnitude, encoder_for(learned, encoders)))


def _compare(before: LearnedToken, after: LearnedToken) -> list[ConvertedVector]:
    norms = zip(
        geometry.norms(before.vectors).tolist(), geometry.norms(after.vectors).tolist(), strict=True
    )
    dim = before.vectors.shape[1]
    return [ConvertedVector(before.tower, index, dim, *pair) for index, pair in enumerate(norms)]


def _metadata(
    concept: _Concept, vectors: Sequence[ConvertedVector], rescale_to: str | None
) -> dict[str, str]:
    """Return what the sources say about themselves, and what the conversion changed."""
    metadata: dict[str, str] = {}
    for file in concept.files:
        metadata |= file.metadata
    for key in ("format", "name", "tower"):  # the new file has its own
        metadata.pop(key, None)
    step = concept.files[0].step
    if step is not None:
        metadata["step"] = str(step)
    metadata |= {
        "token": concept.tokens[0].token,
        "converted_from": concept.files[0].format,
        "norm_before": " ".join(f"{vector.norm_before:.6g}" for vector in vectors),
        "norm_after": " ".join(f"{vector.norm_after:.6g}" for vector in vectors),
    }
    if rescale_to is not None:
        metadata["rescaled_to"] = rescale_to
    return metadata | {"tool": f"dti-geom {__version__}"}
