"""Writing learned tokens in another tool's layout, at another magnitude if wanted."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dti_geom import __version__, geometry
from dti_geom.editing.concepts import Concept, concepts_of
from dti_geom.editing.rescaling import Rescaling, parse_rescaling
from dti_geom.errors import DtiGeomError, EditingError
from dti_geom.files import (
    SUFFIXES,
    EmbeddingFile,
    LearnedToken,
    embedding_bytes,
    join_numbered,
    write_files,
)
from dti_geom.models import TextEncoder

SAME = "same"  # as a layout: the one that each file has
_SAME_AS = {  # the layout that is written for each one read; diffusers for others
    "web-ui": "webui",
    "ldm": "webui",
    "card": "card",
    "emb_params": "kohya",
    "sdxl": "sdxl",
    "comfyui": "comfyui",
    "pivotal": "comfyui",
    "bundle": "comfyui",
    "onetrainer": "onetrainer",
}


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
    left_out: tuple[str, ...] = ()  # parts of the source that the layout has no place for


@dataclass(frozen=True)
class Failure:
    """A token that could not be written."""

    source: str
    token: str
    reason: str


@dataclass(frozen=True)
class Conversion:
    """What became of the tokens of some files."""

    written: tuple[Converted, ...]
    failures: tuple[Failure, ...]


def convert(
    files: Sequence[EmbeddingFile],
    layout: str,
    out: Path,
    *,
    rescale_to: str | None = None,
    only: str | None = None,
    encoders: Sequence[TextEncoder] = (),
    token: str | None = None,
    folders: Mapping[Path, Path] = {},
    overwrite: bool = False,
) -> Conversion:
    """Write every token of some files into the folder `out`, each under the name of its file.

    `learned_embeds.safetensors` and `learned_embeds_2.safetensors` of one folder are the two towers
    of one token. The metadata of the sources (step, method, base model) is copied, and the norms
    before and after are added.

    layout: a key of `SUFFIXES`, or SAME.
    rescale_to: new norms, as for `parse_rescaling`; None leaves every bit of the vectors.
    only: the vectors to rescale: `inflated`, `short`, or indices such as `3,5`; None for all.
    encoders: those of the model, for magnitudes that refer to a vocabulary.
    token: a new name, for a single token.
    folders: the folder below `out` of each source; files that are not named go into `out` itself.

    A token that cannot be written is reported and does not stop the others. Raises EditingError,
    MagnitudeError, EmbeddingFileError or FileExists where nothing can be written.
    """
    if only is not None and rescale_to is None:
        raise EditingError(f"--only {only} says what to rescale. Say how, with --rescale.")
    rescaling = None if rescale_to is None else parse_rescaling(rescale_to, only)
    concepts = concepts_of(files)
    if token is not None:
        if len(concepts) > 1:
            raise EditingError(
                f"--token names one token, and these files hold {len(concepts)}. Convert one at a "
                "time."
            )
        concepts = [concept.renamed(token) for concept in concepts]
    written: list[Converted] = []
    failures: list[Failure] = []
    errors: list[DtiGeomError] = []
    taken: dict[Path, str] = {}
    for concept in concepts:
        try:
            own = same_layout(concept) if layout == SAME else layout
            converted, contents = _converted(concept, own, out, rescaling, encoders, folders)
            _check_free(contents, taken)
            write_files(contents, overwrite=overwrite)
        except DtiGeomError as error:
            errors.append(error)
            failures.append(Failure(str(concept.files[0].path), concept.name, str(error)))
        else:
            written.append(converted)
            taken |= dict.fromkeys(contents, concept.label)
    if errors and not written:
        reasons = list(dict.fromkeys(map(str, errors)))
        raise errors[0] if len(reasons) == 1 else EditingError("\n".join(reasons))
    return Conversion(tuple(written), tuple(failures))


def same_layout(concept: Concept) -> str:
    """Return the layout to write that is like the one a token was read from."""
    layout = _SAME_AS.get(concept.files[0].format, "diffusers")
    if layout == "kohya" and concept.files[0].path.suffix != ".safetensors":
        return "webui"
    return layout


def _converted(
    concept: Concept,
    layout: str,
    out: Path,
    rescaling: Rescaling | None,
    encoders: Sequence[TextEncoder],
    folders: Mapping[Path, Path],
) -> tuple[Converted, dict[Path, bytes]]:
    """Return one token in another layout, and the bytes of its files."""
    after = concept.tokens
    if rescaling is not None:
        after = tuple(rescaling.apply(learned, encoders) for learned in concept.tokens)
    vectors: list[ConvertedVector] = []
    for pair in zip(concept.tokens, after, strict=True):
        vectors += _compare(*pair)
    path = output_path(concept.files[0], concept.name, layout, out, folders)
    contents = embedding_bytes(path, after, layout, metadata=_metadata(concept, vectors, rescaling))
    converted = Converted(
        token=concept.name,
        layout=layout,
        sources=tuple(str(file.path) for file in concept.files),
        files=tuple(map(str, contents)),
        vectors=tuple(vectors),
        left_out=tuple(str(part.tower) for file in concept.files for part in file.outputs),
    )
    return converted, contents


def _check_free(contents: Mapping[Path, bytes], taken: Mapping[Path, str]) -> None:
    for path in contents:
        if path in taken:
            raise EditingError(
                f"{path} holds {taken[path]} already. Convert the two into folders of their own."
            )


def output_path(
    source: EmbeddingFile,
    token: str,
    layout: str,
    out: Path,
    folders: Mapping[Path, Path] = {},
) -> Path:
    """Return where a token is written.

    It is named after its file, or after the folder of a `learned_embeds` file. If a file holds
    several tokens, the token's own name is added.

    folders: as for `convert`.
    """
    folder = folders.get(source.path, Path())
    name = source.path.stem
    if re.fullmatch(r"learned_embeds(_\d)?", name):
        name = source.path.resolve().parent.name
        folder = folder.parent
    if len({learned.token for learned in join_numbered(source.tokens)}) > 1:
        name = f"{name}-{re.sub(r'[^0-9A-Za-z._-]+', '', token)[:60]}"
    return out / folder / f"{name}{SUFFIXES.get(layout, '')}"


def _compare(before: LearnedToken, after: LearnedToken) -> list[ConvertedVector]:
    norms = zip(
        geometry.norms(before.vectors).tolist(), geometry.norms(after.vectors).tolist(), strict=True
    )
    dim = before.vectors.shape[1]
    return [ConvertedVector(before.tower, index, dim, *pair) for index, pair in enumerate(norms)]


def _metadata(
    concept: Concept, vectors: Sequence[ConvertedVector], rescaling: Rescaling | None
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
    if rescaling is not None:
        metadata["rescaled_to"] = rescaling.text
    return metadata | {"tool": f"dti-geom {__version__}"}
