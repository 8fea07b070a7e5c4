"""Configurations and checkpoints that version 0.1.0 wrote, read by this version."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from dti_geom.errors import TrainingError
from dti_geom.mini.wording import training_templates
from dti_geom.models.pipelines import TextToImage
from dti_geom.training.config import RunConfig
from dti_geom.training.methods.registry import method_named


def with_old_defaults(config: RunConfig, model: TextToImage) -> RunConfig:
    """Return a stopped run's configuration with the values that version 0.1.0 left open in it.

    This version names every value in the file and leaves nothing to fill in. Raises TrainingError
    for a method that computes something else today.
    """
    method, kappa, decay = method_named(config.method.name), None, None
    if method.optimizer == "sphere":
        kappa = method.kappa or 1e-4 if config.method.kappa is None else config.method.kappa
    else:
        decay = 1e-2 if config.method.weight_decay is None else config.method.weight_decay
    filled = replace(
        config,
        method=replace(config.method, kappa=kappa, weight_decay=decay),
        data=replace(
            config.data,
            templates=config.data.templates or training_templates(),
            times=config.data.times or ("logit-normal" if model.flow else None),
        ),
    )
    if filled != config and method.pull:
        raise TrainingError(
            f"the run was started by version 0.1.0, whose '{method.name}' had another start and "
            "another pull. Train again with --overwrite."
        )
    return filled


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
