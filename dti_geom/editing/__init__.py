"""Changing learned embeddings without training: layout, magnitude, blends."""

from dti_geom.editing.conversion import Converted, ConvertedVector, convert, output_path
from dti_geom.editing.merging import Merged, MergedVector, Term, merge, parse_expression
from dti_geom.editing.rescaling import rescale, target_norm

__all__ = [
    "Converted",
    "ConvertedVector",
    "Merged",
    "MergedVector",
    "Term",
    "convert",
    "merge",
    "output_path",
    "parse_expression",
    "rescale",
    "target_norm",
]
