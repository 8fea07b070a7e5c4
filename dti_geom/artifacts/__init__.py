"""Files we read and write: learned embeddings from strangers, and our own results."""

from dti_geom.artifacts.embeddings import EmbeddingFile, LearnedToken, find_embedding_files, read_embeddings
from dti_geom.artifacts.files import atomic_path, write_text
from dti_geom.artifacts.results import dumps, from_json, load_result, save_result, to_json

__all__ = [
    "EmbeddingFile",
    "LearnedToken",
    "atomic_path",
    "dumps",
    "find_embedding_files",
    "from_json",
    "load_result",
    "read_embeddings",
    "save_result",
    "to_json",
    "write_text",
]
