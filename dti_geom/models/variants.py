"""Variants of an embedded model: the same weights with one property changed, not trained again.

A variant is written behind the model's name: `mini:gain=64`, or by a name of `NAMED`. Adding a
setting is one field of `Variant`, its line in `SETTINGS`, and its effect where a model is opened.
"""

import math
from dataclasses import dataclass

from torch import nn

from dti_geom.errors import UnknownModel, nearest_name
from dti_geom.models.encoders.base import Architecture

SETTINGS = {"gain": "what multiplies the token table and the position table, such as 64"}


@dataclass(frozen=True)
class Variant:
    """What differs from the model as it was trained.

    gain: both tables of a text encoder are multiplied by it. Tokens keep their share of the first
        normalised input. What the blocks add to them becomes smaller beside them.
    keep_decay: AdamW's weight decay is not divided by the gain, so it bounds the norm.
    """

    gain: float = 1.0
    keep_decay: bool = False


AS_TRAINED = Variant()

NAMED = {
    # A token of TI ends at five times the mean norm and loses its likeness when it is rescaled, as
    # on SDXL: reports/dial.
    "sdxl-like": Variant(gain=64.0, keep_decay=True),
}


def parse_variant(model: str, settings: str) -> Variant:
    """Return the variant that `settings` describes: NAME=NUMBER, or a name. Raises UnknownModel.

    model: the name before the colon, for messages.
    """
    if settings in NAMED:
        return NAMED[settings]
    name, _, value = settings.partition("=")
    if name not in SETTINGS:
        known = ", ".join(f"{setting} ({what})" for setting, what in SETTINGS.items())
        raise UnknownModel(
            f"{model} has no variant '{settings}'.{nearest_name(name, [*SETTINGS, *NAMED])}\n"
            f"Known settings: {known}. Known names: {', '.join(NAMED)}. "
            f"For example --model {model}:gain=64"
        )
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UnknownModel(
            f"{name} is '{value}'; expected a number above 0. For example --model {model}:gain=64"
        )
    return Variant(gain=number)


def apply_gain(module: nn.Module, architecture: Architecture, gain: float) -> None:
    """Multiply the token table and the position table of an encoder in place."""
    tables = (*architecture.token_table, *architecture.position_table)
    for name, parameter in module.named_parameters():
        if name.endswith(tables):
            parameter.data *= gain
