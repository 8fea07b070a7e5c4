"""Textual Inversion (Gal et al., 2023)."""

from dti_geom.training.methods.base import Method

METHOD = Method(name="ti", summary="a free vector by AdamW (Gal et al., 2023)", form="free")
