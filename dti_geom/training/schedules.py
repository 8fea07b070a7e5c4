"""How the learning rate changes over a run."""

import math

from dti_geom.training.config import parse_schedule
from dti_geom.training.methods.base import Settings


def learning_rate_share(settings: Settings, step: int, total: int) -> float:
    """Return the schedule's factor for update `step` (from 0) of `total`.

    It rises linearly over `warmup` updates, then stays at 1 or falls.
    """
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    schedule, after = parse_schedule(settings.schedule), step - settings.warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "angular":
        return 1 / math.sqrt(1 + schedule.angle**2 * after)
    done = after / max(1, total - settings.warmup)
    return 1 - done if schedule.name == "linear" else (1 + math.cos(math.pi * done)) / 2
