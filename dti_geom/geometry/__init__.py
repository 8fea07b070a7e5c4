"""Geometry of embedding tables: spheres, von Mises–Fisher, norms, neighbours and the sphere optimiser.

Tensors in, tensors out; nothing here knows of a tokenizer or a model.
"""

from dti_geom.geometry.neighbors import Neighbors, nearest
from dti_geom.geometry.optim import RiemannianAdam, RiemannianSGD
from dti_geom.geometry.sphere import (
    angle,
    exp_map,
    frechet_mean,
    lerp,
    log_map,
    nlerp,
    normalize,
    norms,
    project_tangent,
    retract,
    slerp,
    swap,
)
from dti_geom.geometry.summary import PERCENTILES, NormSummary, row_norms, summarize_norms
from dti_geom.geometry.von_mises_fisher import VonMisesFisher

__all__ = [
    "PERCENTILES",
    "Neighbors",
    "NormSummary",
    "RiemannianAdam",
    "RiemannianSGD",
    "VonMisesFisher",
    "angle",
    "exp_map",
    "frechet_mean",
    "lerp",
    "log_map",
    "nearest",
    "nlerp",
    "normalize",
    "norms",
    "project_tangent",
    "retract",
    "row_norms",
    "slerp",
    "summarize_norms",
    "swap",
]
