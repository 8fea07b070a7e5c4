"""Geometry of embedding tables: sphere, von Mises–Fisher, norms, nearest rows, optimisers.

Tensors in, tensors out. Nothing here knows of a tokenizer or a model. `__all__` is the part that
users need first; every other function is documented in its module.
"""

from dti_geom.geometry.neighbors import NearestRows as NearestRows
from dti_geom.geometry.neighbors import nearest
from dti_geom.geometry.optim import RiemannianAdam, RiemannianSGD
from dti_geom.geometry.sphere import angle, frechet_mean, normalize, norms, slerp, swap
from dti_geom.geometry.sphere import exp_map as exp_map
from dti_geom.geometry.sphere import lerp as lerp
from dti_geom.geometry.sphere import log_map as log_map
from dti_geom.geometry.sphere import nlerp as nlerp
from dti_geom.geometry.sphere import project_tangent as project_tangent
from dti_geom.geometry.sphere import retract as retract
from dti_geom.geometry.summary import PERCENTILES as PERCENTILES
from dti_geom.geometry.summary import NormSummary as NormSummary
from dti_geom.geometry.summary import repeated_rows as repeated_rows
from dti_geom.geometry.summary import resembling_rows as resembling_rows
from dti_geom.geometry.summary import row_norms as row_norms
from dti_geom.geometry.summary import summarize_norms as summarize_norms
from dti_geom.geometry.von_mises_fisher import VonMisesFisher

__all__ = [
    "RiemannianAdam",
    "RiemannianSGD",
    "VonMisesFisher",
    "angle",
    "frechet_mean",
    "nearest",
    "normalize",
    "norms",
    "slerp",
    "swap",
]
