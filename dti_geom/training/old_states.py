"""Configurations and checkpoints that version 0.1.0 wrote, read by this version."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dti_geom.errors import TrainingError
from dti_geom.mini.wording import training_templates
from dti_geom.models.pipelines import TextToImage
from dti_geom.training.config import RunConfig
from dti_geom.training.methods.registry import method_named


def with_old_defaults(config: RunConfig, path: Path, model: TextToImage) -> RunConfig:
    """Return the configuration in a run's file with the values that version 0.1.0 left open in it.

    A file of this version names every value and is returned as it is. Raises TrainingError for a
    method that computes something else today.
    """
    if "times" in json.loads(path.read_text(encoding="utf-8"))["result"]["data"]:
        return config
    method = method_named(config.method.name)
    if method.pull:
        raise TrainingError(
            f"{path.parent} was started by an older version, whose '{method.name}' had another "
            "start and another pull. Train again with --overwrite."
        )
    kappa, decay = config.method.kappa, config.method.weight_decay
    if method.optimizer == "sphere":
        kappa = kappa if kappa is not None else method.kappa or 1e-4
    else:
        decay = decay if decay is not None else 1e-2
    return replace(
        config,
        method=replace(config.method, kappa=kappa, weight_decay=decay),
        data=replace(
            config.data,
            templates=config.data.templates or training_templates(),
            times="logit-normal" if model.flow else None,
        ),
    )


def renamed(state: Mapping[str, Tensor], towers: Sequence[str]) -> dict[str, Tensor]:
    """Return a trainer's state with today's names of its tensors.

    Version 0.1.0 numbered the vectors through all concepts and text towers, `3/held`. Today's name
    of the same tensor is CONCEPT/TOWER/parameter. towers: names, in the model's order.
    """
    if not any(name.endswith("/held") for name in state):
        return dict(state)
    return {_renamed(name, towers): value for name, value in state.items()}


def _renamed(name: str, towers: Sequence[str]) -> str:
    match = re.fullmatch(r"(\d+)/(.+)", name)
    if match is None:  # the step
        return name
    concept, place = divmod(int(match[1]), len(towers))
    if match[2] == "recent":
        return f"recent/{concept}/{towers[place]}"
    return f"{concept}/{towers[place]}/{'parameter' if match[2] == 'held' else match[2]}"
