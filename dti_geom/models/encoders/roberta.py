"""RoBERTa: BERT whose positions start at row 2 of their table."""

from dti_geom.models.encoders.base import Architecture

ARCHITECTURE = Architecture(
    name="RoBERTa-like post-norm encoder",
    model_types=("roberta", "xlm-roberta"),
    module_class="AutoModel",
    token_table=("embeddings.word_embeddings.weight",),
    position_table=("embeddings.position_embeddings.weight",),
    positions="absolute",
    normalization="layer_norm",
    blocks="layer",
    branches=(),
    position_offset=2,
)
