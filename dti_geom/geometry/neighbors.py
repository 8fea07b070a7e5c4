"""Exact nearest rows of a table, by cosine or by Euclidean distance.

A table of 49408 rows against itself has 2.4 billion scores, so nearly all must be dismissed cheaply. The search

1. scores blocks of queries and rows with a matrix product in low precision, whose error is bounded;
2. keeps, per query, the rows whose score could still be among the k best, given that error;
3. computes those few again from differences or products in float64, and ranks them.

A query that keeps too many rows goes back to step 1 in a higher precision. Step 3 alone decides the answer, so it is
the same whatever precision the screening used.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry._checks import check_nonzero, check_table_like, working_dtype
from dti_geom.geometry.sphere import _binary_scale, _row_norms

Metric = Literal["cosine", "euclidean"]

# Queries and rows per block: the block's scores take 32 MB in bfloat16 and 128 MB in float64.
_BLOCK = 4096
# Columns per tile: a tile is looked into only if its largest score may count.
_TILE = 64
# Scores looked at one by one, and numbers gathered for float64 values, at a time: small enough for the cache, large
# enough that starting threads costs little.
_SCORES = 1 << 22
_NUMBERS = 1 << 20
# Fewer queries than this do not repay rounding the table to bfloat16.
_FEW_QUERIES = 64


class Neighbors(NamedTuple):
    """The k nearest rows of each query, best first."""

    values: Tensor  # (..., k), cosine similarities (descending) or Euclidean distances (ascending)
    indices: Tensor  # (..., k), int64 row numbers


@torch.no_grad()
def nearest(queries: Tensor, table: Tensor, k: int, metric: Metric = "cosine") -> Neighbors:
    """The k nearest rows of a table for each query, exactly.

    queries: (..., d); table: (V, d), any float dtype. A query that is a row of the table finds itself first.
    Returns (values, indices), each (..., k): similarities in [-1, 1], descending, or distances in the units of the
    table, ascending. Zero rows have no cosine and are never returned by it; zero queries raise.

    Values are computed in float64 from the given numbers and rounded to float32 (float64 stays). Rows are ranked by
    these values, and equal values by row number; so the ranking is the float64 one, except among rows that agree to
    float32, and equal rows always come in row order.

    Works in blocks: beyond the answer it takes about half a gigabyte, and (8k + 128)·20 bytes per query, whatever V.
    Fast when queries is the table itself, since then each block of scores serves both its rows and its columns.
    """
    if metric not in ("cosine", "euclidean"):
        raise GeometryError(f"metric is {metric!r}; expected 'cosine' or 'euclidean'.")
    check_table_like(queries, "queries")
    check_table_like(table, "table")
    if table.dim() != 2 or queries.shape[-1] != table.shape[1]:
        raise GeometryError(
            f"queries has shape {tuple(queries.shape)} and table {tuple(table.shape)}; expected (..., d) and (V, d) "
            "with the same d. Check that both come from the same encoder."
        )
    flat = queries.reshape(-1, table.shape[1])
    same = (
        flat.dtype == table.dtype and flat.shape == table.shape and flat.stride() == table.stride()
    )
    same = same and flat.data_ptr() == table.data_ptr()
    table_norms = _row_norms(table, "table")
    query_norms = table_norms if same else _row_norms(flat, "queries")
    usable = len(table)
    if metric == "cosine":
        usable = int(table_norms.count_nonzero())
        check_nonzero(query_norms[:, None], "queries")
    if not 1 <= k <= usable:
        rows = "rows" if usable == len(table) else "non-zero rows"
        raise GeometryError(
            f"k is {k} and the table has {usable} {rows}; expected k from 1 to {usable}."
        )

    values = torch.empty(len(flat), k, dtype=working_dtype(queries, table), device=table.device)
    indices = torch.empty(len(flat), k, dtype=torch.int64, device=table.device)
    pending = torch.arange(len(flat), device=table.device)
    for precision in _precisions(len(flat), table.device):
        if not pending.numel():
            break
        last = precision is torch.float64
        # The last precision keeps whatever it must, so there it takes few queries at a time.
        group = max(1, _SCORES // len(table)) if last else len(pending)
        left = []
        for ids in pending.split(group):
            whole = same and len(ids) == len(flat)
            source = _Side(flat, query_norms) if whole else _Side(flat[ids], query_norms[ids])
            query, row, crowded = _shortlist(
                source,
                _Side(table, table_norms),
                k,
                metric,
                precision,
                len(table) if last else 8 * k + 128,
                whole,
            )
            value = _exact(source.rows, table, query, row, metric).to(values.dtype)
            done = ids[~crowded]
            values[done], indices[done] = _rank(query, row, value, len(done), k, metric == "cosine")
            left.append(ids[crowded])
        pending = torch.cat(left)
    shape = (*queries.shape[:-1], k)
    return Neighbors(values.reshape(shape), indices.reshape(shape))


def _precisions(queries: int, device: torch.device) -> list[torch.dtype]:
    """Precisions to screen in, cheapest first; only those whose products are as exact as their name says."""
    precisions = [torch.float64]
    if torch.get_float32_matmul_precision() == "highest":
        precisions.insert(0, torch.float32)
    # Elsewhere bfloat16 products are emulated (slow), or may be summed in bfloat16 (CUDA's default).
    fast_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    if device.type == "cpu" and queries >= _FEW_QUERIES and fast_bfloat16():
        precisions.insert(0, torch.bfloat16)
    return precisions


@dataclass(frozen=True)
class _Side:
    """Queries or table rows (n, d), with their norms (n,)."""

    rows: Tensor
    norms: Tensor


@dataclass(frozen=True)
class _Operand:
    """One block of rows made ready for the product; padded with dead rows to whole tiles."""

    start: int
    count: int
    matrix: Tensor  # (padded, d or d + 6), in the screening precision
    norms: Tensor  # (padded,), after scaling
    rounding: float  # largest |rounded row − row| / |row|
    dead: Tensor  # indices of rows that must not be found: padding, and zero rows for cosine


class _Screen:
    """Turns blocks of rows into operands whose product is the score: cos, or −|q − t|²/2 in units of `scale`.

    The distance becomes a product by three extra columns on either side, since −|q − t|²/2 = qᵀt − |q|²/2 − |t|²/2:
    each half square is carried as a sum of three numbers of the screening precision, against ones.
    """

    def __init__(
        self, metric: Metric, precision: torch.dtype, result: torch.dtype, scale: Tensor, tile: int
    ) -> None:
        self.metric, self.precision, self.result, self.scale, self.tile = (
            metric,
            precision,
            result,
            scale,
            tile,
        )
        self.compute = torch.promote_types(precision, torch.float32)

    def operand(self, side: _Side, start: int, is_query: bool) -> _Operand:
        chunk, length = side.rows[start : start + _BLOCK], side.norms[start : start + _BLOCK]
        scale = (
            torch.where(length > 0, length, 1)[:, None] if self.metric == "cosine" else self.scale
        )
        x = (chunk.to(torch.promote_types(chunk.dtype, self.compute)) / scale).to(self.compute)
        length = torch.linalg.vector_norm(x, dim=1)
        dead = (
            length == 0 if self.metric == "cosine" else torch.zeros_like(length, dtype=torch.bool)
        )
        if self.metric == "cosine":
            x = x / torch.where(dead, 1, length)[:, None]
            length = torch.where(dead, 0.0, torch.ones_like(length))
        matrix = x.to(self.precision)
        rounding = 0.0
        if self.precision != self.compute:
            error = torch.linalg.vector_norm(x - matrix, dim=1) / torch.where(length > 0, length, 1)
            rounding = float(error.max())
        if self.metric == "euclidean":
            rest, pieces = -length.square() / 2, []
            for _ in range(3):
                pieces.append(rest.to(self.precision))
                rest = rest - pieces[-1]
            squares, ones = torch.stack(pieces, dim=1), matrix.new_ones(len(matrix), 3)
            matrix = torch.cat(
                [matrix, squares, ones] if is_query else [matrix, ones, squares], dim=1
            )
        padding = -len(chunk) % self.tile
        matrix = torch.nn.functional.pad(matrix, (0, 0, 0, padding))
        length = torch.nn.functional.pad(length, (0, padding))
        dead = torch.nn.functional.pad(dead, (0, padding), value=True).nonzero().squeeze(1)
        return _Operand(start, len(chunk), matrix, length, rounding, dead)

    def relative_error(self) -> float:
        """Error of a score as a share of itself: from rounding it, and from rounding the value it stands for."""
        return 0.501 * torch.finfo(self.precision).eps + 1.01 * torch.finfo(self.result).eps

    def absolute_error(self, q: _Operand, t: _Operand, reach: Tensor) -> Tensor:
        """Bound (queries, tiles) on the rest of a score's error, for rows up to `reach` (tiles,) long.

        Rounded operands: |q̃ᵀt̃ − qᵀt| ≤ (a + b + ab)·|q||t| for relative roundings a, b (Cauchy–Schwarz). Summing n
        products: n·eps/2 times the sum of their sizes (Higham 2002, eq. 3.5), and more than that again for norms and
        scaling. The last term covers rows so short that their products or squares vanish.
        """
        a, b = q.rounding, t.rounding
        summing = 2 * q.matrix.shape[1] * torch.finfo(self.compute).eps
        length = q.norms[: q.count, None]
        return (
            (a + b + a * b + summing) * length * reach
            + summing * (length.square() + reach.square())
            + 1e-17
        )


def _shortlist(
    queries: _Side,
    table: _Side,
    k: int,
    metric: Metric,
    precision: torch.dtype,
    limit: int,
    same: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (query, row) that hold every query's k nearest rows, by query then row; and the queries left out.

    A query is left out if it would keep more than `limit` rows. `same` says that queries and table are one.
    """
    n, rows = len(queries.rows), len(table.rows)
    tile = 1 << max(0, min(_TILE, min(_BLOCK, rows) // (4 * k)).bit_length() - 1)
    largest = max(float(side.norms.max()) if len(side.norms) else 0.0 for side in (queries, table))
    result = working_dtype(queries.rows, table.rows)
    screen = _Screen(
        metric, precision, result, _binary_scale(table.norms.new_tensor([largest])), tile
    )
    state = _Bounds(n, k, limit, screen)
    # One buffer for every block: fresh memory for each would cost as much as a tenth of the product.
    buffer = torch.empty((_BLOCK + tile) ** 2, dtype=precision, device=table.rows.device)
    for i in range(0, n, _BLOCK):
        q = screen.operand(queries, i, is_query=True)
        for j in range(i if same else 0, rows, _BLOCK):
            if state.all_crowded():
                break
            t = screen.operand(table, j, is_query=False)
            scores = buffer[: len(q.matrix) * len(t.matrix)].view(len(q.matrix), len(t.matrix))
            torch.mm(q.matrix, t.matrix.T, out=scores)
            scores[:, t.dead] = -torch.inf
            state.add(scores[: q.count], q, t)
            if same and j > i:
                scores[q.dead] = -torch.inf
                state.add(scores.T[: t.count], t, q)
    return state.pairs(rows)


class _Bounds:
    """What is known of each query so far: a floor under its k-th best score, and the rows that may reach it."""

    def __init__(self, n: int, k: int, limit: int, screen: _Screen) -> None:
        device = screen.scale.device
        self.best = torch.full((n, k), -torch.inf, dtype=screen.compute, device=device)
        self.kept = torch.zeros(n, dtype=torch.int64, device=device)
        self.limit, self.screen = limit, screen
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []  # query, row, upper bound of its score

    def all_crowded(self) -> bool:
        return bool(torch.isposinf(self.best[:, -1]).all())

    def add(self, scores: Tensor, q: _Operand, t: _Operand) -> None:
        """Take in the scores (queries, padded rows) of one block."""
        # Tile j holds columns j, j + tiles, j + 2·tiles, …: maxima then run along memory, many tiles at once.
        width = self.screen.tile
        if scores.stride(0) == 1:
            tops = scores.T.unflatten(0, (width, -1)).amax(dim=0).T.contiguous()
        else:
            tops = scores.unflatten(1, (width, -1)).amax(dim=1)
        tops = tops.to(self.best.dtype)
        tiles = tops.shape[1]
        error = self.screen.absolute_error(q, t, t.norms.unflatten(0, (width, -1)).amax(dim=0))
        share = self.screen.relative_error()
        slack = error + share * tops.abs()
        best = self.best[q.start : q.start + q.count]
        # k tiles whose largest scores are at least x hold k rows that are.
        best.copy_(torch.cat([best, tops - slack], dim=1).topk(best.shape[1], dim=1).values)
        floor = best[:, -1:]
        # Dead rows score −inf, which the slack turns into NaN: not ≥ anything.
        hits = (tops + slack >= floor).nonzero()
        for query, tile in (part.unbind(1) for part in hits.split(max(1, _SCORES // width))):
            score = scores.unflatten(1, (width, -1))[query, :, tile].to(tops.dtype)
            upper = score + share * score.abs() + error[query, tile, None]
            hit, member = (upper >= floor[query]).nonzero(as_tuple=True)
            self.kept.index_add_(0, q.start + query[hit], torch.ones_like(hit))
            # Pairs of a crowded query are dropped at once: kept to the end, they could fill the memory.
            fits = self.kept[q.start + query[hit]] <= self.limit
            hit, member = hit[fits], member[fits]
            self.found.append(
                (q.start + query[hit], t.start + member * tiles + tile[hit], upper[hit, member])
            )
        best[self.kept[q.start : q.start + q.count] > self.limit] = torch.inf

    def pairs(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """What is left now that every floor is final."""
        crowded = torch.isposinf(self.best[:, -1])
        query, row, upper = (torch.cat(parts) for parts in zip(*self.found, strict=True))
        # A crowded query's floor is infinite, so it keeps nothing.
        keep = upper >= self.best[query, -1]
        key = (query[keep] * rows + row[keep]).sort().values
        return key // rows, key % rows, crowded


def _exact(queries: Tensor, table: Tensor, query: Tensor, row: Tensor, metric: Metric) -> Tensor:
    """Similarity or distance of each pair, float64.

    Sums run over one pair at a time, so equal rows get equal values wherever they stand.
    """
    step = max(1, _NUMBERS // table.shape[1])
    value = torch.empty(len(query), dtype=torch.float64, device=table.device)
    shape = min(step, len(query)), table.shape[1]
    # Buffers, and index_select rather than x[i], halve the time of this loop.
    q, t, x = queries.new_empty(shape), table.new_empty(shape), value.new_empty(shape)
    for i, j, out in zip(query.split(step), row.split(step), value.split(step), strict=True):
        n = len(i)
        torch.index_select(queries, 0, i, out=q[:n])
        torch.index_select(table, 0, j, out=t[:n])
        if metric == "euclidean":
            out.copy_(torch.linalg.vector_norm(x[:n].copy_(q[:n]).sub_(t[:n]), dim=1))
        else:
            out.copy_(x[:n].copy_(q[:n]).mul_(t[:n]).sum(dim=1))
    if metric == "cosine":
        value /= _precise_norms(queries, query) * _precise_norms(table, row)
        value.clamp_(-1, 1)
    return value


def _precise_norms(x: Tensor, ids: Tensor) -> Tensor:
    """Norms of the rows `ids`, float64."""
    unique, place = ids.unique(return_inverse=True)
    parts = [torch.linalg.vector_norm(x[chunk].double(), dim=1) for chunk in unique.split(_BLOCK)]
    return torch.cat(parts)[place] if parts else x.new_empty(0, dtype=torch.float64)


def _rank(
    query: Tensor, row: Tensor, value: Tensor, n: int, k: int, descending: bool
) -> tuple[Tensor, Tensor]:
    """The first k pairs of each query, (n, k); pairs come by query then row, which stable sorting keeps for ties."""
    order = value.sort(descending=descending, stable=True).indices
    order = order[query[order].sort(stable=True).indices]
    _, counts = query.unique_consecutive(return_counts=True)
    place = torch.arange(len(query), device=query.device) - (
        counts.cumsum(0) - counts
    ).repeat_interleave(counts)
    order = order[place < k]
    return value[order].reshape(n, k), row[order].reshape(n, k)
