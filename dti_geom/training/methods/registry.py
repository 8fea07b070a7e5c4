"""The training methods by name. Adding one takes a file beside this one and a line here."""

from importlib import import_module

from dti_geom.errors import TrainingError, nearest_name
from dti_geom.training.methods.base import Method

_MODULES = (
    "dti",
    "ti",
    "crossinit",
    "median_projection",
    "norm_decay",
    "std_retraction",
    "category_norm",
    "adamw_sphere",
    "dti_tuned",
    "fixed",
)


def _method_in(module: str) -> Method:
    method: Method = import_module(f"dti_geom.training.methods.{module}").METHOD
    return method


METHODS: dict[str, Method] = {method.name: method for method in map(_method_in, _MODULES)}


def method_named(name: str) -> Method:
    """Return the method of that name. Raises TrainingError, naming those there are."""
    if name not in METHODS:
        raise TrainingError(
            f"no method called '{name}'.{nearest_name(name, METHODS)} Known: {', '.join(METHODS)}."
        )
    return METHODS[name]
