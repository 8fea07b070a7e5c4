"""Maps from one token table's directions to another's, fitted on pairs of rows.

Each fit takes x (n, d) and y (n, e), rows of the same words in two tables, and returns a function
from (m, d) to directions (m, e). All compute in float64 on unit rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dti_geom.geometry.sphere import normalize

AlignmentMap = Callable[[Tensor], Tensor]


def procrustes_map(x: Tensor, y: Tensor) -> AlignmentMap:
    """Return the rotation that brings centred x nearest to centred y (Schönemann 1966).

    Where the widths differ, the narrower side is padded with zeros: then the map keeps lengths of
    what it does not have to cut off.
    """
    from scipy.linalg import orthogonal_procrustes

    x, y, center, target = _centred(x, y)
    width = max(x.shape[1], y.shape[1])
    padded = [torch.nn.functional.pad(side, (0, width - side.shape[1])) for side in (x, y)]
    rotation, _ = orthogonal_procrustes(padded[0].numpy(), padded[1].numpy())
    matrix = torch.from_numpy(rotation)[: x.shape[1], : y.shape[1]]
    scale = ((x @ matrix) * y).sum() / (x @ matrix).square().sum()
    return lambda rows: _directions((normalize(rows.double()) - center) @ matrix * scale + target)


def ridge_map(x: Tensor, y: Tensor, penalty: float) -> AlignmentMap:
    """Return the linear map of least squares with a penalty, in units of x's mean variance."""
    x, y, center, target = _centred(x, y)
    gram = x.T @ x
    damping = penalty * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    matrix = torch.linalg.solve(gram + damping, x.T @ y)
    return lambda rows: _directions((normalize(rows.double()) - center) @ matrix + target)


def relative_map(x: Tensor, y: Tensor, penalty: float) -> AlignmentMap:
    """Return the map by relative representations (Moschella et al., ICLR 2023).

    A row is described by its cosines with all anchors in the first table. The result is the row
    whose cosines in the second table are nearest to these, by penalised least squares.
    """
    x, y, center, target = _centred(x, y)
    x, y = normalize(x), normalize(y)
    gram = y.T @ y
    damping = penalty * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    decode = torch.linalg.solve(gram + damping, y.T)  # (e, n)

    def apply(rows: Tensor) -> Tensor:
        cosines = normalize(normalize(rows.double()) - center) @ x.T
        return _directions(cosines @ decode.T + target)

    return apply


def ranks(found: Tensor, table: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rank and cosine of the right row for each direction found, both (m,).

    found: (m, e). table: (V, e). rows: (m,), the row that each should be. Rank 1 is the nearest of
    the whole table.
    """
    directions = torch.nn.functional.normalize(table.float(), dim=1)
    cosines = torch.nn.functional.normalize(found.float(), dim=1) @ directions.T
    right = cosines.gather(1, rows[:, None])
    return (cosines > right).sum(dim=1) + 1, right.squeeze(1)


def _centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y = normalize(x.double()), normalize(y.double())
    return x - x.mean(dim=0), y - y.mean(dim=0), x.mean(dim=0), y.mean(dim=0)


def _directions(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)
