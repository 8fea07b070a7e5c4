"""The cost of a computation, counted on meta tensors: its memory and its floating-point operations.

Nothing is computed. Storages are followed from their first operation to the end of their life, so
the peak includes what autograd saves and every temporary that an operation returns. Workspaces
inside a kernel are not seen.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary


class Meter(TorchDispatchMode):
    """Follows the storages that operations make; those made before it started count nothing."""

    def __init__(self) -> None:
        """Start at nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0  # bytes in use now
        self.peak = 0  # the most bytes in use at once
        self.largest = 0  # bytes of the largest single storage
        self.flops = 0  # of the products: 2 for each multiply and add
        self._sizes: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count the storages of its results."""
        for leaf in tree_leaves((args, kwargs)):
            self._know(leaf)
        result = func(*args, **(kwargs or {}))
        if (flops_of_call := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += int(flops_of_call(*args, **(kwargs or {}), out_val=result))
        for leaf in tree_leaves(result):
            self._count(leaf)
        return result

    def _know(self, value: object) -> None:
        """Leave out of the count what an operation reads and none has made: weights, inputs."""
        if isinstance(value, Tensor) and value.device.type == "meta":
            self._sizes.setdefault(value.untyped_storage(), 0)

    def _count(self, value: object) -> None:
        if not isinstance(value, Tensor) or value.device.type != "meta":
            return
        storage = value.untyped_storage()
        if storage in self._sizes:
            return
        size = storage.nbytes()
        self._sizes[storage] = size
        weakref.finalize(storage, self._free, size)
        self.live += size
        self.peak = max(self.peak, self.live)
        self.largest = max(self.largest, size)

    def _free(self, size: int) -> None:
        self.live -= size


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Let attention on meta tensors be a fused kernel, which CUDA has and they would not choose.

    A function mode would not reach the blocks that a backward pass computes again.
    """
    functional: Any = torch.nn.functional
    plain = functional.scaled_dot_product_attention

    def attention(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        chosen = _fused if query.device.type == "meta" else plain
        return chosen(query, *args, **kwargs)

    functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return the shape of attention, (…, heads, n, d), through the memory-efficient kernel."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key = key.repeat_interleave(groups, dim=-3)
        value = value.repeat_interleave(groups, dim=-3)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:  # the kernel adds a bias of the query's dtype
            attn_mask = attn_mask.to(query.dtype)
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    answer: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query,
        key,
        value,
        attn_mask,
        compute_log_sumexp=True,
        dropout_p=dropout_p,
        is_causal=is_causal,
        scale=scale,
    )[0]
    return answer


@contextmanager
def metered() -> Iterator[Meter]:
    """Yield a meter of everything inside, with attention fused."""
    with _fused_attention(), Meter() as meter:
        yield meter


def flops_of(work: Callable[[], object]) -> int:
    """Return the floating-point operations of the products in `work`, on meta tensors."""
    with metered() as meter:
        work()
    return meter.flops
