"""`python -m dti_geom_cli` is `dti-geom`."""

from .main import main

main()
