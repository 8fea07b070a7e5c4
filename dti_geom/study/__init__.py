"""Blind preference studies: which picture people prefer, and whose method it was.

from dti_geom.study import build_study, read_answers, read_material, read_study, score_study

build_study(read_material(["evaluation"]), "study", seed=7)
study = read_study("study")
answers, refused = read_answers(study, ["answers"])
score_study(study, answers)
"""

from dti_geom.study.answers import read_answers
from dti_geom.study.build import build_study, read_material, read_study
from dti_geom.study.scoring import score_study

__all__ = ["build_study", "read_answers", "read_material", "read_study", "score_study"]
