"""Draw a map of a token table: directions in two dimensions, and learned vectors among them.

A map keeps only a part of the neighbourhoods, so the true neighbours, found in the original space,
are stored beside the positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import DoesNotApply
from dti_geom.files.packed import Packed, pack
from dti_geom.geometry.layout import LEAST, PERPLEXITY, kept_neighbors, lay_out, require_library
from dti_geom.models import TextEncoder
from dti_geom.probes.learned import LearnedVector, of_width
from dti_geom.probes.material import distinct_rows
from dti_geom.probes.neighbors import Similar
from dti_geom.probes.registry import Needs
from dti_geom.probes.result import Result
from dti_geom.progress import Progress, silent

ROWS = 50_000  # all of CLIP's 49,408; a page of more would take over 12 MB
K = 10
COSINE_UNIT = 1e-4  # of the stored cosines


@dataclass(frozen=True)
class PlacedVector:
    """A learned vector on the map, by its own true neighbours."""

    token: str
    index: int
    path: str
    step: int | None  # the update after which it was stored, where its file says
    norm: float  # embedding units
    x: float
    y: float
    neighbors: tuple[Similar, ...]  # K nearest rows of the whole table by direction, all shown


@dataclass(frozen=True)
class MapResult(Result):
    """Positions of one encoder's tokens on a map, and their neighbours in the original space."""

    name: str
    dim: int
    rows: int  # that are not zero and equal no other; the map shows all, or a sample of them
    equal_rows: int  # non-zero rows left out because an earlier one is equal
    mean_norm: float  # of the rows shown, embedding units
    perplexity: float
    k: int
    # Of each row's k true nearest among the rows shown, the share that are among its k nearest on
    # the map; mean over rows. And the same of a random map.
    kept: float
    kept_by_chance: float
    tokens: tuple[str, ...]  # of the n rows shown
    ids: Packed  # (n,), their numbers in the token table, ascending
    norms: Packed  # (n,), embedding units
    positions: Packed  # (n, 2), without a unit
    neighbors: Packed  # (n, k), places among `tokens`, nearest first
    cosines: Packed  # (n, k), in units of COSINE_UNIT
    learned: tuple[PlacedVector, ...]


@torch.no_grad()
def measure_map(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    rows: int = ROWS,
    seed: int = 0,
    progress: Progress = silent,
) -> MapResult:
    """Return a map of the directions of a token table, with learned vectors placed on it.

    rows: at most so many are shown, a seeded sample of larger tables. The neighbours of learned
    vectors are searched in the whole table and always shown. Zero rows and repeated rows are left
    out. Learned vectors do not change the map.

    Raises DoesNotApply with fewer than LEAST + K rows, or where openTSNE is not installed.
    """
    Needs.TOKEN_TABLE.check(encoder, learned)
    require_library()
    table = encoder.token_table
    usable, equal = distinct_rows(encoder, special=True)
    if len(usable) < LEAST + K:
        raise DoesNotApply(
            f"{encoder.name}: {len(usable)} different rows that are not zero; a map takes "
            f"{LEAST + K}."
        )
    fitting = [vector for vector in of_width(learned, table.shape[1]) if bool(vector.vector.any())]
    vectors = torch.stack([vector.vector.float() for vector in fitting]) if fitting else None
    near = _near(table, usable, vectors)
    shown = _shown(usable, near[1], rows, seed)
    points = table[shown.to(table.device)].float()
    norms = geometry.row_norms(points).cpu()
    layout = lay_out(geometry.normalize(points), K, seed=seed, progress=progress)
    places = torch.empty(0, 2)
    if vectors is not None:
        places = layout.place(geometry.normalize(vectors))
    return MapResult(
        name=encoder.name,
        dim=table.shape[1],
        rows=len(usable),
        equal_rows=equal,
        mean_norm=float(norms.double().mean()),
        perplexity=min(PERPLEXITY, (len(shown) - 1) / 3),
        k=K,
        kept=kept_neighbors(layout.neighbors, layout.positions),
        kept_by_chance=K / (len(shown) - 1),
        tokens=tuple(encoder.vocabulary.tokens(shown.tolist())),
        ids=pack(shown.numpy(), "uint32"),
        norms=pack(norms.numpy(), "float32"),
        positions=pack(layout.positions.numpy(), "float32"),
        neighbors=pack(layout.neighbors.numpy(), "uint16" if len(shown) <= 1 << 16 else "uint32"),
        cosines=pack(numpy.rint(layout.similarities.double().numpy() / COSINE_UNIT), "int16"),
        learned=tuple(
            _placed(encoder, vector, place, cosines, ids)
            for vector, place, cosines, ids in zip(fitting, places.tolist(), *near, strict=True)
        ),
    )


def _near(table: Tensor, usable: Tensor, vectors: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return cosines and ids of the K nearest usable rows of each vector: (m, K), (m, K)."""
    if vectors is None:
        return torch.empty(0, K), torch.empty(0, K, dtype=torch.int64)
    found = geometry.nearest(
        vectors.to(table.device), table[usable.to(table.device)], K, metric="cosine"
    )
    return found.values.cpu(), usable[found.indices.cpu()]


def _shown(usable: Tensor, near: Tensor, rows: int, seed: int) -> Tensor:
    """Return the rows on the map, ascending: all, or a sample and the neighbours of vectors."""
    generator = torch.Generator().manual_seed(seed)
    sample = usable[torch.randperm(len(usable), generator=generator)[: max(rows, LEAST + K)]]
    shown: Tensor = torch.cat([sample, near.flatten()]).unique()
    return shown


def _placed(
    encoder: TextEncoder,
    vector: LearnedVector,
    place: Sequence[float],
    cosines: Tensor,
    ids: Tensor,
) -> PlacedVector:
    rows = ids.tolist()
    names = encoder.vocabulary.tokens(rows)
    x, y = place
    return PlacedVector(
        token=vector.token,
        index=vector.index,
        path=str(vector.path),
        step=vector.step,
        norm=float(geometry.norms(vector.vector)),
        x=x,
        y=y,
        neighbors=tuple(map(Similar, names, rows, cosines.tolist())),
    )
