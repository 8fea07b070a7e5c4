"""The same concept in the layout, and at the magnitude, that another tool wants."""

import re
from collections.abc import Iterable, Mapping, Sequence
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
    """Write every token of these files below the folder `out`, each under the name of its file.

    `learned_embeds.safetensors` and `learned_embeds_2.safetensors` of one folder are the two towers of one token.
    rescale_to: a rule of `target_norm`; without it vectors keep their bits. encoders: those of the model, for the rules
        that need one. token: a new name, for a single token.
    What the sources say of themselves (step, method, base model) goes along, with the norms before and after.
    Raises EditingError, EmbeddingFileError or FileExists before anything is written.
    """
    concepts = [concept for group in _pairs(files) for concept in _concepts(group)]
    if token is not None:
        if len(concepts) > 1:
            raise EditingError(
                f"--token names one token, and these files hold {len(concepts)}. Convert one at a time."
            )
        concepts = [_renamed(concept, token) for concept in concepts]
    written: dict[Path, bytes] = {}
    results = []
    for concept in concepts:
        after = tuple(_rescaled(each, rescale_to, encoders) for each in concept.tokens)
        vectors = tuple(
            one for pair in zip(concept.tokens, after, strict=True) for one in _compare(*pair)
        )
        path = output_path(concept.files[0], after[0].token, layout, out)
        metadata = _metadata(concept, vectors, rescale_to)
        made = embedding_bytes(path, after, layout, metadata=metadata)
        if twice := written.keys() & made.keys():
            raise EditingError(
                f"two of these would be written to {min(twice)}. Convert them into folders of their own."
            )
        written |= made
        sources = tuple(str(file.path) for file in concept.files)
        results.append(Converted(after[0].token, layout, sources, tuple(map(str, made)), vectors))
    write_files(written, overwrite=overwrite)
    return tuple(results)


def output_path(source: EmbeddingFile, token: str, layout: str, out: Path) -> Path:
    """Where a token goes: by the name of its file, or of the folder of a `learned_embeds` file.

    A file of several tokens gives each a name of its own.
    """
    name = source.path.resolve().parent.name if is_learned_name(source.path) else source.path.stem
    if len({each.token for each in join_numbered(source.tokens)}) > 1:
        name = f"{name}-{re.sub(r'[^0-9A-Za-z._-]+', '', token)[:60]}"
    return out / f"{name}{SUFFIXES.get(layout, '')}"


def _pairs(files: Iterable[EmbeddingFile]) -> list[tuple[EmbeddingFile, ...]]:
    """The files, with the second tower of a `learned_embeds` file beside the first."""
    by_path = {file.path: file for file in files}
    firsts = [path for path in by_path if is_learned_name(path)]
    second_of = {path: second for path in firsts if (second := second_tower(path)) in by_path}
    return [
        (file, by_path[second_of[path]]) if path in second_of else (file,)
        for path, file in by_path.items()
        if path not in second_of.values()
    ]


def _concepts(files: tuple[EmbeddingFile, ...]) -> list[_Concept]:
    tokens = [
        replace(each, tower=str(place)) if len(files) > 1 and each.tower is None else each
        for place, file in enumerate(files, 1)
        for each in join_numbered(file.tokens)
    ]
    names = dict.fromkeys(each.token for each in tokens)
    return [_Concept(files, tuple(each for each in tokens if each.token == name)) for name in names]


def _renamed(concept: _Concept, token: str) -> _Concept:
    return replace(concept, tokens=tuple(replace(each, token=token) for each in concept.tokens))


def _rescaled(
    learned: LearnedToken, rule: str | None, encoders: Sequence[TextEncoder]
) -> LearnedToken:
    if rule is None:
        return learned
    return rescale(learned, target_norm(rule, encoder_for(learned, encoders)))


def _compare(before: LearnedToken, after: LearnedToken) -> list[ConvertedVector]:
    norms = zip(
        geometry.norms(before.vectors).tolist(), geometry.norms(after.vectors).tolist(), strict=True
    )
    dim = before.vectors.shape[1]
    return [ConvertedVector(before.tower, index, dim, *pair) for index, pair in enumerate(norms)]


def _metadata(
    concept: _Concept, vectors: Sequence[ConvertedVector], rule: str | None
) -> Mapping[str, str]:
    kept = {key: value for file in concept.files for key, value in file.metadata.items()}
    for key in ("format", "name", "tower"):  # the new file has its own
        kept.pop(key, None)
    step = concept.files[0].step
    return {
        **kept,
        **({} if step is None else {"step": str(step)}),
        "token": concept.tokens[0].token,
        "converted_from": concept.files[0].format,
        "norm_before": " ".join(f"{one.norm_before:.6g}" for one in vectors),
        "norm_after": " ".join(f"{one.norm_after:.6g}" for one in vectors),
        **({} if rule is None else {"rescaled_to": rule}),
        "tool": f"dti-geom {__version__}",
    }
