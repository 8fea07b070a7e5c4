from collections.abc import Callable
from pathlib import Path

import pytest

from dti_geom.errors import TrainingError
from dti_geom.training import AdapterConfig, ConceptConfig, ObjectiveConfig, RunConfig
from dti_geom.training.objectives.registry import objectives_of

Config = Callable[..., RunConfig]


@pytest.mark.parametrize(
    ("names", "finding"),
    [
        (("denoise",), "Did you mean|Known: denoising"),
        (("dco",), "dco has no effect without an adapter"),
        (("denoising", "prior-preservation"), "no effect without an adapter"),
        (("context",), "none of them would learn from the images"),
        (("denoising", "denoising"), "each once"),
        (("denoising", "separation"), "needs 2 tokens"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(
    config: Config, names: tuple[str, ...], finding: str
) -> None:
    asked = config(objective=ObjectiveConfig(names))
    with pytest.raises(TrainingError, match=finding):
        objectives_of(asked, ("denoising",), token_learns=True)


def test_two_errors_of_the_same_images_and_a_context_without_a_learner_are_refused(
    config: Config,
) -> None:
    asked = config(adapter=AdapterConfig(), objective=ObjectiveConfig(("denoising", "dco")))
    with pytest.raises(TrainingError, match="denoising, dco would learn"):
        objectives_of(asked, ("denoising",), token_learns=True)
    asked = config(adapter=AdapterConfig(), objective=ObjectiveConfig(("denoising", "context")))
    with pytest.raises(TrainingError, match="a token that does not learn"):
        objectives_of(asked, ("denoising",), token_learns=False)


def test_without_names_the_methods_own_are_taken_and_sensible_ones_pass(
    config: Config, images: Path
) -> None:
    assert objectives_of(config(), ("denoising",), token_learns=True) == ("denoising",)
    concepts = tuple(ConceptConfig(f"<{name}>", str(images), "dog") for name in "xy")
    names = ("dco", "prior-preservation", "context", "separation")
    asked = config(concepts=concepts, adapter=AdapterConfig(), objective=ObjectiveConfig(names))
    assert objectives_of(asked, ("denoising",), token_learns=True) == names
