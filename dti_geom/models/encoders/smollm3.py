"""SmolLM3: blocks like Llama's, every fourth of which sees no positions at all."""

from dataclasses import replace

from dti_geom.models.encoders import llama

ARCHITECTURE = replace(
    llama.ARCHITECTURE, name="SmolLM3", model_types=("smollm3",), positions="partly rotary"
)
