"""What a run minimises: one file per objective, one line per objective in `registry.py`."""

from dti_geom.training.objectives.denoising import denoising
from dti_geom.training.objectives.registry import OBJECTIVES, Objective, objectives_of

__all__ = ["OBJECTIVES", "Objective", "denoising", "objectives_of"]
