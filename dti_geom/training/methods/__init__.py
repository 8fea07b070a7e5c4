"""How a token may learn: one file per method, one line per method in `registry.py`."""

from dti_geom.training.methods.base import Method
from dti_geom.training.methods.registry import METHODS, method_named

__all__ = ["METHODS", "Method", "method_named"]
