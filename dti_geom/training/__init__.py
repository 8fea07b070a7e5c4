"""Directional Textual Inversion, its baselines and other norm policies, in one loop.

    from dti_geom.training import ConceptConfig, RunConfig, train

    train(RunConfig("mini", (ConceptConfig("<x>", "images", "teapot"),)), "run")

Adding a method takes a file in `methods/` and a line in `methods/registry.py`; adding an
objective takes the same in `objectives/`.
"""

from dti_geom.training.config import (
    AdapterConfig,
    ConceptConfig,
    DataConfig,
    MethodConfig,
    ObjectiveConfig,
    PreviewConfig,
    RunConfig,
)
from dti_geom.training.methods.registry import METHODS
from dti_geom.training.run import resume, train
from dti_geom.training.story import read_run
from dti_geom.training.trainer import Trainer

__all__ = [
    "METHODS",
    "AdapterConfig",
    "ConceptConfig",
    "DataConfig",
    "MethodConfig",
    "ObjectiveConfig",
    "PreviewConfig",
    "RunConfig",
    "Trainer",
    "read_run",
    "resume",
    "train",
]
