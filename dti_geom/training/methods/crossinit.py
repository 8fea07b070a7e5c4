"""Cross Initialization (Pang et al., 2024)."""

from dti_geom.training.methods.base import Method

METHOD = Method(
    name="crossinit",
    summary="TI that starts from the text encoder's output for the word, pulled toward it "
    "(Pang et al., 2024)",
    form="free",
    pull=1e-5,
    start="output",
)
