"""Blind preference studies: which picture people prefer, and whose method it was.

from dti_geom.study import build_study, read_material

build_study(read_material(["evaluation"]), "study", seed=7)
"""

from dti_geom.study.build import build_study, read_material, read_study

__all__ = ["build_study", "read_material", "read_study"]
