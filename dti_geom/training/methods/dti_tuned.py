"""DTI at the rate and κ that did best on the embedded model."""

from dataclasses import replace

from dti_geom.training.methods import dti

METHOD = replace(
    dti.METHOD,
    name="dti-tuned",
    summary="dti at the rate and κ that the bake-off found on the tuning concepts of mini "
    "(reports/bakeoff)",
    learning_rate=0.01,
    kappa=1e-2,
)
