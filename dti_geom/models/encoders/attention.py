"""Attention weights of a module, which its fused kernel never forms."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dti_geom.errors import DoesNotApply


@contextmanager
def eager_attention(module: Any) -> Iterator[None]:
    """Let a transformers module form its attention weights inside the `with` block.

    Raises DoesNotApply for a module that has only its fused kernel.
    """
    before = module.config._attn_implementation
    try:
        module.set_attn_implementation("eager")
        if module.config._attn_implementation != "eager":
            raise DoesNotApply(
                f"{type(module).__name__} computes attention with '{before}' alone, which gives no "
                "weights to measure."
            )
        yield
    finally:
        module.set_attn_implementation(before)
