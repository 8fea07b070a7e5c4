"""Learned tokens from files into a text-to-image model."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dti_geom.errors import EmbeddingFileError
from dti_geom.files import (
    EmbeddingFile,
    LearnedToken,
    find_embedding_files,
    join_numbered,
    read_embeddings,
)
from dti_geom.files.run_layout import learned_in_run
from dti_geom.models.pipelines import TextToImage


def load_tokens(model: TextToImage, paths: Iterable[str | Path | EmbeddingFile]) -> tuple[str, ...]:
    """Place every learned token of these files in the model, which paints it from now on. Returns their names.

    paths: as for `token_files`. The files of a token's towers, or the towers in one file, are joined by name and width.
    Raises EmbeddingFileError, and UnknownToken for a name that is a word of the model already.
    """
    tokens = joined_towers(model, token_files(paths))
    for token, vectors in tokens.items():
        model.place(token, [rows.to(model.device) for rows in vectors])
    return tuple(tokens)


def token_files(paths: Iterable[str | Path | EmbeddingFile]) -> list[EmbeddingFile]:
    """The embedding files under these paths, in their order.

    A path may be a file, a folder of files, a run's folder (what the run ended with), or `<name>=PATH`, which gives the
    one token found there another name: runs call theirs <x> unless told otherwise.
    """
    found: list[EmbeddingFile] = []
    for path in paths:
        if isinstance(path, EmbeddingFile):
            found.append(path)
            continue
        name, place = "", str(path)
        if not Path(path).exists():
            name, _, place = place.rpartition("=")
        files = [read_embeddings(file) for file in _files(Path(place))]
        found += _renamed(files, name) if name else files
    return found


def joined_towers(model: TextToImage, files: Sequence[EmbeddingFile]) -> dict[str, list[Tensor]]:
    """token → its (n, d) vectors for each tower of the model, in order, float32 on the CPU."""
    widths = {tower.name: tower.token_table.shape[1] for tower in model.towers}
    joined: dict[str, dict[str, Tensor]] = {}
    origin: dict[tuple[str, str], Path] = {}
    for file in files:
        for learned in join_numbered(file.tokens):
            held = joined.setdefault(learned.token, {})
            width = learned.vectors.shape[1]
            fitting = [name for name in widths if widths[name] == width]
            free = [name for name in fitting if name not in held]
            if not fitting:
                expected = " and ".join(f"{each} ({name})" for name, each in widths.items())
                raise EmbeddingFileError(
                    f"{file.path}: {learned.token} has width {width}; {model.name} takes {expected}. Choose the model "
                    "it was trained for with --model."
                )
            if not free:
                raise EmbeddingFileError(
                    f"{file.path}: {learned.token} came from {origin[learned.token, fitting[0]]} already. Leave one "
                    f"out, or give it a name of its own: '<name>={file.path}'."
                )
            held[free[0]] = learned.vectors.float()
            origin[learned.token, free[0]] = file.path
    for token, held in joined.items():
        missing = [name for name in widths if name not in held]
        if missing:
            raise EmbeddingFileError(
                f"{token} has no vectors for {' and '.join(missing)} of {model.name} (width "
                f"{' and '.join(str(widths[name]) for name in missing)}). Name the file that holds them too, such as "
                "learned_embeds_2.safetensors."
            )
    return {token: [held[name] for name in widths] for token, held in joined.items()}


def _files(path: Path) -> list[Path]:
    learned = learned_in_run(path) if path.is_dir() else []
    return learned or find_embedding_files(path)


def _renamed(files: list[EmbeddingFile], name: str) -> list[EmbeddingFile]:
    tokens = {learned.token for file in files for learned in join_numbered(file.tokens)}
    if len(tokens) != 1:
        raise EmbeddingFileError(
            f"{files[0].path} and what lies beside it hold {len(tokens)} tokens ({', '.join(sorted(tokens))}); "
            f"{name}= renames one. Name the file of the one that is meant."
        )
    return [
        replace(
            file,
            tokens=tuple(
                LearnedToken(name, each.tower, each.vectors) for each in join_numbered(file.tokens)
            ),
        )
        for file in files
    ]
