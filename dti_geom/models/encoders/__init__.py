"""Text encoders behind one small interface: one file per architecture."""

from dti_geom.models.encoders.base import (
    TOKENIZER_FILES,
    Block,
    Branch,
    HiddenStates,
    StoredEncoder,
    TextEncoder,
    find_layers,
    import_transformers,
    pre_norm_blocks,
    quiet,
)

__all__ = [
    "TOKENIZER_FILES",
    "Block",
    "Branch",
    "HiddenStates",
    "StoredEncoder",
    "TextEncoder",
    "find_layers",
    "import_transformers",
    "pre_norm_blocks",
    "quiet",
]
