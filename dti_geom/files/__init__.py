"""Files we read and write: learned embeddings from strangers, and our own results."""

from dti_geom.files.atomic import alone_in, atomic_path, write_files, write_text
from dti_geom.files.embeddings import (
    EmbeddingFile,
    LearnedToken,
    find_embedding_files,
    read_embeddings,
)
from dti_geom.files.results import dumps, from_json, load_result, save_result, to_json
from dti_geom.files.writing import (
    LAYOUTS_WRITTEN,
    SECOND_TOWER,
    embedding_bytes,
    join_numbered,
    write_embeddings,
)

__all__ = [
    "LAYOUTS_WRITTEN",
    "SECOND_TOWER",
    "EmbeddingFile",
    "LearnedToken",
    "alone_in",
    "atomic_path",
    "dumps",
    "embedding_bytes",
    "find_embedding_files",
    "from_json",
    "join_numbered",
    "load_result",
    "read_embeddings",
    "save_result",
    "to_json",
    "write_embeddings",
    "write_files",
    "write_text",
]
