"""Train the embedded model from nothing: `python -m dti_geom.mini.recipe`. Left out of the wheel."""
