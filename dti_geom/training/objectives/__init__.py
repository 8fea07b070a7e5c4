"""What a run minimises: one file per objective."""

from dti_geom.training.objectives.denoising import denoising_losses

__all__ = ["denoising_losses"]
