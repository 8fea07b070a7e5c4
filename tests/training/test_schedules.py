import math
from typing import Any

import pytest

from dti_geom.errors import TrainingError
from dti_geom.geometry.inflation import Walk
from dti_geom.training import METHODS, MethodConfig
from dti_geom.training.methods.base import decide
from dti_geom.training.schedules import learning_rate_share


def test_schedules_rise_fall_and_stay() -> None:
    def path(**options: Any) -> list[float]:
        settings = decide(METHODS["dti"], MethodConfig("dti", **options))
        return [learning_rate_share(settings, step, 4) for step in range(4)]

    assert path() == [1, 1, 1, 1]
    assert path(warmup=2) == [0.5, 1, 1, 1]
    assert path(schedule="linear") == [1, 0.75, 0.5, 0.25]
    assert path(schedule="cosine") == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )


def test_an_angular_schedule_falls_as_a_growing_free_vector_turns_less() -> None:
    """The angle of a step is η√d/n, and the law says n."""
    walk = Walk(width=256, start_norm=0.45, learning_rate=0.02)
    angle = 0.02 * math.sqrt(256) / 0.45
    settings = decide(METHODS["dti"], MethodConfig("dti", schedule=f"angular:{angle!r}"))
    shares = [learning_rate_share(settings, step, 400) for step in range(400)]
    assert shares == pytest.approx([walk.norm(0) / walk.norm(step) for step in range(400)])


@pytest.mark.parametrize("schedule", ["angular", "angular:", "angular:-1", "angular:inf", "x:1"])
def test_a_schedule_that_does_not_exist_says_which_do(schedule: str) -> None:
    with pytest.raises(TrainingError, match=r"expected constant .* angular:RADIANS"):
        MethodConfig(schedule=schedule)
