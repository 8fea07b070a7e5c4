"""Checkpoints that version 0.1.0 wrote, read by this version."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor


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
