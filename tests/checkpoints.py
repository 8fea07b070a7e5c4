"""Single-file checkpoints under the names of the first Stable Diffusion code.

`write_checkpoint` turns the tiny pipelines of `pipelines.py` into such files, so that both must
give the same numbers. The names are those of CompVis' and Stability's published files, with
OpenCLIP's for the towers of 2.1 and for SDXL's second.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE = {
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_q": "mid.attn_1.q",
    "mid_block.attentions.0.to_k": "mid.attn_1.k",
    "mid_block.attentions.0.to_v": "mid.attn_1.v",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
    ".resnets.": ".block.",
}
_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def write_checkpoint(folder: Path, file: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write a tiny Stable Diffusion pipeline as one file."""
    parts = [path.parent.name for path in folder.glob("text_encoder*/model.safetensors")]
    tensors: Tensors = {}
    for part in sorted(parts):
        tensors |= _tower(load_file(folder / part / "model.safetensors"), _start(folder, part))
    tensors |= _unet(folder / "unet")
    tensors |= _autoencoder(folder / "vae")
    tensors = {name: value.to(dtype).contiguous() for name, value in tensors.items()}
    if "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight" in tensors:
        ids = torch.arange(12)[None]  # a buffer that the published file of 1.5 holds
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = ids
    tensors["betas"] = torch.linspace(0.00085, 0.012, 1000)
    save_file(tensors, file)
    return file


def configurations(folder: Path, target: Path) -> Path:
    """Copy what is no weight of a pipeline: what a checkpoint is configured by."""
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".txt"):
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return target


def _start(folder: Path, part: str) -> str:
    """How the names of a tower begin."""
    kind = json.loads((folder / "model_index.json").read_text())["_class_name"]
    if kind == "StableDiffusionXLPipeline":
        number = 1 if part.endswith("_2") else 0
        return f"conditioner.embedders.{number}.{'model' if number else 'transformer'}."
    gelu = json.loads((folder / part / "config.json").read_text())["hidden_act"] == "gelu"
    return "cond_stage_model.model." if gelu else "cond_stage_model.transformer."


def _tower(tensors: Tensors, start: str) -> Tensors:
    if start.endswith("transformer."):
        return {start + name: value for name, value in tensors.items()}
    renamed: Tensors = {}
    for name, value in tensors.items():
        if re.search(r"self_attn\.[kv]_proj", name):
            continue  # joined below
        if "self_attn.q_proj" in name:
            parts = [tensors[name.replace("q_proj", f"{kind}_proj")] for kind in "qkv"]
            joined = name.replace("self_attn.q_proj.", "attn.in_proj_")
            renamed[_open_clip(start, joined)] = torch.cat(parts)
        elif name == "text_projection.weight":
            renamed[f"{start}text_projection"] = value.T
        else:
            renamed[_open_clip(start, name)] = value
    renamed[f"{start}logit_scale"] = torch.tensor(4.6)
    if start.startswith("cond_stage_model"):  # 2.1 holds a projection that it never uses
        width = len(renamed[f"{start}ln_final.weight"])
        renamed[f"{start}text_projection"] = torch.zeros(width, width)
    return renamed


def _open_clip(start: str, name: str) -> str:
    name = name.removeprefix("text_model.")
    for ours, theirs in _OPEN_CLIP.items():
        name = name.replace(ours, theirs)
    return start + name


def _unet(folder: Path) -> Tensors:
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    return {original_unet_name(name, config): value for name, value in tensors.items()}


def original_unet_name(name: str, config: dict[str, Any]) -> str:
    return "model.diffusion_model." + _unet_name(name, config)


def _unet_name(name: str, config: dict[str, Any]) -> str:
    """Blocks are numbered through; resnets, attentions and resizing are places of a block."""
    for ours, theirs in _UNET_ENDS.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    for ours, theirs in _RESNET.items():
        name = re.sub(rf"(resnets\.\d+)\.{ours}\.", rf"\1.{theirs}.", name)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        place = 2 * int(match[2]) if match[1] == "resnets" else 1
        return f"middle_block.{place}.{match[3]}"
    match = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
    assert match, name
    level, kind, layer, rest = int(match[2]), match[3], int(match[4]), match[5]
    per_level = config["layers_per_block"] + 1
    if match[1] == "down":
        if kind == "downsamplers":
            return f"input_blocks.{per_level * (level + 1)}.0.{rest.replace('conv', 'op')}"
        return f"input_blocks.{1 + per_level * level + layer}.{int(kind == 'attentions')}.{rest}"
    if kind == "upsamplers":
        attends = config["up_block_types"][level].startswith("CrossAttn")
        return f"output_blocks.{per_level * (level + 1) - 1}.{1 + attends}.{rest}"
    return f"output_blocks.{per_level * level + layer}.{int(kind == 'attentions')}.{rest}"


def _autoencoder(folder: Path) -> Tensors:
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    levels = len(json.loads((folder / "config.json").read_text())["block_out_channels"])
    renamed: Tensors = {}
    for original, value in tensors.items():
        name = original
        for ours, theirs in _VAE.items():
            name = name.replace(ours, theirs)
        name = re.sub(r"down_blocks\.(\d+)", r"down.\1", name)
        name = re.sub(r"up_blocks\.(\d+)", lambda at: f"up.{levels - 1 - int(at[1])}", name)
        # Attention was made of convolutions of one pixel.
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name):
            value = value[..., None, None]
        renamed[f"first_stage_model.{name}"] = value
    return renamed
