"""Write a direction as a sparse, non-negative sum of the directions of a table's rows."""

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry._checks import check_nonzero, check_vectors
from dti_geom.geometry.summary import row_norms

# A sum that leaves less of the squared norm than this is exact: the rest is rounding. Vectors are
# often stored in half precision.
EXACT = 1e-5
_ROWS = 1 << 14  # of the table at a time
_TARGETS = 32  # at a time
_CANDIDATES = 1024  # rows that the solver starts with, those nearest to the target
_STEPS = 2  # of the path, for each row of the largest sum: some rows enter and leave again


class SparseSum(NamedTuple):
    """A sum of unit rows, heaviest first."""

    rows: tuple[int, ...]
    weights: tuple[float, ...]  # > 0, of unit rows, for a target of unit norm
    share: float  # of the target's squared norm that the sum explains, 0 … 1


@torch.no_grad()
def sparse_sums(
    targets: Tensor, table: Tensor, size: int, *, without: Sequence[int | None] | None = None
) -> list[tuple[SparseSum, ...]]:
    """Return, for each target, the best sums found of 1, 2, … up to `size` rows.

    targets: (n, d); table: (V, d), any float dtype; only directions count, and zero rows are left
    out. without: for each target a row that it may not use, or None. A sum that explains no more
    than a smaller one is left out, and nothing follows an exact sum. A target with no row in its
    half of the space has no sum at all.

    Sums come from the path of min ½‖v − Vᵀw‖² + λ‖w‖₁ over w ≥ 0 as λ falls (least angle
    regression: scikit-learn's `lars_path`). ‖w‖₁ shrinks the weights, so they are fitted again
    without it (SciPy's `nnls`): for each set of rows on the path, all of them and its heaviest.

    The solver sees the nearest rows alone. Whether a row that it did not see would have entered
    is then checked against the whole table, and the path is solved again with those that would.

    Raises GeometryError for zero vectors, NaN and infinity.
    """
    check_vectors(targets, "targets")
    check_nonzero(targets, "targets")
    if table.dim() != 2 or targets.dim() != 2 or targets.shape[1] != table.shape[1]:
        raise GeometryError(
            f"targets has shape {tuple(targets.shape)} and table {tuple(table.shape)}; expected "
            "(n, d) and (V, d) with the same d. Check that both come from the same encoder."
        )
    if size < 1:
        raise GeometryError(f"size is {size}; expected a number of rows, at least 1.")
    unit = torch.nn.functional.normalize(targets.double().cpu(), dim=1).numpy()
    left_out = [None] * len(unit) if without is None else list(without)
    rows = _Rows(table)
    sums: list[tuple[SparseSum, ...]] = []
    for start in range(0, len(unit), _TARGETS):
        chunk = slice(start, start + _TARGETS)
        paths = _paths(unit[chunk], rows, size, left_out[chunk])
        sums += [
            _best_sums(target, path, size) for target, path in zip(unit[chunk], paths, strict=True)
        ]
    return sums


class _Path(NamedTuple):
    """The knots of one target's path, as the solver saw them."""

    rows: np.ndarray  # (M,), row numbers
    units: np.ndarray  # (d, M), their directions
    weights: np.ndarray  # (M, knots)
    bounds: np.ndarray  # (knots,): no row may correlate more with the residual


class _Rows:
    """The unit rows of a table, read a block at a time: a float32 copy could be gigabytes."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.norms = row_norms(table)

    def units(self, rows: np.ndarray) -> np.ndarray:
        """Return some of them as columns, (d, M), float64."""
        chosen = self.table[torch.from_numpy(rows).to(self.table.device)].double()
        return torch.nn.functional.normalize(chosen, dim=1).cpu().numpy().T

    def correlations(self, vectors: np.ndarray) -> Iterator[tuple[int, Tensor]]:
        """Yield the first row of each block and its inner products with vectors (m, d): (b, m).

        Zero rows get −inf.
        """
        device = self.table.device
        columns = torch.from_numpy(vectors.T.copy()).to(device, torch.float32)
        for start in range(0, len(self.table), _ROWS):
            norms = self.norms[start : start + _ROWS, None].float()
            products = self.table[start : start + _ROWS].float() @ columns
            yield start, (products / norms).masked_fill_(norms == 0, -torch.inf)


def _paths(
    targets: np.ndarray, rows: _Rows, size: int, without: Sequence[int | None]
) -> list[_Path]:
    """Return the path of each target; targets: (n, d), unit."""
    usable = int((rows.norms > 0).sum())
    count = min(_CANDIDATES, usable)
    candidates = _nearest(targets, rows, count)
    for place, row in enumerate(without):
        candidates[place] = candidates[place][candidates[place] != row]
    paths: list[_Path | None] = [None] * len(targets)
    pending = list(range(len(targets)))
    while pending:
        for place in pending:
            paths[place] = _path(targets[place], candidates[place], rows, size)
        solved = [path for path in paths if path is not None]
        missing = (
            _missing([solved[place] for place in pending], targets[pending], rows)
            if count < usable
            else [np.array([], dtype=np.int64)] * len(pending)
        )
        still: list[int] = []
        for place, found in zip(pending, missing, strict=True):
            added = np.setdiff1d(found[found != without[place]], candidates[place])
            if len(added):
                candidates[place] = np.concatenate([candidates[place], added])
                still.append(place)
        pending = still
    return [path for path in paths if path is not None]


def _nearest(targets: np.ndarray, rows: _Rows, count: int) -> list[np.ndarray]:
    """Return the `count` rows nearest to each target by direction. Near ties may fall either way.

    (`geometry.nearest` ranks exactly, which costs more and changes nothing here.)
    """
    best: Tensor | None = None
    ids: Tensor | None = None
    for start, products in rows.correlations(targets):
        numbers = torch.arange(start, start + len(products), device=products.device)
        numbers = numbers[:, None].expand_as(products)
        if best is not None and ids is not None:
            products, numbers = torch.cat([best, products]), torch.cat([ids, numbers])
        best, order = products.topk(min(count, len(products)), dim=0)
        ids = numbers.gather(0, order)
    assert ids is not None
    return list(ids.T.cpu().numpy())


def _path(target: np.ndarray, candidates: np.ndarray, rows: _Rows, size: int) -> _Path:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lars_path

    units = rows.units(candidates)
    with warnings.catch_warnings():
        # Of two equal rows the solver drops one and says so; either serves.
        warnings.simplefilter("ignore", ConvergenceWarning)
        bounds, _, weights = lars_path(
            np.array(units, order="F"),  # a copy, which the solver reorders
            target,
            method="lasso",
            positive=True,
            max_iter=_STEPS * size,
            copy_X=False,
        )
    return _Path(candidates, units, weights, bounds * len(target))  # it divides by the samples


def _missing(paths: Sequence[_Path], targets: np.ndarray, rows: _Rows) -> list[np.ndarray]:
    """Return, for each path, the rows of the table that would have entered it."""
    residuals = [
        target - (path.units @ path.weights).T for target, path in zip(targets, paths, strict=True)
    ]
    # The products are float32: a row is missing only where it exceeds the bound by more than that.
    bounds = torch.from_numpy(np.concatenate([path.bounds for path in paths])).float()
    bounds = (bounds * (1 + 1e-4) + 1e-6).to(rows.table.device)
    ends = np.cumsum([len(residual) for residual in residuals])
    found: list[list[np.ndarray]] = [[] for _ in paths]
    for start, products in rows.correlations(np.concatenate(residuals)):
        exceeding = (products > bounds).cpu().numpy()
        if exceeding.any():
            for place, part in enumerate(np.split(exceeding, ends[:-1], axis=1)):
                found[place].append(start + np.flatnonzero(part.any(axis=1)))
    return [np.concatenate(parts) if parts else np.array([], dtype=np.int64) for parts in found]


def _best_sums(target: np.ndarray, path: _Path, size: int) -> tuple[SparseSum, ...]:
    """Return the best sum of each size among the sets of rows on a path."""
    best: dict[int, SparseSum] = {}
    for support in dict.fromkeys(map(_support, path.weights.T)):
        if not support:
            continue
        # In the basis of the set's own span a fit costs a few numbers instead of d.
        basis, factor = np.linalg.qr(path.units[:, support])
        inside = basis.T @ target
        outside = max(0.0, 1 - float(inside @ inside))
        order = np.argsort(-_fitted(factor, inside)[0], kind="stable")
        for count in range(1, min(size, len(support)) + 1):
            chosen = order[:count]
            weights, left = _fitted(factor[:, chosen], inside)
            share = 1 - outside - left
            if count not in best or share > best[count].share:
                numbers = path.rows[np.array(support)[chosen]]
                best[count] = _heaviest_first(numbers, weights, share)
    sums: list[SparseSum] = []
    for count in sorted(best):
        # A set of which the fit uses fewer rows explains no more than a smaller one.
        if not sums or best[count].share > sums[-1].share + 1e-9:
            sums.append(best[count])
        if sums[-1].share > 1 - EXACT:
            break
    return tuple(sums)


def _support(weights: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(weights > 0).tolist())


def _fitted(rows: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weights ≥ 0 and the squared norm that they leave."""
    from scipy.optimize import nnls

    weights, left = nnls(rows, target)
    return weights, left * left


def _heaviest_first(rows: np.ndarray, weights: np.ndarray, share: float) -> SparseSum:
    order = [place for place in np.argsort(-weights, kind="stable") if weights[place] > 0]
    return SparseSum(
        tuple(rows[order].tolist()), tuple(weights[order].tolist()), min(1.0, max(0.0, share))
    )
