"""Text encoders behind one small interface.

`open_encoders("sdxl")` gives one `TextEncoder` per tower. An encoder answers: what are the tokens called, where is the
token table (V, d), where is the position table (L, d) or None, how does it normalise, which blocks are pre-norm, and
what are its hidden states.
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
