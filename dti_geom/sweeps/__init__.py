"""Concepts × methods × seeds × settings: many trainings and evaluations, each computed once."""

from dti_geom.sweeps.cells import Cell, CellResult, Cost, Moment, run_candidates, run_cell
from dti_geom.sweeps.engines import Engine, LocalEngine, Outcome, RayEngine
from dti_geom.sweeps.estimate import Estimate, estimate
from dti_geom.sweeps.plan import EvaluationConfig, Plan, plan_of, read_plan
from dti_geom.sweeps.sweep import (
    CellState,
    Course,
    Finished,
    LearnedNorm,
    MethodCost,
    Sweep,
    collect,
    load_plan,
    read_finished,
    read_states,
    run_sweep,
    save_table,
)

__all__ = [
    "Cell",
    "CellResult",
    "CellState",
    "Cost",
    "Course",
    "Engine",
    "Estimate",
    "EvaluationConfig",
    "Finished",
    "LearnedNorm",
    "LocalEngine",
    "MethodCost",
    "Moment",
    "Outcome",
    "Plan",
    "RayEngine",
    "Sweep",
    "collect",
    "estimate",
    "load_plan",
    "plan_of",
    "read_finished",
    "read_plan",
    "read_states",
    "run_candidates",
    "run_cell",
    "run_sweep",
    "save_table",
]
