"""Directional Textual Inversion, its baselines and every known norm policy, in one loop.

    from dti_geom.training import ConceptConfig, RunConfig, train

    train(RunConfig("mini", (ConceptConfig("<x>", "images", "teapot"),)), "run")

Adding a method is an entry in `METHODS` (methods.py); adding a model family is a subclass in models/diffusion.py.
"""

from dti_geom.training.config import (
    ConceptConfig,
    DataConfig,
    MethodConfig,
    PreviewConfig,
    RunConfig,
)
from dti_geom.training.data import class_word
from dti_geom.training.methods import METHODS, Method
from dti_geom.training.run import (
    LearnedVectorResult,
    Preview,
    TrainingResult,
    load_events,
    resume,
    token_folder,
    train,
)
from dti_geom.training.story import TrainingRun, learned_files, read_run
from dti_geom.training.trainer import StepRecord, Trainer, VectorRecord

__all__ = [
    "METHODS",
    "ConceptConfig",
    "DataConfig",
    "LearnedVectorResult",
    "Method",
    "MethodConfig",
    "Preview",
    "PreviewConfig",
    "RunConfig",
    "StepRecord",
    "Trainer",
    "TrainingResult",
    "TrainingRun",
    "VectorRecord",
    "class_word",
    "learned_files",
    "load_events",
    "read_run",
    "resume",
    "token_folder",
    "train",
]
