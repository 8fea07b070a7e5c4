"""What a run learned: read from its files, and placed in a text-to-image model.

Evaluation, generation and sweeps only know the protocol `Learned`. Token vectors are its one kind;
a run with an adapter gives them that too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Protocol

from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import EmbeddingFileError
from dti_geom.files import (
    EmbeddingFile,
    LearnedToken,
    find_embedding_files,
    join_numbered,
    read_embeddings,
)
from dti_geom.files.adapters import Adapter, adapter_beside, read_adapter
from dti_geom.files.run_layout import learned_in_run
from dti_geom.models.adapters import Scaled
from dti_geom.models.pipelines import TextToImage

_SAME_NORM = 1e-3  # relative change by a rescaling that is no change


class Learned(Protocol):
    """What a run learned. A model paints it where a prompt has its name, once it is placed."""

    @property
    def name(self) -> str:
        """The word that stands for it in prompts."""
        ...

    def place(self, model: TextToImage) -> None:
        """Let the model paint it from now on. Raises UnknownToken for a word of the model."""
        ...

    def as_placeholder(self, stem: str) -> "Learned":
        """Return the same under a name of its own that begins with `stem`, such as <stem-1>."""
        ...

    def at_mean_norm(self, means: Sequence[float]) -> "Learned | None":
        """Return the same at the vocabulary's mean norm; None where that changes nothing.

        means: from `mean_norms`.
        """
        ...

    def at_multiple(self, means: Sequence[float], multiple: float) -> "Learned":
        """Return the same at a multiple of the vocabulary's mean norm.

        means: from `mean_norms`.
        """
        ...

    def inflation(self, means: Sequence[float]) -> float:
        """Return its mean norm, as a multiple of the vocabulary's mean norm.

        means: from `mean_norms`.
        """
        ...


@dataclass(frozen=True)
class TokenVectors:
    """The vectors of a learned token, and the adapters that its run learned with it."""

    name: str
    vectors: tuple[Tensor, ...]  # (n, d) for each text encoder of the model, in order
    adapters: tuple[Scaled, ...] = ()

    def place(self, model: TextToImage) -> None:
        """Let the token stand for its vectors in this model, painted with its adapters."""
        model.place(self.name, [rows.to(model.device) for rows in self.vectors])
        model.place_adapters(self.name, self.adapters)

    def as_placeholder(self, stem: str) -> "TokenVectors":
        """Return the same vectors under the name <stem-COUNTS>.

        A placeholder keeps its number of vectors in a model, so that number is in its name.
        """
        counts = "-".join(str(len(rows)) for rows in self.vectors)
        return replace(self, name=f"<{stem}-{counts}>")

    def at_mean_norm(self, means: Sequence[float]) -> "TokenVectors | None":
        """Return the same directions at the mean norm of each encoder's vocabulary.

        None where no vector changes by more than a thousandth of its norm.
        """
        rescaled = self.at_multiple(means, 1)
        pairs = zip(rescaled.vectors, self.vectors, strict=True)
        changed = any((new - old).norm() > _SAME_NORM * old.norm() for new, old in pairs)
        return rescaled if changed else None

    def at_multiple(self, means: Sequence[float], multiple: float) -> "TokenVectors":
        """Return the same directions at a multiple of the mean norm of each vocabulary."""
        rescaled = tuple(
            multiple * mean * geometry.normalize(rows.float())
            for mean, rows in zip(means, self.vectors, strict=True)
        )
        return replace(self, vectors=rescaled)

    def inflation(self, means: Sequence[float]) -> float:
        """Return mean norm / mean norm of the vocabulary, as the mean over the encoders."""
        return fmean(
            float(geometry.norms(rows).mean()) / mean
            for rows, mean in zip(self.vectors, means, strict=True)
        )


def load_tokens(
    model: TextToImage,
    paths: Iterable[str | Path | EmbeddingFile],
    *,
    adapter_scale: float = 1.0,
) -> tuple[str, ...]:
    """Place everything learned that these files hold in the model. Returns the names.

    paths: as for `token_files`. adapter_scale: as for `read_learned`. Raises EmbeddingFileError,
    and UnknownToken for a name that is a word of the model already.
    """
    by_name = read_learned(model, token_files(paths), adapter_scale=adapter_scale)
    for learned in by_name.values():
        learned.place(model)
    return tuple(by_name)


def token_files(paths: Iterable[str | Path | EmbeddingFile]) -> list[EmbeddingFile]:
    """Return the embedding files under these paths, in their order.

    A path is a file, a folder of files, the folder of a run (what the run ended with), or
    `<name>=PATH`. The last form gives the one token of that path another name: two runs may both
    have called theirs <x>.
    """
    files: list[EmbeddingFile] = []
    for path in paths:
        if isinstance(path, EmbeddingFile):
            files.append(path)
            continue
        name, place = "", str(path)
        if not Path(path).exists():
            name, _, place = place.rpartition("=")
        read = [read_embeddings(file) for file in _files(Path(place))]
        files += _renamed(read, name) if name else read
    return files


def read_learned(
    model: TextToImage, files: Sequence[EmbeddingFile], *, adapter_scale: float = 1.0
) -> dict[str, Learned]:
    """Return what these files hold for this model, by name; vectors are float32 on the CPU.

    The text encoders of a token may lie in one file or in several: they are joined by the token's
    name, and told apart by their width. A token of a run with an adapter comes with it.
    adapter_scale: multiplies what adapters do; 0 leaves them out. Raises EmbeddingFileError for a
    width that no encoder has, two tokens of one name, or an encoder without vectors.
    """
    widths = {tower.name: tower.token_table.shape[1] for tower in model.towers}
    vectors: dict[str, dict[str, Tensor]] = {}  # token → text encoder → (n, d)
    origin: dict[tuple[str, str], Path] = {}
    for file in files:
        for learned in join_numbered(file.tokens):
            by_tower = vectors.setdefault(learned.token, {})
            tower = _tower_for(learned, file.path, model.name, widths, by_tower, origin)
            by_tower[tower] = learned.vectors.float()
            origin[learned.token, tower] = file.path
    for token, by_tower in vectors.items():
        _check_complete(token, by_tower, model.name, widths)
    first = {token: origin[token, next(iter(by_tower))] for token, by_tower in vectors.items()}
    adapters = _adapters_beside(first, adapter_scale)
    return {
        token: TokenVectors(
            token, tuple(by_tower[tower] for tower in widths), adapters.get(token, ())
        )
        for token, by_tower in vectors.items()
    }


def _adapters_beside(files: Mapping[str, Path], scale: float) -> dict[str, tuple[Scaled, ...]]:
    """Return the adapter of each token's run, by token; one object for all tokens of a run."""
    if not scale:
        return {}
    read: dict[Path, Adapter] = {}
    adapters: dict[str, tuple[Scaled, ...]] = {}
    for token, file in files.items():
        path = adapter_beside(file)
        if path is None:
            continue
        if path not in read:
            read[path] = read_adapter(path)
        adapters[token] = ((read[path], scale),)
    return adapters


def mean_norms(model: TextToImage) -> list[float]:
    """Return the mean norm of the vocabulary of each text encoder, in embedding units."""
    return [geometry.summarize_norms(tower.token_table).mean for tower in model.towers]


def _tower_for(
    learned: LearnedToken,
    path: Path,
    model: str,
    widths: dict[str, int],
    taken: dict[str, Tensor],
    origin: dict[tuple[str, str], Path],
) -> str:
    """The first text encoder of the right width that has no vectors of this token yet."""
    width = learned.vectors.shape[1]
    fitting = [tower for tower in widths if widths[tower] == width]
    free = [tower for tower in fitting if tower not in taken]
    if not fitting:
        expected = " and ".join(f"{size} ({tower})" for tower, size in widths.items())
        raise EmbeddingFileError(
            f"{path}: {learned.token} has width {width}; {model} takes {expected}. Choose the "
            "model it was trained for with --model."
        )
    if not free:
        raise EmbeddingFileError(
            f"{path}: {learned.token} came from {origin[learned.token, fitting[0]]} already. "
            f"Leave one out, or give it a name of its own: '<name>={path}'."
        )
    return free[0]


def _check_complete(
    token: str, by_tower: dict[str, Tensor], model: str, widths: dict[str, int]
) -> None:
    missing = [tower for tower in widths if tower not in by_tower]
    if missing:
        sizes = " and ".join(str(widths[tower]) for tower in missing)
        raise EmbeddingFileError(
            f"{token} has no vectors for {' and '.join(missing)} of {model} (width {sizes}). Name "
            "the file that holds them too, such as learned_embeds_2.safetensors."
        )


def _files(path: Path) -> list[Path]:
    learned = learned_in_run(path) if path.is_dir() else []
    return learned or find_embedding_files(path)


def _renamed(files: list[EmbeddingFile], name: str) -> list[EmbeddingFile]:
    tokens: set[str] = set()
    for file in files:
        tokens |= {learned.token for learned in join_numbered(file.tokens)}
    if len(tokens) != 1:
        raise EmbeddingFileError(
            f"{files[0].path} and the files beside it hold {len(tokens)} tokens "
            f"({', '.join(sorted(tokens))}); {name}= renames one. Name the file of one of them."
        )
    return [replace(file, tokens=_tokens_named(name, file)) for file in files]


def _tokens_named(name: str, file: EmbeddingFile) -> tuple[LearnedToken, ...]:
    return tuple(
        LearnedToken(name, learned.tower, learned.vectors) for learned in join_numbered(file.tokens)
    )
