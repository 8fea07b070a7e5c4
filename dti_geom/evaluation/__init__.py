"""Pictures, paths between tokens, and scores."""

from dti_geom.evaluation.interpolation import (
    METHODS,
    Interpolation,
    Likeness,
    Strip,
    TokenPath,
    VectorPath,
    interpolate,
    save_film,
    save_grid,
    with_thumbnails,
)
from dti_geom.evaluation.pictures import (
    Picture,
    Pictures,
    SamplerSettings,
    paint_pictures,
    save_sheet,
)
from dti_geom.evaluation.previews import Preview, read_preview
from dti_geom.evaluation.tokens import load_tokens, token_files

__all__ = [
    "METHODS",
    "Interpolation",
    "Likeness",
    "Picture",
    "Pictures",
    "Preview",
    "SamplerSettings",
    "Strip",
    "TokenPath",
    "VectorPath",
    "interpolate",
    "load_tokens",
    "paint_pictures",
    "read_preview",
    "save_film",
    "save_grid",
    "save_sheet",
    "token_files",
    "with_thumbnails",
]
