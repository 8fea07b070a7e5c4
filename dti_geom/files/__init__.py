"""Embedding files of any tool, read safely and written atomically; result files as JSON.

`__all__` is the part that users need; helpers for other packages are documented in their modules.
"""

from dti_geom.files.atomic import alone_in as alone_in
from dti_geom.files.atomic import atomic_path as atomic_path
from dti_geom.files.atomic import write_files as write_files
from dti_geom.files.atomic import write_text as write_text
from dti_geom.files.embeddings import (
    EmbeddingFile,
    LearnedToken,
    find_embedding_files,
    read_embeddings,
)
from dti_geom.files.encoder_keys import ENCODERS as ENCODERS
from dti_geom.files.encoder_keys import key_of as key_of
from dti_geom.files.results import dumps, from_json, load_result, save_result, to_json
from dti_geom.files.writing import LAYOUTS_WRITTEN as LAYOUTS_WRITTEN
from dti_geom.files.writing import SECOND_TOWER as SECOND_TOWER
from dti_geom.files.writing import SUFFIXES as SUFFIXES
from dti_geom.files.writing import embedding_bytes as embedding_bytes
from dti_geom.files.writing import join_numbered as join_numbered
from dti_geom.files.writing import write_embeddings

__all__ = [
    "EmbeddingFile",
    "LearnedToken",
    "dumps",
    "find_embedding_files",
    "from_json",
    "load_result",
    "read_embeddings",
    "save_result",
    "to_json",
    "write_embeddings",
]
