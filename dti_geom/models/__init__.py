"""Text encoders behind one small interface.

`open_encoders("sdxl")` returns a `TextEncoder` per tower: the names of its tokens, its token table
(V, d), its position table (L, d) or None, its normalisation, its pre-norm blocks, and its hidden
states.
"""

from dti_geom.models.catalog import MODELS, is_here, open_encoders
from dti_geom.models.encoders.base import Block, Branch, HiddenStates, TextEncoder
from dti_geom.models.encoders.stored import StoredEncoder
from dti_geom.models.published import PUBLISHED
from dti_geom.models.vocabulary import Vocabulary

__all__ = [
    "MODELS",
    "PUBLISHED",
    "Block",
    "Branch",
    "HiddenStates",
    "StoredEncoder",
    "TextEncoder",
    "Vocabulary",
    "is_here",
    "open_encoders",
]
