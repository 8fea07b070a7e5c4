"""Lay out directions in two dimensions by t-SNE, and place others among them.

openTSNE does the work. It is given the exact nearest neighbours instead of searching for its own.
"""

import importlib.util
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dti_geom.errors import DoesNotApply, GeometryError
from dti_geom.geometry._checks import check_unit, check_vectors
from dti_geom.geometry.neighbors import nearest
from dti_geom.progress import Progress, silent

PERPLEXITY = 30.0
LEAST = 8  # directions that can be laid out
_EARLY, _LATE = 250, 500  # iterations: openTSNE's defaults
_EVERY = 50  # iterations between two reports of progress


@dataclass(frozen=True)
class Layout:
    """Directions in two dimensions."""

    positions: Tensor  # (n, 2), float32, CPU; without a unit
    # Exact nearest rows of each row by cosine, itself left out, nearest first.
    neighbors: Tensor  # (n, k), int64, CPU
    similarities: Tensor  # (n, k), cosines
    _embedding: Any = field(repr=False)

    def place(self, directions: Tensor) -> Tensor:
        """Return where other directions lie on the map, by their own nearest rows: (m, 2).

        directions: (m, d), unit norm. The map stays as it is, and each is placed as if alone.
        """
        check_vectors(directions, "directions")
        check_unit(directions, "directions")
        if not len(directions):
            return torch.empty(0, 2)
        placed = self._embedding.transform(directions.float().cpu().numpy())
        return torch.from_numpy(placed.__array__().copy()).float()


@torch.no_grad()
def lay_out(
    directions: Tensor, k: int = 10, *, seed: int = 0, progress: Progress = silent
) -> Layout:
    """Return two dimensions of directions, in which near rows lie near each other.

    directions: (n, d), unit norm, n at least LEAST. k: how many exact neighbours of each row are
    returned; below n. Distances across the map, areas and empty space mean nothing.

    The same seed, threads and versions give the same map. Raises DoesNotApply where openTSNE is not
    installed, GeometryError for fewer rows or other norms.
    """
    require_library()
    from openTSNE import TSNE
    from openTSNE.affinity import PerplexityBasedNN

    check_vectors(directions, "directions")
    check_unit(directions, "directions")
    count = len(directions)
    if count < LEAST or not 1 <= k < count:
        raise GeometryError(
            f"{count} directions and k = {k}; expected at least {LEAST} and a k below their number."
        )
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    progress("neighbours", 0, count)
    index = _exact_index(directions, max(k, int(3 * perplexity)))
    progress("neighbours", count, count)
    jobs, done = torch.get_num_threads(), 0

    def report(_iteration: int, _error: float, _embedding: Any) -> None:
        nonlocal done
        done += _EVERY
        progress("map", done, _EARLY + _LATE)

    embedding = TSNE(
        early_exaggeration_iter=_EARLY,
        n_iter=_LATE,
        n_jobs=jobs,
        random_state=seed,
        callbacks=[report],
        callbacks_every_iters=_EVERY,
    ).fit(
        directions.float().cpu().numpy(),
        affinities=PerplexityBasedNN(knn_index=index, perplexity=perplexity, n_jobs=jobs),
    )
    return Layout(
        positions=torch.from_numpy(embedding.__array__().copy()).float(),
        neighbors=index.neighbors[:, :k],
        similarities=index.similarities[:, :k],
        _embedding=embedding,
    )


def require_library() -> None:
    """Raise DoesNotApply, saying how to install it, if openTSNE is missing."""
    if importlib.util.find_spec("openTSNE") is None:
        raise DoesNotApply("a map needs openTSNE: pip install 'dti-geom[map]'.")


@torch.no_grad()
def kept_neighbors(neighbors: Tensor, positions: Tensor) -> float:
    """Return the share of each row's neighbours that are among as many nearest on a map; the mean.

    neighbors: (n, k), rows, itself left out. positions: (n, 2). By chance it is k / (n − 1).
    """
    from scipy.spatial import cKDTree

    count, k = neighbors.shape
    points = positions.double().numpy()
    found = torch.from_numpy(cKDTree(points).query(points, k + 1)[1])
    itself = found == torch.arange(count)[:, None]
    # A row is its own nearest on the map, but for others at the very same place.
    itself[~itself.any(dim=1), -1] = True
    on_map = found[~itself].reshape(count, k)
    return float((neighbors[:, :, None] == on_map[:, None]).any(dim=-1).double().mean())


def _exact_index(directions: Tensor, k: int) -> Any:
    """Return openTSNE's index of nearest neighbours, answered by `nearest`."""
    from openTSNE.nearest_neighbors import KNNIndex

    class ExactIndex(KNNIndex):  # type: ignore[misc]  # the library publishes no types
        """Exact nearest directions by cosine."""

        def __init__(self) -> None:
            self.k, self.n_samples = k, len(directions)
            self.neighbors, self.similarities = _others(directions, k)

        def build(self) -> tuple[Any, Any]:
            return self.neighbors.numpy(), _chords(self.similarities)

        def query(self, query: Any, k: int) -> tuple[Any, Any]:
            vectors = torch.from_numpy(query).to(directions)
            found = nearest(vectors, directions, k, metric="cosine")
            return found.indices.cpu().numpy(), _chords(found.values.cpu())

    return ExactIndex()


def _others(directions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest other rows of each row and their cosines: (n, k), (n, k)."""
    found = nearest(directions, directions, k + 1, metric="cosine")
    indices, values = found.indices.cpu(), found.values.cpu()
    others = indices != torch.arange(len(indices))[:, None]
    others &= others.cumsum(dim=1) <= k  # where equal rows push a row out of its own list
    shape = (len(indices), k)
    return indices[others].reshape(shape), values[others].reshape(shape)


def _chords(cosines: Tensor) -> Any:
    """Return Euclidean distances of unit vectors, as a NumPy array."""
    return (2 - 2 * cosines.double()).clamp_min(0).sqrt().numpy()
