"""The shipped model, opened once."""

from typing import Any

import pytest

from dti_geom.mini.figures import Figures, shipped_figures
from dti_geom.mini.scorer import Scorer, shipped_scorer
from dti_geom.models.catalog import embedded_folder


@pytest.fixture(scope="session")
def pipeline() -> Any:
    """The pipeline of diffusers, in single precision."""
    from dti_geom.mini.recipe.generate import open_pipeline

    return open_pipeline(embedded_folder())


@pytest.fixture(scope="session")
def scorer() -> Scorer:
    return shipped_scorer()


@pytest.fixture(scope="session")
def figures() -> Figures:
    return shipped_figures()
