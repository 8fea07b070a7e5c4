"""Directional Textual Inversion (Kim et al., 2026)."""

from dti_geom.training.methods.base import Method

METHOD = Method(
    name="dti",
    summary="direction on the sphere by Riemannian SGD with a von Mises–Fisher prior, "
    "magnitude fixed (Kim et al., 2026)",
    form="direction",
    optimizer="sphere",
    magnitude="mean",
)
