"""Files of adapters: small changes to the linear layers of a denoiser.

A LoRA is written as diffusers reads it (`pipe.load_lora_weights(folder)`), an OFT as peft reads it
(`PeftModel.from_pretrained(pipe.unet, folder)`). A LoRA of a UNet can also be written with its
tokens in one file, which web UIs and ComfyUI read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dti_geom.errors import EmbeddingFileError, first_line
from dti_geom.files.atomic import write_files
from dti_geom.files.embeddings import LearnedToken
from dti_geom.files.encoder_keys import key_of
from dti_geom.files.refusals import clean
from dti_geom.files.run_layout import is_learned_name, is_token_folder
from dti_geom.files.writing import safetensors_bytes

KINDS = ("lora", "oft")
LORA_FILE = "pytorch_lora_weights.safetensors"  # diffusers' own name
OFT_FILE, OFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # peft's own names
BUNDLE_FILE = "bundle.safetensors"
SHAPE = "adapter"  # in the metadata: the shape, as JSON
_OFT_PREFIX = "base_model.model."
_DIFFUSERS_METADATA = "lora_adapter_metadata"
_PARTS = ("unet", "transformer")


@dataclass(frozen=True)
class AdapterShape:
    """Which layers an adapter changes, and how many numbers it has for each.

    targets: ends of the names of linear layers, such as to_q.
    """

    kind: str = "lora"
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v")
    rank: int = 4  # of a LoRA
    alpha: float = 4.0  # of a LoRA, whose update is alpha / rank · B·A
    block_size: int = 4  # of an OFT: inputs that one rotation mixes


@dataclass(frozen=True)
class Adapter:
    """An adapter's weights, by layer and matrix: `mid_block.….to_q.lora_A`; float32 on the CPU.

    A LoRA has lora_A, (rank, in), and lora_B, (out, rank). An OFT has oft_R, (in / b, b·(b − 1)/2):
    the upper triangles of the skew-symmetric matrices whose Cayley transforms are its rotations.
    """

    part: str  # the component that it changes: unet or transformer
    shape: AdapterShape
    weights: dict[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


def write_adapter(folder: Path, adapter: Adapter, *, overwrite: bool = False) -> list[Path]:
    """Write an adapter into a folder, in the layout of diffusers or peft. Returns the files.

    The same arguments give byte-identical files. Raises FileExists.
    """
    shape = adapter.shape
    named = {SHAPE: json.dumps(asdict(shape)), "part": adapter.part}
    metadata = _cleaned({**adapter.metadata, **named})
    if shape.kind == "lora":
        tensors = {f"{adapter.part}.{name}.weight": x for name, x in adapter.weights.items()}
        settings: dict[str, Any] = {
            "r": shape.rank,
            "lora_alpha": shape.alpha,
            "target_modules": sorted(shape.targets),
        }
        whole = {f"{adapter.part}.{name}": value for name, value in settings.items()}
        metadata[_DIFFUSERS_METADATA] = json.dumps(whole)
        files = {folder / LORA_FILE: safetensors_bytes(tensors, metadata)}
    else:
        tensors = {f"{_OFT_PREFIX}{name}.weight": x for name, x in adapter.weights.items()}
        settings = {
            "peft_type": "OFT",
            "r": 0,
            "oft_block_size": shape.block_size,
            "target_modules": sorted(shape.targets),
            "use_cayley_neumann": False,
            "inference_mode": True,
        }
        files = {
            folder / OFT_FILE: safetensors_bytes(tensors, metadata),
            folder / OFT_CONFIG: json.dumps(settings, indent=2).encode(),
        }
    write_files(files, overwrite=overwrite)
    return list(files)


def write_bundle(
    path: Path, adapter: Adapter, tokens: Sequence[LearnedToken], *, overwrite: bool = False
) -> None:
    """Write a LoRA and its tokens as one file, under the names that web UIs and ComfyUI read.

    Layers are named as kohya's trainer names them (`lora_unet_….lora_down.weight`), tokens as
    `bundle_emb.NAME.…` without the brackets of their names. Raises EmbeddingFileError for an OFT
    and for a transformer, whose layers have other names there, and FileExists.
    """
    if adapter.shape.kind != "lora" or adapter.part != "unet":
        raise EmbeddingFileError(
            f"{path}: a bundle holds a LoRA of a UNet, and this is an {adapter.shape.kind.upper()} "
            f"of a {adapter.part}. Use the adapter's own file and the token's."
        )
    names = {"lora_A": "lora_down", "lora_B": "lora_up"}
    tensors: dict[str, Tensor] = {}
    for name, weight in adapter.weights.items():
        layer, _, matrix = name.rpartition(".")
        stem = f"lora_unet_{layer.replace('.', '_')}"
        tensors[f"{stem}.{names[matrix]}.weight"] = weight
        tensors[f"{stem}.alpha"] = torch.tensor(float(adapter.shape.alpha))
    several = len({learned.tower for learned in tokens}) > 1
    for learned in tokens:
        key = key_of(learned.tower, learned.vectors.shape[1])
        place = key if several else "string_to_param.*"
        tensors[f"bundle_emb.{learned.token.strip('<>')}.{place}"] = learned.vectors.contiguous()
    data = safetensors_bytes(tensors, _cleaned(adapter.metadata))
    write_files({path: data}, overwrite=overwrite)


def adapter_files(folder: Path) -> list[Path]:
    """Return the files of an adapter that lie in a folder, its bundle among them."""
    names = (LORA_FILE, OFT_FILE, OFT_CONFIG, BUNDLE_FILE)
    return [folder / name for name in names if (folder / name).is_file()]


def find_adapter(folder: Path) -> Path | None:
    """Return the file of the adapter in a folder, or None."""
    names = (LORA_FILE, OFT_FILE)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def adapter_beside(token_file: Path) -> Path | None:
    """Return the file of the adapter that a run learned together with the token in a file.

    It lies beside the token, or above the folders of a run's several tokens. None for other files.
    """
    if not is_learned_name(token_file):
        return None
    folder = token_file.parent
    return find_adapter(folder.parent if is_token_folder(folder) else folder)


def read_adapter(path: str | Path) -> Adapter:
    """Read an adapter that `write_adapter` wrote, or a LoRA in the layout of diffusers.

    path: the file or its folder. A LoRA without a shape in its metadata gets alpha = rank, as in
    diffusers. Raises EmbeddingFileError for any other file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    file = (find_adapter(path) or path / LORA_FILE) if path.is_dir() else path
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
        shape, part, weights = _parsed(tensors, metadata)
        _check_weights(shape, weights)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise EmbeddingFileError(
            f"{file} holds no adapter that can be read here ({first_line(error)}). Expected "
            f"{LORA_FILE} in the layout of diffusers, or the {OFT_FILE} of a run."
        ) from error
    return Adapter(part, shape, weights, metadata)


def _parsed(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[AdapterShape, str, dict[str, Tensor]]:
    """Return shape, part and weights. Raises ValueError for what is no adapter."""
    weights: dict[str, Tensor] = {}
    parts = set()
    for name, tensor in tensors.items():
        if name.startswith(_OFT_PREFIX):
            part, layer = metadata["part"], name.removeprefix(_OFT_PREFIX)
        else:
            part, _, layer = name.partition(".")
        parts.add(part)
        weights[layer.removesuffix(".weight")] = tensor
    if len(parts) != 1 or not parts <= set(_PARTS):
        raise ValueError(f"its weights are of {', '.join(sorted(parts)) or 'nothing'}")
    if SHAPE in metadata:
        read = json.loads(metadata[SHAPE])
        shape = AdapterShape(**{**read, "targets": tuple(read["targets"])})
    else:
        rank = next(len(x) for name, x in weights.items() if name.endswith("lora_A"))
        layers = {name.rpartition(".")[0] for name in weights}
        targets = {layer.rpartition(".")[2] for layer in layers}
        shape = AdapterShape(targets=tuple(sorted(targets)), rank=rank, alpha=float(rank))
        shape = _with_alpha(shape, metadata)
    return shape, parts.pop(), weights


def _with_alpha(shape: AdapterShape, metadata: Mapping[str, str]) -> AdapterShape:
    """Return the shape with the alpha that diffusers wrote, if it did."""
    for name, value in json.loads(metadata.get(_DIFFUSERS_METADATA, "{}")).items():
        if name.endswith(".lora_alpha"):
            return replace(shape, alpha=float(value))
    return shape


def _check_weights(shape: AdapterShape, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError for weights of another shape, or that are not finite."""
    matrices = {"lora": ("lora_A", "lora_B"), "oft": ("oft_R",)}[shape.kind]
    for name, weight in weights.items():
        matrix = name.rpartition(".")[2]
        if matrix not in matrices or weight.dim() != 2 or not weight.isfinite().all():
            raise ValueError(f"{name} of shape {tuple(weight.shape)} is no finite {matrices[0]}")
        if shape.kind == "lora" and weight.shape[matrix == "lora_B"] != shape.rank:
            raise ValueError(f"{name} of shape {tuple(weight.shape)} has not rank {shape.rank}")
    layers = {name.rpartition(".")[0] for name in weights}
    if len(weights) != len(layers) * len(matrices):
        raise ValueError("a layer has only one of its two matrices")


def _cleaned(metadata: Mapping[str, str]) -> dict[str, str]:
    return {clean(name): clean(value) for name, value in sorted(metadata.items())}
