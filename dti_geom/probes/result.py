"""The base of what probes return."""

from dti_geom.result import Result as Result
