"""What is known of each encoder architecture before a weight is read.

Adding a family is one entry in `FAMILIES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dti_geom.errors import ModelFilesError

Normalization = Literal["layer_norm", "rms_norm"]
Positions = Literal["absolute", "rotary", "relative"]


@dataclass(frozen=True)
class BranchPath:
    """Where one residual update x ← x + f(N(x)) lives inside a block."""

    kind: Literal["attention", "mlp"]
    norm: str  # N: its input is the state x
    function: str  # the attention or MLP module
    output: str | None = (
        None  # the module whose output is added, where it is not `function` (Gemma-2's second norm)
    )


@dataclass(frozen=True)
class Family:
    """One encoder architecture.

    Tables are named by the *ending* of their name in a weight file, since the same module is saved with and without
    its wrapper's prefix (`text_model.embeddings…`, `embeddings…`).
    """

    name: str
    model_types: tuple[str, ...]  # `model_type` of config.json
    token_table: tuple[str, ...]
    position_table: tuple[str, ...]
    positions: Positions
    normalization: Normalization
    blocks: str  # ending of the block list's module path
    branches: tuple[BranchPath, ...]  # empty: the blocks are not pre-norm
    architecture: str | None = None  # transformers class; None: the one config.json names
    position_offset: int = (
        0  # first row of the position table that a token can stand at (RoBERTa: 2)
    )

    @property
    def pre_norm(self) -> bool:
        """Whether each block normalises its input and adds its output to the state."""
        return bool(self.branches)


_LLAMA_BRANCHES = (
    BranchPath("attention", "input_layernorm", "self_attn"),
    BranchPath("mlp", "post_attention_layernorm", "mlp"),
)
_SANDWICH_BRANCHES = (
    BranchPath("attention", "input_layernorm", "self_attn", "post_attention_layernorm"),
    BranchPath("mlp", "pre_feedforward_layernorm", "mlp", "post_feedforward_layernorm"),
)

FAMILIES: tuple[Family, ...] = (
    Family(
        name="CLIP text tower",
        model_types=("clip_text_model", "clip"),
        token_table=("embeddings.token_embedding.weight",),
        position_table=("embeddings.position_embedding.weight",),
        positions="absolute",
        normalization="layer_norm",
        blocks="encoder.layers",
        branches=(
            BranchPath("attention", "layer_norm1", "self_attn"),
            BranchPath("mlp", "layer_norm2", "mlp"),
        ),
    ),
    Family(
        name="Gemma-2",
        model_types=("gemma2",),
        token_table=("embed_tokens.weight",),
        position_table=(),
        positions="rotary",
        normalization="rms_norm",
        blocks="layers",
        branches=_SANDWICH_BRANCHES,
        architecture="Gemma2Model",
    ),
    Family(
        name="Llama-like causal LM",
        model_types=("llama", "qwen2", "qwen3", "mistral", "gemma"),
        token_table=("embed_tokens.weight",),
        position_table=(),
        positions="rotary",
        normalization="rms_norm",
        blocks="layers",
        branches=_LLAMA_BRANCHES,
        architecture="AutoModel",
    ),
    Family(
        name="T5 encoder",
        model_types=("t5", "umt5", "mt5"),
        token_table=("shared.weight", "encoder.embed_tokens.weight"),
        position_table=(),
        positions="relative",
        normalization="rms_norm",
        blocks="encoder.block",
        branches=(
            BranchPath("attention", "layer.0.layer_norm", "layer.0.SelfAttention"),
            BranchPath("mlp", "layer.1.layer_norm", "layer.1.DenseReluDense"),
        ),
        architecture="AutoModelForTextEncoding",
    ),
    Family(
        name="BERT-like post-norm encoder",
        model_types=("bert", "distilbert"),
        token_table=("embeddings.word_embeddings.weight",),
        position_table=("embeddings.position_embeddings.weight",),
        positions="absolute",
        normalization="layer_norm",
        blocks="layer",
        branches=(),
        architecture="AutoModel",
    ),
    Family(
        name="RoBERTa-like post-norm encoder",
        model_types=("roberta", "xlm-roberta"),
        token_table=("embeddings.word_embeddings.weight",),
        position_table=("embeddings.position_embeddings.weight",),
        positions="absolute",
        normalization="layer_norm",
        blocks="layer",
        branches=(),
        architecture="AutoModel",
        position_offset=2,
    ),
)

_BY_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """The family of a transformers `config.json`. Raises ModelFilesError for one that has no entry."""
    model_type = config.get("model_type", "(none)")
    family = _BY_TYPE.get(model_type)
    if family is None:
        raise ModelFilesError(
            f"{where}: model_type '{model_type}' is not a text encoder known here. "
            f"Known: {', '.join(sorted(_BY_TYPE))}. Adding one is an entry in dti_geom/models/families.py."
        )
    return family
