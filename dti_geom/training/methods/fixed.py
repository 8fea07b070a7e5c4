"""A token that stays at its start, for a run in which an adapter alone learns."""

from dti_geom.training.methods.base import Method

METHOD = Method(
    name="fixed",
    summary="the token stays at its start; needs an adapter, which then learns alone (DreamBooth "
    "with LoRA)",
    form="free",
    learning_rate=0.0,
    weight_decay=0.0,
    learns=False,
)
