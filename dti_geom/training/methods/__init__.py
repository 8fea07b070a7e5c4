"""How a token may learn: one file per method."""

from dti_geom.training.methods.base import (
    METHODS,
    LearnedVectors,
    Method,
    Reference,
    method_named,
    refuse_what_has_no_effect,
)

__all__ = [
    "METHODS",
    "LearnedVectors",
    "Method",
    "Reference",
    "method_named",
    "refuse_what_has_no_effect",
]
