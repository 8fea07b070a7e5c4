"""The norm of the category word, as NeTI does."""

from dti_geom.training.methods.base import Method

METHOD = Method(
    name="category-norm",
    summary="e = m·u/|u| with the init word's norm, u by AdamW",
    form="normalized",
    magnitude="init",
)
