"""Changing learned embeddings without training: layout, magnitude, blends."""

from dti_geom.editing.conversion import Conversion, Converted, convert
from dti_geom.editing.merging import Merged, merge
from dti_geom.editing.rescaling import rescale, target_norm

__all__ = ["Conversion", "Converted", "Merged", "convert", "merge", "rescale", "target_norm"]
