"""BERT: a post-norm encoder, for norms and neighbours."""

from dti_geom.models.encoders.base import Architecture

ARCHITECTURE = Architecture(
    name="BERT-like post-norm encoder",
    model_types=("bert", "distilbert"),
    module_class="AutoModel",
    token_table=("embeddings.word_embeddings.weight",),
    position_table=("embeddings.position_embeddings.weight",),
    positions="absolute",
    normalization="layer_norm",
    blocks="layer",
    branches=(),
)
