"""Pictures of what runs learned, their scores, and paths between tokens.

    from dti_geom.evaluation import load_tokens, paint_pictures, save_sheet

    tokens = load_tokens(model, ["run"])
    pictures = paint_pictures(model, ["a photo of a {}"], [0, 1], "pictures", tokens=tokens)
    save_sheet(pictures, "pictures")

Results such as `Evaluation` are documented in their modules.
"""

from dti_geom.evaluation.evaluation import evaluate, with_baselines
from dti_geom.evaluation.interpolation import interpolate, save_film, save_grid
from dti_geom.evaluation.learned import load_tokens
from dti_geom.evaluation.pictures import paint_pictures, save_sheet
from dti_geom.evaluation.prompts import open_prompt_set
from dti_geom.evaluation.reference import compare

__all__ = [
    "compare",
    "evaluate",
    "interpolate",
    "load_tokens",
    "open_prompt_set",
    "paint_pictures",
    "save_film",
    "save_grid",
    "save_sheet",
    "with_baselines",
]
