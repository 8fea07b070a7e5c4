"""Measurements. One file is one measurement with one frozen result, which round-trips through JSON."""

from dti_geom.probes.inspection import (
    InspectedFile,
    InspectedVector,
    Reference,
    inspect_file,
    measured_reference,
    published_references,
)
from dti_geom.probes.learned import LearnedVector, learned_vectors, of_width, require_some_fit
from dti_geom.probes.neighbors import Near, Neighbors, Query, Similar, find_neighbors, parse_queries
from dti_geom.probes.norms import EncoderNorms, Histogram, Norms, PlacedToken, TokenNorm, encoder_norms

__all__ = [
    "EncoderNorms",
    "Histogram",
    "InspectedFile",
    "InspectedVector",
    "LearnedVector",
    "Near",
    "Neighbors",
    "Norms",
    "PlacedToken",
    "Query",
    "Reference",
    "Similar",
    "TokenNorm",
    "encoder_norms",
    "find_neighbors",
    "inspect_file",
    "learned_vectors",
    "measured_reference",
    "of_width",
    "parse_queries",
    "published_references",
    "require_some_fit",
]
