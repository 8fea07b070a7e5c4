"""The embedded model `mini`: a small text-to-image pipeline, trained from nothing by the recipe in this package.

`python -m dti_geom.mini.recipe --work DIR` runs the recipe; `python -m dti_geom.mini.recipe eval` measures what is shipped.
"""
