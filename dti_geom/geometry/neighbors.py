"""Exact nearest rows of a table, by cosine or by Euclidean distance.

A table of 49408 rows against itself has 2.4 billion scores, so nearly all of them must be ruled
out cheaply. The search

1. scores blocks of queries and rows with a matrix product in low precision and bounds its error;
2. keeps, per query, the rows whose score may still be among the k best, given that error;
3. computes the kept pairs again in float64, and ranks them.

A query that keeps too many rows returns to step 1 in a higher precision. Step 3 alone decides the
answer, so the answer does not depend on the precision of step 1.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry._checks import check_nonzero, check_table_like, working_dtype
from dti_geom.geometry.sphere import _binary_scale, _row_norms

Metric = Literal["cosine", "euclidean"]

# Queries and rows per block. The scores of a block take 32 MB in bfloat16 and 128 MB in float64.
_BLOCK = 4096
# Columns per tile. Single scores are read only in tiles whose largest score may count.
_TILE = 64
# Scores read one by one, and numbers gathered for float64 values, at a time. Small enough for the
# cache, large enough that starting threads costs little.
_SCORES = 1 << 22
_NUMBERS = 1 << 20
# With fewer queries than this, rounding the table to bfloat16 costs more than it saves.
_FEW_QUERIES = 64


class NearestRows(NamedTuple):
    """The k nearest rows of each query, best first."""

    values: Tensor  # (..., k), cosine similarities (descending) or Euclidean distances (ascending)
    indices: Tensor  # (..., k), int64 row numbers


@dataclass(frozen=True)
class _Side:
    """Queries or table rows (n, d), with their norms (n,)."""

    rows: Tensor
    norms: Tensor


@torch.no_grad()
def nearest(queries: Tensor, table: Tensor, k: int, metric: Metric = "cosine") -> NearestRows:
    """Return the k nearest rows of a table for each query, exactly.

    queries: (..., d); table: (V, d), any float dtype. A query that is a row of the table finds
    itself first.
    Returns (values, indices), each (..., k): similarities in [-1, 1], descending, or distances in
    the units of the table, ascending. With cosine, zero rows are never returned, and zero queries
    raise GeometryError.

    Values are computed in float64 and rounded to float32 (float64 inputs stay float64). Rows are
    ranked by these values, and rows with equal values by row number.

    Works in blocks: beyond the answer it takes about half a gigabyte and (8k + 128)·20 bytes per
    query, whatever V. Fastest when queries is the table itself, since then each block of scores
    serves both its rows and its columns.
    """
    _check_inputs(queries, table, metric)
    flat = queries.reshape(-1, table.shape[1])
    same = _is_same_memory(flat, table)
    table_side = _Side(table, _row_norms(table, "table"))
    query_side = table_side if same else _Side(flat, _row_norms(flat, "queries"))
    if metric == "cosine":
        check_nonzero(query_side.norms[:, None], "queries")
    _check_k(k, table_side.norms, metric)
    values, indices = _search(query_side, table_side, k, metric, same=same)
    shape = (*queries.shape[:-1], k)
    return NearestRows(values.reshape(shape), indices.reshape(shape))


def _check_inputs(queries: Tensor, table: Tensor, metric: str) -> None:
    if metric not in ("cosine", "euclidean"):
        raise GeometryError(f"metric is {metric!r}; expected 'cosine' or 'euclidean'.")
    check_table_like(queries, "queries")
    check_table_like(table, "table")
    if table.dim() != 2 or queries.shape[-1] != table.shape[1]:
        raise GeometryError(
            f"queries has shape {tuple(queries.shape)} and table {tuple(table.shape)}; expected "
            "(..., d) and (V, d) with the same d. Check that both come from the same encoder."
        )


def _check_k(k: int, table_norms: Tensor, metric: Metric) -> None:
    usable = int(table_norms.count_nonzero()) if metric == "cosine" else len(table_norms)
    if not 1 <= k <= usable:
        rows = "rows" if usable == len(table_norms) else "non-zero rows"
        raise GeometryError(
            f"k is {k} and the table has {usable} {rows}; expected k from 1 to {usable}."
        )


def _is_same_memory(x: Tensor, y: Tensor) -> bool:
    return (
        x.dtype == y.dtype
        and x.shape == y.shape
        and x.stride() == y.stride()
        and x.data_ptr() == y.data_ptr()
    )


def _search(
    queries: _Side, table: _Side, k: int, metric: Metric, *, same: bool
) -> tuple[Tensor, Tensor]:
    """Return values and row numbers, each (n, k), trying the cheapest precision first.

    same: queries and table are the same tensor.
    """
    n, rows, device = len(queries.rows), len(table.rows), table.rows.device
    values = torch.empty(n, k, dtype=working_dtype(queries.rows, table.rows), device=device)
    indices = torch.empty(n, k, dtype=torch.int64, device=device)
    pending = torch.arange(n, device=device)
    for precision in _precisions(n, device):
        if not pending.numel():
            break
        last = precision is torch.float64
        # The last precision keeps as many rows as it must, so there it takes few queries at a time.
        group = max(1, _SCORES // rows) if last else len(pending)
        limit = rows if last else 8 * k + 128
        crowded_ids = []
        for ids in pending.split(group):
            whole = same and len(ids) == n
            side = queries if whole else _Side(queries.rows[ids], queries.norms[ids])
            query, row, crowded = _shortlist(
                queries=side,
                table=table,
                k=k,
                metric=metric,
                precision=precision,
                limit=limit,
                same=whole,
            )
            value = _exact(
                queries=side.rows, table=table.rows, query=query, row=row, metric=metric
            ).to(values.dtype)
            done = ids[~crowded]
            values[done], indices[done] = _rank(
                query=query,
                row=row,
                value=value,
                n=len(done),
                k=k,
                descending=metric == "cosine",
            )
            crowded_ids.append(ids[crowded])
        pending = torch.cat(crowded_ids)
    return values, indices


def _precisions(queries: int, device: torch.device) -> list[torch.dtype]:
    """Return the precisions to score in, cheapest first.

    Only those whose matrix products are as exact as their name says.
    """
    precisions = [torch.float64]
    # Below "highest", float32 products may be computed in TensorFloat-32 or bfloat16.
    if torch.get_float32_matmul_precision() == "highest":
        precisions.insert(0, torch.float32)
    # Elsewhere bfloat16 products are emulated (slow), or may be summed in bfloat16 (CUDA).
    fast_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    if device.type == "cpu" and queries >= _FEW_QUERIES and fast_bfloat16():
        precisions.insert(0, torch.bfloat16)
    return precisions


# --- Step 1: scores of blocks, with a bound on their error ---


@dataclass(frozen=True)
class _Operand:
    """A block of rows that is ready for the product, padded with dead rows to whole tiles."""

    start: int
    count: int
    matrix: Tensor  # (padded, d or d + 6), in the screening precision
    norms: Tensor  # (padded,), after scaling
    rounding: float  # largest |rounded row − row| / |row|
    dead: Tensor  # indices of rows that must not be found: padding, and zero rows for cosine


class _Screen:
    """Prepares blocks of rows so that their product is the score.

    The score is the cosine, or −|q − t|²/2 in units of `scale`². The distance becomes a product by
    six extra columns, since −|q − t|²/2 = qᵀt − |q|²/2 − |t|²/2: three columns carry the half
    square of the query against ones, and three that of the row.
    """

    def __init__(
        self, metric: Metric, precision: torch.dtype, result: torch.dtype, scale: Tensor, tile: int
    ) -> None:
        self.metric = metric
        self.precision = precision
        self.result = result
        self.scale = scale
        self.tile = tile
        self.compute = torch.promote_types(precision, torch.float32)

    def operand(self, side: _Side, start: int, is_query: bool) -> _Operand:
        chunk, length = side.rows[start : start + _BLOCK], side.norms[start : start + _BLOCK]
        if self.metric == "cosine":
            x, length, dead = self._directions(chunk, length)
        else:
            x = self._scaled(chunk, self.scale)
            length = torch.linalg.vector_norm(x, dim=1)
            dead = torch.zeros_like(length, dtype=torch.bool)
        matrix = x.to(self.precision)
        rounding = 0.0
        if self.precision != self.compute:
            error = torch.linalg.vector_norm(x - matrix, dim=1) / torch.where(length > 0, length, 1)
            rounding = float(error.max())
        if self.metric == "euclidean":
            matrix = self._with_squares(matrix, length, is_query)
        padding = -len(chunk) % self.tile
        matrix = torch.nn.functional.pad(matrix, (0, 0, 0, padding))
        length = torch.nn.functional.pad(length, (0, padding))
        dead = torch.nn.functional.pad(dead, (0, padding), value=True).nonzero().squeeze(1)
        return _Operand(
            start=start,
            count=len(chunk),
            matrix=matrix,
            norms=length,
            rounding=rounding,
            dead=dead,
        )

    def _scaled(self, chunk: Tensor, scale: Tensor) -> Tensor:
        # Dividing before narrowing: float64 rows may be out of the range of float32.
        return (chunk.to(torch.promote_types(chunk.dtype, self.compute)) / scale).to(self.compute)

    def _directions(self, chunk: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return unit rows, their norms (1, or 0 for zero rows), and which rows are zero."""
        x = self._scaled(chunk, torch.where(length > 0, length, 1)[:, None])
        # Normalised a second time: narrowing has moved the norms off 1 again.
        length = torch.linalg.vector_norm(x, dim=1)
        dead = length == 0
        x = x / torch.where(dead, 1, length)[:, None]
        return x, torch.where(dead, 0.0, torch.ones_like(length)), dead

    def _with_squares(self, matrix: Tensor, length: Tensor, is_query: bool) -> Tensor:
        """Append −|x|²/2 as a sum of three numbers of the precision, and ones for the other side.

        One number in bfloat16 would keep 8 bits of the square; the rest of each rounding goes into
        the next number.
        """
        rest, pieces = -length.square() / 2, []
        for _ in range(3):
            pieces.append(rest.to(self.precision))
            rest = rest - pieces[-1]
        squares, ones = torch.stack(pieces, dim=1), matrix.new_ones(len(matrix), 3)
        return torch.cat([matrix, squares, ones] if is_query else [matrix, ones, squares], dim=1)

    def relative_error(self) -> float:
        """Return the part of a score's error that is proportional to the score.

        It comes from rounding the score, and from rounding the final value. The factors are a
        little above 1/2 and 1, to cover products of errors.
        """
        return 0.501 * torch.finfo(self.precision).eps + 1.01 * torch.finfo(self.result).eps

    def absolute_error(self, q: _Operand, t: _Operand, reach: Tensor) -> Tensor:
        """Return a bound (queries, tiles) on the rest of a score's error.

        reach: (tiles,), norm of the longest row of each tile.

        Rounded operands: |q̃ᵀt̃ − qᵀt| ≤ (a + b + ab)·|q||t| for relative roundings a, b
        (Cauchy–Schwarz). A sum of n products: n·eps/2 times the sum of their sizes (Higham 2002,
        eq. 3.5); four times as much is allowed, for norms and scaling. The last term covers rows
        so short that their products or squares vanish.
        """
        a, b = q.rounding, t.rounding
        summing = 2 * q.matrix.shape[1] * torch.finfo(self.compute).eps
        length = q.norms[: q.count, None]
        return (
            (a + b + a * b + summing) * length * reach
            + summing * (length.square() + reach.square())
            + 1e-17
        )


# --- Step 2: the rows that may be among the k best ---


def _shortlist(
    queries: _Side,
    table: _Side,
    k: int,
    metric: Metric,
    precision: torch.dtype,
    limit: int,
    same: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return pairs (query, row) that hold the k nearest rows of every query, by query then row.

    Also returns which queries are crowded, that is, would keep more than `limit` rows. They have
    no pairs. same: queries and table are the same tensor.
    """
    n, rows = len(queries.rows), len(table.rows)
    # A power of two, small enough that a block has some 4·k tiles to take a floor from.
    tile = 1 << max(0, min(_TILE, min(_BLOCK, rows) // (4 * k)).bit_length() - 1)
    largest = max(float(side.norms.max()) if len(side.norms) else 0.0 for side in (queries, table))
    screen = _Screen(
        metric=metric,
        precision=precision,
        result=working_dtype(queries.rows, table.rows),
        scale=_binary_scale(table.norms.new_tensor([largest])),
        tile=tile,
    )
    bounds = _Bounds(n, k, limit, screen)
    # One buffer for all blocks: new memory for each would cost a tenth of the product's time.
    buffer = torch.empty((_BLOCK + tile) ** 2, dtype=precision, device=table.rows.device)
    for i in range(0, n, _BLOCK):
        q = screen.operand(queries, i, is_query=True)
        # Of a table against itself, blocks below the diagonal are those above it, transposed.
        for j in range(i if same else 0, rows, _BLOCK):
            if bounds.all_crowded():
                break
            t = screen.operand(table, j, is_query=False)
            scores = buffer[: len(q.matrix) * len(t.matrix)].view(len(q.matrix), len(t.matrix))
            torch.mm(q.matrix, t.matrix.T, out=scores)
            scores[:, t.dead] = -torch.inf
            bounds.add(scores[: q.count], q, t)
            if same and j > i:
                scores[q.dead] = -torch.inf
                bounds.add(scores.T[: t.count], t, q)
    return bounds.pairs(rows)


class _Bounds:
    """Per query: a floor under its k-th best score, and the rows that may reach the floor."""

    def __init__(self, n: int, k: int, limit: int, screen: _Screen) -> None:
        device = screen.scale.device
        self.best = torch.full((n, k), -torch.inf, dtype=screen.compute, device=device)
        self.kept = torch.zeros(n, dtype=torch.int64, device=device)
        self.limit, self.screen = limit, screen
        self.hits: list[tuple[Tensor, Tensor, Tensor]] = []  # query, row, upper bound of its score

    def all_crowded(self) -> bool:
        return bool(torch.isposinf(self.best[:, -1]).all())

    def add(self, scores: Tensor, q: _Operand, t: _Operand) -> None:
        """Add the scores (queries, padded rows) of one block."""
        tops = self._tile_maxima(scores)
        width = self.screen.tile
        error = self.screen.absolute_error(q, t, t.norms.unflatten(0, (width, -1)).amax(dim=0))
        slack = error + self.screen.relative_error() * tops.abs()
        best = self.best[q.start : q.start + q.count]
        # k tiles whose largest scores are at least x hold k rows whose scores are at least x.
        best.copy_(torch.cat([best, tops - slack], dim=1).topk(best.shape[1], dim=1).values)
        # Dead rows score −inf, which the slack turns into NaN: comparisons with it are false.
        tiles = (tops + slack >= best[:, -1:]).nonzero()
        for part in tiles.split(max(1, _SCORES // width)):
            self._keep(scores, q, t, part, error)
        # An infinite floor keeps no rows any more.
        best[self.kept[q.start : q.start + q.count] > self.limit] = torch.inf

    def _tile_maxima(self, scores: Tensor) -> Tensor:
        """Return the largest score of each tile, (queries, tiles).

        With T tiles, tile j holds the columns j, j + T, j + 2·T, …: then the maxima of many tiles
        are taken together along contiguous memory.
        """
        width = self.screen.tile
        tops: Tensor
        if scores.stride(0) == 1:  # a transposed block
            tops = scores.T.unflatten(0, (width, -1)).amax(dim=0).T.contiguous()
        else:
            tops = scores.unflatten(1, (width, -1)).amax(dim=1)
        return tops.to(self.best.dtype)

    def _keep(self, scores: Tensor, q: _Operand, t: _Operand, tiles: Tensor, error: Tensor) -> None:
        """Keep the rows of some tiles, given as pairs (query, tile), that may reach the floor."""
        query, tile = tiles.unbind(1)
        width, floor = self.screen.tile, self.best[q.start : q.start + q.count, -1:]
        score = scores.unflatten(1, (width, -1))[query, :, tile].to(self.best.dtype)
        upper = score + self.screen.relative_error() * score.abs() + error[query, tile, None]
        hit, member = (upper >= floor[query]).nonzero(as_tuple=True)
        self.kept.index_add_(0, q.start + query[hit], torch.ones_like(hit))
        # Pairs of a crowded query are dropped now: all of them together could fill the memory.
        fits = self.kept[q.start + query[hit]] <= self.limit
        hit, member = hit[fits], member[fits]
        row = t.start + member * error.shape[1] + tile[hit]
        self.hits.append((q.start + query[hit], row, upper[hit, member]))

    def pairs(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, row and crowded queries, now that every floor is final."""
        crowded = torch.isposinf(self.best[:, -1])
        query, row, upper = (torch.cat(parts) for parts in zip(*self.hits, strict=True))
        # Early blocks were compared with lower floors than the final ones. The floor of a crowded
        # query is infinite, so it keeps nothing.
        keep = upper >= self.best[query, -1]
        # Sorting one number per pair is faster than sorting by two keys.
        key = (query[keep] * rows + row[keep]).sort().values
        return key // rows, key % rows, crowded


# --- Step 3: float64 values, and the ranking ---


def _exact(queries: Tensor, table: Tensor, query: Tensor, row: Tensor, metric: Metric) -> Tensor:
    """Return the similarity or distance of each pair (query, row), float64.

    Each pair is summed on its own, so equal rows get equal values wherever they stand.
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
            # Differences, not |q|² + |t|² − 2qᵀt, which loses the digits of nearby rows.
            out.copy_(torch.linalg.vector_norm(x[:n].copy_(q[:n]).sub_(t[:n]), dim=1))
        else:
            out.copy_(x[:n].copy_(q[:n]).mul_(t[:n]).sum(dim=1))
    if metric == "cosine":
        value /= _precise_norms(queries, query) * _precise_norms(table, row)
        value.clamp_(-1, 1)  # rounding may exceed 1 by an eps
    return value


def _precise_norms(x: Tensor, ids: Tensor) -> Tensor:
    """Return the norms of the rows `ids`, float64."""
    unique, place = ids.unique(return_inverse=True)
    parts = [torch.linalg.vector_norm(x[chunk].double(), dim=1) for chunk in unique.split(_BLOCK)]
    return torch.cat(parts)[place] if parts else x.new_empty(0, dtype=torch.float64)


def _rank(
    query: Tensor, row: Tensor, value: Tensor, n: int, k: int, descending: bool
) -> tuple[Tensor, Tensor]:
    """Return values and rows of the first k pairs of each query, each (n, k).

    Pairs come sorted by query then row. Stable sorting keeps that order among equal values.
    """
    # Sorting by value, then stably by query, sorts by query and, within it, by value.
    order = value.sort(descending=descending, stable=True).indices
    order = order[query[order].sort(stable=True).indices]
    # The place of a pair within its query: its position minus the position where the query starts.
    _, counts = query.unique_consecutive(return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    place = torch.arange(len(query), device=query.device) - starts
    order = order[place < k]
    return value[order].reshape(n, k), row[order].reshape(n, k)
