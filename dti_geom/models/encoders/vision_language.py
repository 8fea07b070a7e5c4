"""The language models inside those that also see: Qwen-Image, FLUX.2-dev.

Their configuration nests that of the language model in `text_config`.
"""

from dti_geom.models.encoders import llama
from dti_geom.models.encoders.base import Architecture

ARCHITECTURE = Architecture(
    name="vision-language model",
    model_types=("qwen2_5_vl", "qwen3_vl", "mistral3"),
    module_class="AutoModel",
    token_table=llama.ARCHITECTURE.token_table,
    position_table=(),
    positions="rotary",
    speaks=True,
    normalization="rms_norm",
    blocks="language_model.layers",
    branches=llama.ARCHITECTURE.branches,
)
