"""Adapters inside a denoiser: LoRA (Hu et al., 2021) and OFT (Qiu et al., 2023), through peft.

A linear layer W becomes W + alpha/rank · B·A under a LoRA, and W·R under an OFT, with R orthogonal
and block-diagonal. The frozen weights keep their bytes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from dti_geom.errors import DoesNotApply, TrainingError
from dti_geom.files.adapters import Adapter, AdapterShape

Scaled = tuple[Adapter, float]  # an adapter and what multiplies its effect

_NAME = "dti_geom"  # of the adapter, for peft
_MATRICES = {"lora": ("lora_A", "lora_B"), "oft": ("oft_R",)}


class AdapterLayers:
    """The layers of one adapter in a denoiser, and the float32 parameters they read."""

    def __init__(
        self, denoiser: nn.Module, shape: AdapterShape, layers: Sequence[str] = ()
    ) -> None:
        """Put a new adapter, which changes nothing yet, around linear layers of the denoiser.

        layers: whole names; by default those that end with one of `shape.targets`. Raises
        TrainingError where there are none, and for an OFT whose blocks do not divide their inputs.
        """
        from peft import inject_adapter_in_model

        self.denoiser, self.shape = denoiser, shape
        names = list(layers) or layers_named(denoiser, shape.targets)
        _check_blocks(denoiser, shape, names)
        # peft draws first values; ours come from a generator of their own.
        with torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(_config(shape, names), denoiser, adapter_name=_NAME)
        self.layers = {name: denoiser.get_submodule(name) for name in names}
        self.parameters: dict[str, nn.Parameter] = {}
        self.put({name: weight.detach().float() for name, weight in self._weights()})
        denoiser.requires_grad_(False)

    @classmethod
    def holding(cls, denoiser: nn.Module, adapter: Adapter) -> "AdapterLayers":
        """Put an adapter with its weights around the layers that it was made for.

        Raises DoesNotApply if the denoiser has other layers.
        """
        names = list(dict.fromkeys(name.rpartition(".")[0] for name in adapter.weights))
        _check_fit(denoiser, adapter, names)
        layers = cls(denoiser, adapter.shape, names)
        layers.put(adapter.weights)
        denoiser.requires_grad_(False)
        return layers

    def start(self, seed: int) -> None:
        """Give the parameters their first values: A normal with deviation 1/rank, B and R zero."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.zero_()
                if name.endswith("lora_A"):
                    drawn = torch.randn(parameter.shape, generator=generator) / self.shape.rank
                    parameter.copy_(drawn)

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Let the layers read these weights, in float32 on the device of their layer."""
        for name, weight in weights.items():
            if self.parameters.get(name) is weight:
                continue
            layer, _, matrix = name.rpartition(".")
            device = _base(self.layers[layer]).weight.device
            known = isinstance(weight, nn.Parameter)
            parameter: Any = weight if known else nn.Parameter(weight.float().to(device))
            holder: Any = getattr(self.layers[layer], matrix)[_NAME]
            holder.to(device)
            holder.weight = self.parameters[name] = parameter

    @contextmanager
    def without(self) -> Iterator[None]:
        """Let the frozen model answer alone inside."""
        self._disable(True)
        try:
            yield
        finally:
            self._disable(False)

    def _disable(self, disabled: bool) -> None:
        for layer in self.layers.values():
            # peft's own switch would also stop the gradients of the parameters.
            layer.__dict__["_disable_adapters"] = disabled

    def remove(self) -> None:
        """Take the layers out again: the denoiser is as it was."""
        for name, layer in self.layers.items():
            parent, _, last = name.rpartition(".")
            setattr(self.denoiser.get_submodule(parent), last, _base(layer))
        # peft notes its settings in the model.
        for note in ("peft_config", "_hf_peft_config_loaded"):
            self.denoiser.__dict__.pop(note, None)
        self.layers = {}

    @torch.no_grad()
    def update_norm(self) -> Tensor:
        """Return the norm of the change of all weights, relative to the frozen weights' norm."""
        changes = []
        for name, layer in self.layers.items():
            part: Any = layer
            if self.shape.kind == "lora":
                down, up = part.lora_A[_NAME].weight, part.lora_B[_NAME].weight
                # |BA|² = tr(BᵀB·AAᵀ), without the product itself.
                change = (self.shape.alpha / self.shape.rank) ** 2 * (
                    (up.T @ up) * (down @ down.T)
                ).sum()
            else:
                # |W(R − I)|² by blocks, from the blocks of WᵀW alone.
                moved = self.rotations(layer)
                moved = moved - torch.eye(moved.shape[-1], device=moved.device)
                change = (self._products[name] * (moved @ moved.mT)).sum()
            changes.append(change)
        return (torch.stack(changes).sum() / self._squares).clamp(min=0).sqrt()

    @cached_property
    def _squares(self) -> Tensor:
        """The sum of the squares of all frozen weights."""
        squares = [_base(layer).weight.float().square().sum() for layer in self.layers.values()]
        return torch.stack(squares).sum()

    @cached_property
    def _products(self) -> dict[str, Tensor]:
        """For each layer of an OFT the blocks of WᵀW, (blocks, b, b)."""
        products = {}
        for name, layer in self.layers.items():
            weight = _base(layer).weight.float()
            blocks = weight.unflatten(1, (-1, self.shape.block_size))
            products[name] = torch.einsum("ori,orj->rij", blocks, blocks)
        return products

    def rotations(self, layer: nn.Module) -> Tensor:
        """Return the blocks of an OFT layer's orthogonal matrix, (blocks, b, b)."""
        part: Any = layer
        return cayley(part.oft_R[_NAME].weight, self.shape.block_size)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each weight with its name, such as `mid_block.….to_q.lora_A`."""
        for name, layer in self.layers.items():
            for matrix in _MATRICES[self.shape.kind]:
                holder: Any = getattr(layer, matrix)[_NAME]
                yield f"{name}.{matrix}", holder.weight


def cayley(triangles: Tensor, size: int) -> Tensor:
    """Return the Cayley transforms (I − S)(I + S)⁻¹ of skew-symmetric matrices S.

    triangles: (n, size·(size − 1)/2), the numbers above the diagonal of each. Returns orthogonal
    matrices, (n, size, size).
    """
    rows, columns = torch.triu_indices(size, size, 1, device=triangles.device)
    upper = triangles.new_zeros(len(triangles), size, size)
    upper[:, rows, columns] = triangles
    skew = upper - upper.mT
    identity = torch.eye(size, dtype=triangles.dtype, device=triangles.device)
    turned: Tensor = torch.linalg.solve(identity + skew, identity - skew, left=False)
    return turned


def layers_named(denoiser: nn.Module, targets: Sequence[str]) -> list[str]:
    """Return the names of linear layers that end with one of these. Raises TrainingError."""
    linear = [name for name, part in denoiser.named_modules() if isinstance(part, nn.Linear)]
    found = [
        name for name in linear if any(name == end or name.endswith(f".{end}") for end in targets)
    ]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in found):
            ends = sorted({name.rpartition(".")[2] for name in linear if not name[-1].isdigit()})
            raise TrainingError(
                f"no linear layer of the denoiser is called {target}. Its layers end with "
                f"{', '.join(ends)}; choose among them with --targets."
            )
    return found


def combined(adapters: Sequence[Scaled]) -> Adapter:
    """Return one adapter that does at scale 1 what several do together, each at its scale.

    A scale multiplies a LoRA's update, or the skew-symmetric matrices of an OFT. The sum of LoRAs
    is a LoRA of the sum of their ranks. Raises DoesNotApply for several adapters of which one is an
    OFT: the product of rotations is no OFT of the same blocks.
    """
    if len(adapters) == 1:
        return _scaled(*adapters[0])
    kinds = {adapter.shape.kind for adapter, _ in adapters}
    parts = {adapter.part for adapter, _ in adapters}
    if kinds != {"lora"} or len(parts) != 1:
        raise DoesNotApply(
            f"a prompt names tokens with {len(adapters)} adapters ({', '.join(sorted(kinds))}); "
            "expected LoRAs, which can be added. Ask for one of these tokens at a time."
        )
    names = dict.fromkeys(name for adapter, _ in adapters for name in adapter.weights)
    weights: dict[str, Tensor] = {}
    for name in names:
        parts_of = [_padded(name, adapter, scale, adapters) for adapter, scale in adapters]
        weights[name] = torch.cat(parts_of, dim=int(name.endswith("lora_B")))
    rank = sum(adapter.shape.rank for adapter, _ in adapters)
    shape = AdapterShape(targets=(), rank=rank, alpha=float(rank))
    return Adapter(parts.pop(), shape, weights)


def _scaled(adapter: Adapter, scale: float) -> Adapter:
    if scale == 1:
        return adapter
    weights = {
        name: weight if name.endswith("lora_A") else scale * weight
        for name, weight in adapter.weights.items()
    }
    return replace(adapter, weights=weights)


def _padded(name: str, adapter: Adapter, scale: float, adapters: Sequence[Scaled]) -> Tensor:
    """Return a LoRA's matrix with its scales in B; zeros for a layer that it leaves alone."""
    shape = adapter.shape
    if name in adapter.weights:
        factor = scale * shape.alpha / shape.rank if name.endswith("lora_B") else 1.0
        return factor * adapter.weights[name]
    like = next(other.weights[name] for other, _ in adapters if name in other.weights)
    if name.endswith("lora_A"):
        return like.new_zeros(shape.rank, like.shape[1])
    return like.new_zeros(like.shape[0], shape.rank)


def _base(layer: Any) -> nn.Linear:
    """Return the frozen layer inside one of peft."""
    base: nn.Linear = layer.get_base_layer()
    return base


def _check_fit(denoiser: nn.Module, adapter: Adapter, names: Sequence[str]) -> None:
    linear = {name: part for name, part in denoiser.named_modules() if isinstance(part, nn.Linear)}
    unknown = [name for name in names if name not in linear]
    misfits = unknown or [name for name in names if not _fits(linear[name], name, adapter)]
    if misfits:
        raise DoesNotApply(
            f"the adapter changes {misfits[0]} and others ({len(misfits)} of {len(names)}), which "
            "this model has not, or in another size. Choose the model it was trained for."
        )


def _fits(layer: nn.Linear, name: str, adapter: Adapter) -> bool:
    if adapter.shape.kind == "oft":
        blocks, size = len(adapter.weights[f"{name}.oft_R"]), adapter.shape.block_size
        return blocks * size == layer.in_features
    down, up = adapter.weights[f"{name}.lora_A"], adapter.weights[f"{name}.lora_B"]
    return (len(up), down.shape[1]) == (layer.out_features, layer.in_features)


def _config(shape: AdapterShape, names: list[str]) -> Any:
    """Return peft's settings for exactly these layers."""
    from peft import LoraConfig, OFTConfig

    if shape.kind == "lora":
        return LoraConfig(r=shape.rank, lora_alpha=shape.alpha, target_modules=names)  # type: ignore[arg-type]
    return OFTConfig(
        r=0,
        oft_block_size=shape.block_size,
        target_modules=names,
        use_cayley_neumann=False,  # a truncated series is not orthogonal
    )


def _check_blocks(denoiser: nn.Module, shape: AdapterShape, names: Sequence[str]) -> None:
    if shape.kind != "oft":
        return
    layers: list[Any] = [denoiser.get_submodule(name) for name in names]
    widths: set[int] = {layer.in_features for layer in layers}
    bad = sorted(width for width in widths if width % shape.block_size)
    if bad:
        raise TrainingError(
            f"block_size is {shape.block_size}; expected a divisor of every layer's inputs, and "
            f"there are layers of {', '.join(map(str, bad))}. Try "
            f"{math.gcd(*widths)}."
        )
