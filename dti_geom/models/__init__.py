"""Text encoders behind one small interface.

`open_encoders("sdxl")` gives one `TextEncoder` per tower. An encoder answers: what are the tokens called, where is the
token table (V, d), where is the position table (L, d) or None, how does it normalise, which blocks are pre-norm, and
what are its hidden states.
"""

from dti_geom.models.catalog import MODELS, KnownModel, is_here, open_encoders
from dti_geom.models.encoders import Block, Branch, HiddenStates, StoredEncoder, TextEncoder
from dti_geom.models.published import PUBLISHED, PublishedTable
from dti_geom.models.vocabulary import Vocabulary

__all__ = [
    "MODELS",
    "PUBLISHED",
    "Block",
    "Branch",
    "HiddenStates",
    "KnownModel",
    "PublishedTable",
    "StoredEncoder",
    "TextEncoder",
    "Vocabulary",
    "is_here",
    "open_encoders",
]
