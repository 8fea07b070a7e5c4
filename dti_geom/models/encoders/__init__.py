"""Text encoders behind one small interface: one file per architecture."""

from dti_geom.models.encoders.base import Block, Branch, HiddenStates, Tap, TextEncoder
from dti_geom.models.encoders.stored import StoredEncoder

__all__ = ["Block", "Branch", "HiddenStates", "StoredEncoder", "Tap", "TextEncoder"]
