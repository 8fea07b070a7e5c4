"""Cross Initialization (Pang et al., CVPR 2024), as Kim et al. (2026) compare with it.

The start is the encoder's output for the bare word and keeps its norm, which is many times that of
a vocabulary row. Pang et al. replace the word of a face by the mean over celebrities' names; for
other words there is nothing to average, and nothing is centred. Their pull is λ·‖e − start‖.
"""

from dti_geom.training.methods.base import Method

METHOD = Method(
    name="crossinit",
    summary="TI that starts from the text encoder's output for the word, pulled toward it "
    "(Pang et al., 2024)",
    form="free",
    strength=1e-5,
    pull=True,
    start="output",
)
