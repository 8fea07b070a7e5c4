"""Concepts × methods × seeds × settings: many trainings and evaluations, each computed once.

    from dti_geom.sweeps import collect, read_finished, read_plan, run_sweep

    plan = read_plan("sweep.yaml")
    run_sweep(plan, "folder")
    sweep = collect(read_finished(plan, "folder"))

Results such as `CellState` are documented in their modules.
"""

from dti_geom.sweeps.engines import LocalEngine, RayEngine
from dti_geom.sweeps.estimates import estimate
from dti_geom.sweeps.plan import plan_of, read_plan
from dti_geom.sweeps.sweep import Sweep, collect, load_plan, read_finished, run_sweep

__all__ = [
    "LocalEngine",
    "RayEngine",
    "Sweep",
    "collect",
    "estimate",
    "load_plan",
    "plan_of",
    "read_finished",
    "read_plan",
    "run_sweep",
]
