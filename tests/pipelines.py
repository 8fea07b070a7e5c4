"""Tiny seeded pipelines in the published layout, and the facts about each family that tests need.

Every part is a configuration of `data/published` with smaller and fewer blocks, so that the quirks
stay: CLIP's config with an end id of 2, "!" as padding, v-prediction, time ids, an instruction
before a SANA prompt. Weights are random, float32 safetensors; the pictures are noise.
`conftest.py` has a session fixture of each pipeline. To add a family, write its builder and its
published loss, and add an entry to `FAMILIES`.
"""

import importlib
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

WORDS = ("cat", "dog", "house", "red", "phone")
PUBLISHED = Path(__file__).parent / "data" / "published"
CAUSAL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
}
_SD_UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 8,
}
_VAE = {
    "sample_size": 64,
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
_SD_NOISE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}
_SD_PARTS: dict[str, tuple[str | None, str | None]] = {
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "safety_checker": (None, None),
    "feature_extractor": (None, None),
}
_CLIP_QUIRKS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "max_position_embeddings",
    "hidden_act",
)


def build_sd15(folder: Path) -> None:
    """Stable Diffusion 1.5 for 64 px: one tower of width 32, ε-prediction, no safety checker."""
    diffusers = library("diffusers")

    clip_tower(folder, width=32, seed=1, published_as="clip-vit-l-14-text")
    _save(
        folder / "unet",
        "sd15-unet",
        seed=2,
        **_SD_UNET,
        cross_attention_dim=32,
        attention_head_dim=2,
    )
    _save(folder / "vae", "sd-vae", seed=3, **_VAE)
    scheduler = diffusers.PNDMScheduler(**_SD_NOISE, skip_prk_steps=True, set_alpha_to_one=False)
    scheduler.save_pretrained(folder / "scheduler")
    parts = _SD_PARTS | {"scheduler": ("diffusers", "PNDMScheduler")}
    _write_index(folder, "StableDiffusionPipeline", parts, requires_safety_checker=False)


def build_sd21(folder: Path) -> None:
    """Stable Diffusion 2.1 for 64 px: one tower of width 48, v-prediction."""
    diffusers = library("diffusers")

    clip_tower(folder, width=48, seed=1, published_as="openclip-vit-h-14-text", pad_token="!")
    _save(
        folder / "unet",
        "sd21-base-unet",
        seed=2,
        **_SD_UNET,
        cross_attention_dim=48,
        attention_head_dim=(2, 4),
    )
    _save(folder / "vae", "sd-vae", seed=3, **_VAE)
    options = {"prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False}
    diffusers.DDIMScheduler(**_SD_NOISE, **options).save_pretrained(folder / "scheduler")
    parts = _SD_PARTS | {"scheduler": ("diffusers", "DDIMScheduler")}
    _write_index(folder, "StableDiffusionPipeline", parts, requires_safety_checker=False)


def build_sdxl(folder: Path, *, bench: bool = False) -> None:
    """Stable Diffusion XL for 64 px: two towers of widths 32 and 48, ε-prediction, time ids.

    bench: for 256 px, with towers of 128 and 192. UNet (28 million parameters) and autoencoder have
    the published depth and a tenth of the published widths: large enough that the time of a
    training step is the model's and not the loop's, and divided among the parts as at full size.
    """
    diffusers = library("diffusers")

    first, second = (128, 192) if bench else (32, 48)
    time_width = 64 if bench else 8
    channels = (32, 64, 128) if bench else (16, 32, 32)
    clip_tower(folder, width=first, seed=1, published_as="clip-vit-l-14-text")
    clip_tower(
        folder,
        "_2",
        width=second,
        seed=2,
        projection=True,
        published_as="openclip-vit-bigg-14-text",
        pad_token="!",
    )
    _save(
        folder / "unet",
        "sdxl-unet",
        seed=3,
        sample_size=32 if bench else 8,
        block_out_channels=channels,
        layers_per_block=2 if bench else 1,
        transformer_layers_per_block=(1, 2, 10) if bench else (1, 1, 2),
        attention_head_dim=(2, 4, 8) if bench else (2, 4, 4),
        norm_num_groups=8,
        cross_attention_dim=first + second,
        addition_time_embed_dim=time_width,
        projection_class_embeddings_input_dim=6 * time_width + second,
    )
    tenth = {"sample_size": 256, "block_out_channels": (12, 24, 52, 52), "layers_per_block": 2}
    _save(folder / "vae", "sdxl-vae", seed=4, **_VAE | (tenth if bench else {}))
    scheduler = diffusers.EulerDiscreteScheduler(**_SD_NOISE, timestep_spacing="leading")
    scheduler.save_pretrained(folder / "scheduler")
    parts = {part: _SD_PARTS[part] for part in ("text_encoder", "tokenizer", "unet", "vae")} | {
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
        "tokenizer_2": ("transformers", "CLIPTokenizer"),
        "scheduler": ("diffusers", "EulerDiscreteScheduler"),
    }
    _write_index(folder, "StableDiffusionXLPipeline", parts, force_zeros_for_empty_prompt=True)


def t5_tower(folder: Path, suffix: str, *, cls: str, seed: int, gain: float = 1.0) -> None:
    """A T5 or UMT5 encoder of width 40 and its tokenizer; the table has rows to spare.

    gain: of its final norm. Wan needs some, to hear a prompt of a few words among 500 zeros.
    """
    transformers = library("transformers")

    rows = t5_tokenizer(folder / f"tokenizer{suffix}") + 12
    name = "umt5-xxl-encoder" if cls == "UMT5EncoderModel" else "t5-v1_1-xxl-encoder"
    sizes = {"vocab_size": rows, "d_model": 40, "d_kv": 8, "d_ff": 48, "num_layers": 2}
    config = published(name)["config"] | sizes | {"num_decoder_layers": 2, "num_heads": 4}
    encoder = getattr(transformers, cls)
    model = seeded(lambda: encoder(encoder.config_class(**config)), seed)
    model.encoder.final_layer_norm.weight.data.fill_(gain)
    model.save_pretrained(folder / f"text_encoder{suffix}")


def t5_tokenizer(folder: Path) -> int:
    """Write a tokenizer of T5's kind: pieces with scores, an end token, no begin token.

    Returns its size.
    """
    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz<>_-,"]
    pieces += [f"▁{word}" for word in ("a", "e", *WORDS)]
    scores = [(piece, float(len(piece) - 9)) for piece in pieces]
    tokenizer = library("transformers").T5TokenizerFast(vocab=scores, extra_ids=0)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


_T5 = ("transformers", "T5EncoderModel")
_T5_TOKENIZER = ("transformers", "T5TokenizerFast")
_CLIP_PROJECTED = ("transformers", "CLIPTextModelWithProjection")
_CLIP_TOKENIZER = ("transformers", "CLIPTokenizer")
_EULER = ("diffusers", "FlowMatchEulerDiscreteScheduler")
_KL = ("diffusers", "AutoencoderKL")
_TOKENS = {"attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 40}


def build_sd35(folder: Path) -> None:
    """Stable Diffusion 3.5 medium for 64 px: CLIP of widths 16 and 20, T5, a fixed shift of 3."""
    for number, (suffix, width) in enumerate((("", 16), ("_2", 20)), 1):
        clip_tower(
            folder,
            suffix,
            width=width,
            seed=number,
            projection=True,
            published_as=("clip-vit-l-14-text-projection", "openclip-vit-bigg-14-text")[number - 1],
            pad_token=("<|endoftext|>", "!")[number - 1],
        )
    t5_tower(folder, "_3", cls="T5EncoderModel", seed=3)
    sizes = _TOKENS | {"sample_size": 8, "pos_embed_max_size": 12, "num_layers": 3}
    sizes |= {"caption_projection_dim": 32, "pooled_projection_dim": 36}
    _save(
        folder / "transformer",
        "sd35-medium-transformer",
        seed=4,
        **sizes,
        dual_attention_layers=(0,),
    )
    _save(folder / "vae", "sd35-vae", seed=5, **_VAE)
    _write_scheduler(folder, "FlowMatchEulerDiscreteScheduler", shift=3.0)
    parts = {"text_encoder": _CLIP_PROJECTED, "tokenizer": _CLIP_TOKENIZER}
    parts |= {"text_encoder_2": _CLIP_PROJECTED, "tokenizer_2": _CLIP_TOKENIZER}
    parts |= {"text_encoder_3": _T5, "tokenizer_3": _T5_TOKENIZER}
    parts |= {
        "transformer": ("diffusers", "SD3Transformer2DModel"),
        "vae": _KL,
        "scheduler": _EULER,
    }
    _write_index(folder, "StableDiffusion3Pipeline", parts)


def build_flux1(folder: Path) -> None:
    """FLUX.1 dev: CLIP of width 16, T5, a guidance embedding, a shift that grows with the size."""
    clip_tower(folder, width=16, seed=1, published_as="clip-vit-l-14-text")
    t5_tower(folder, "_2", cls="T5EncoderModel", seed=2)
    sizes = _TOKENS | {"num_layers": 1, "num_single_layers": 2, "axes_dims_rope": (4, 6, 6)}
    _save(
        folder / "transformer", "flux1-dev-transformer", seed=3, **sizes, pooled_projection_dim=16
    )
    _save(folder / "vae", "flux1-vae", seed=4, **_VAE)
    dynamic = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "shift": 3.0}
    dynamic |= {"base_image_seq_len": 256, "max_image_seq_len": 4096}
    _write_scheduler(folder, "FlowMatchEulerDiscreteScheduler", **dynamic)
    parts = {"text_encoder": ("transformers", "CLIPTextModel"), "tokenizer": _CLIP_TOKENIZER}
    parts |= {"text_encoder_2": _T5, "tokenizer_2": _T5_TOKENIZER}
    parts |= {"transformer": ("diffusers", "FluxTransformer2DModel"), "vae": _KL}
    _write_index(folder, "FluxPipeline", parts | {"scheduler": _EULER})


def build_chroma(folder: Path) -> None:
    """Chroma1 HD: T5 with a mask, an approximator of the modulation, a fixed shift of 3."""
    t5_tower(folder, "", cls="T5EncoderModel", seed=1)
    sizes = _TOKENS | {"num_layers": 1, "num_single_layers": 2, "axes_dims_rope": (4, 6, 6)}
    sizes |= {"approximator_hidden_dim": 16, "approximator_layers": 1}
    _save(folder / "transformer", "chroma1-hd-transformer", seed=2, **sizes)
    _save(folder / "vae", "flux1-vae", seed=3, **_VAE)
    fixed = {"shift": 3.0, "use_dynamic_shifting": False}
    _write_scheduler(folder, "FlowMatchEulerDiscreteScheduler", **fixed)
    parts = {"text_encoder": _T5, "tokenizer": _T5_TOKENIZER, "vae": _KL, "scheduler": _EULER}
    parts |= {"transformer": ("diffusers", "ChromaTransformer2DModel")}
    _write_index(folder, "ChromaPipeline", parts)


def build_pixart(folder: Path) -> None:
    """PixArt-Σ for 64 px: T5 with a mask, ε-prediction and a variance in 8 channels.

    Its pipeline knows aspect ratios only for published sizes, and cleans tags out of prompts:
    generate with `use_resolution_binning=False` and `clean_caption=False`.
    """
    t5_tower(folder, "", cls="T5EncoderModel", seed=1)
    sizes = {"sample_size": 8, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2}
    sizes |= {"cross_attention_dim": 32, "caption_channels": 40}
    _save(folder / "transformer", "pixart-sigma-1024-transformer", seed=2, **sizes)
    # The published files name an older class, in which diffusers recognises this one.
    config = json.loads((folder / "transformer" / "config.json").read_text())
    named = json.dumps(config | {"_class_name": "Transformer2DModel"})
    (folder / "transformer" / "config.json").write_text(named)
    _save(folder / "vae", "sdxl-vae", seed=3, **_VAE)
    noise = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
    _write_scheduler(folder, "DPMSolverMultistepScheduler", **noise)
    parts = {"text_encoder": _T5, "tokenizer": _T5_TOKENIZER, "vae": _KL}
    parts |= {"transformer": ("diffusers", "Transformer2DModel")}
    parts |= {"scheduler": ("diffusers", "DPMSolverMultistepScheduler")}
    _write_index(folder, "PixArtSigmaPipeline", parts)


def build_wan(folder: Path) -> None:
    """Wan 2.1: UMT5 with a mask, an autoencoder of videos, flow matching with shift 3."""
    t5_tower(folder, "", cls="UMT5EncoderModel", seed=1, gain=40.0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "ffn_dim": 48}
    sizes |= {"text_dim": 40, "freq_dim": 16, "rope_max_seq_len": 64}
    _save(folder / "transformer", "wan21-t2v-1.3b-transformer", seed=2, **sizes)
    # Without attention at the end of the encoder: its convolutions alone are in three dimensions.
    _save(folder / "vae", "wan21-vae", seed=3, base_dim=8, dim_mult=[1] * 4, num_res_blocks=1)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    _write_scheduler(folder, "UniPCMultistepScheduler", **flow)
    parts = {"text_encoder": ("transformers", "UMT5EncoderModel"), "tokenizer": _T5_TOKENIZER}
    parts |= {"transformer": ("diffusers", "WanTransformer3DModel")}
    parts |= {"vae": ("diffusers", "AutoencoderKLWan")}
    parts |= {"scheduler": ("diffusers", "UniPCMultistepScheduler")}
    _write_index(folder, "WanPipeline", {**parts, "transformer_2": (None, None)})


def build_sana(folder: Path) -> None:
    """SANA 1.5 for 64 px: Gemma-2 of width 32, flow matching with shift 3.

    The autoencoder divides sides by 32. The pipeline knows aspect ratios only for published sizes:
    generate with `use_resolution_binning=False`.
    """
    diffusers, transformers = library("diffusers"), library("transformers")

    vocabulary = gemma_tokenizer(folder / "tokenizer")
    sizes = CAUSAL | {"vocab_size": vocabulary, "max_position_embeddings": 8192}
    config = transformers.Gemma2Config(**sizes, head_dim=16, query_pre_attn_scalar=16)
    seeded(lambda: transformers.Gemma2Model(config), 1).save_pretrained(folder / "text_encoder")
    _save(
        folder / "transformer",
        "sana15-1.6b-transformer",
        seed=2,
        in_channels=8,
        out_channels=8,
        num_attention_heads=4,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=32,
        sample_size=2,
        num_layers=2,
    )
    _save(
        folder / "vae",
        "sana-dcae",
        seed=3,
        latent_channels=8,
        attention_head_dim=4,
        encoder_block_out_channels=(4, 4, 8, 8, 16, 16),
        decoder_block_out_channels=(4, 4, 8, 8, 16, 16),
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
    )
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    diffusers.DPMSolverMultistepScheduler(**flow).save_pretrained(folder / "scheduler")
    parts: dict[str, tuple[str | None, str | None]] = {
        "text_encoder": ("transformers", "Gemma2Model"),
        "tokenizer": ("transformers", "GemmaTokenizerFast"),
        "transformer": ("diffusers", "SanaTransformer2DModel"),
        "vae": ("diffusers", "AutoencoderDC"),
        "scheduler": ("diffusers", "DPMSolverMultistepScheduler"),
    }
    _write_index(folder, "SanaPipeline", parts)


def build_flux2_klein(folder: Path) -> None:
    """FLUX.2-klein base: Qwen3 of width 16 and the published 36 blocks, flow matching.

    The token table has rows behind the tokenizer's last token, as published.
    """
    transformers = library("transformers")

    layers = published("qwen3-4b")["config"]["num_hidden_layers"]
    config = _qwen3_config(qwen_tokenizer(folder / "tokenizer"), layers)
    seeded(lambda: transformers.Qwen3ForCausalLM(config), 1).save_pretrained(
        folder / "text_encoder", max_shard_size="200KB"
    )
    _save(
        folder / "transformer",
        "flux2-klein-4b-transformer",
        seed=2,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=16,
        axes_dims_rope=[4, 4, 4, 4],
    )
    _save(folder / "vae", "flux2-vae", seed=3, **_VAE, latent_channels=4)
    _spread_statistics(folder / "vae")
    _flow_scheduler(folder, "flux2-klein-scheduler")
    parts = _FLOW_PARTS | {
        "text_encoder": ("transformers", "Qwen3ForCausalLM"),
        "tokenizer": ("transformers", "Qwen2TokenizerFast"),
        "transformer": ("diffusers", "Flux2Transformer2DModel"),
        "vae": ("diffusers", "AutoencoderKLFlux2"),
    }
    _write_index(folder, "Flux2KleinPipeline", parts, is_distilled=False)


def build_z_image(folder: Path) -> None:
    """Z-Image: Qwen3 of width 16, FLUX.1's autoencoder, flow matching with shift 6."""
    transformers = library("transformers")

    config = _qwen3_config(qwen_tokenizer(folder / "tokenizer"), layers=3)
    seeded(lambda: transformers.Qwen3Model(config), 1).save_pretrained(folder / "text_encoder")
    _save(
        folder / "transformer",
        "z-image-transformer",
        seed=2,
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
    )
    _save(folder / "vae", "flux1-vae", seed=3, **_VAE, latent_channels=4)
    _flow_scheduler(folder, "z-image-scheduler")
    parts = _FLOW_PARTS | {
        "text_encoder": ("transformers", "Qwen3Model"),
        "tokenizer": ("transformers", "Qwen2TokenizerFast"),
        "transformer": ("diffusers", "ZImageTransformer2DModel"),
        "vae": ("diffusers", "AutoencoderKL"),
    }
    _write_index(folder, "ZImagePipeline", parts)


def build_qwen_image(folder: Path) -> None:
    """Qwen-Image: Qwen2.5-VL of width 16 with its vision tower, an autoencoder of films."""
    transformers = library("transformers")

    config = transformers.Qwen2_5_VLConfig(
        **qwen_vl_config(qwen_tokenizer(folder / "tokenizer", chat=False) + 8)
    )
    seeded(lambda: transformers.Qwen2_5_VLForConditionalGeneration(config), 1).save_pretrained(
        folder / "text_encoder"
    )
    _save(
        folder / "transformer",
        "qwen-image-transformer",
        seed=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=[4, 6, 6],
    )
    statistics = {name: published("qwen-image-vae")["config"][name][:4] for name in _STATISTICS}
    sizes = {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    _save(folder / "vae", "qwen-image-vae", seed=3, **sizes, **statistics)
    _flow_scheduler(folder, "qwen-image-scheduler")
    parts = _FLOW_PARTS | {
        "text_encoder": ("transformers", "Qwen2_5_VLForConditionalGeneration"),
        "tokenizer": ("transformers", "Qwen2Tokenizer"),
        "transformer": ("diffusers", "QwenImageTransformer2DModel"),
        "vae": ("diffusers", "AutoencoderKLQwenImage"),
    }
    _write_index(folder, "QwenImagePipeline", parts)


def build_lumina2(folder: Path) -> None:
    """Lumina-Image 2.0: Gemma-2 of width 32, FLUX.1's autoencoder, flow matching with shift 6."""
    transformers = library("transformers")

    vocabulary = gemma_tokenizer(folder / "tokenizer")
    sizes = CAUSAL | {
        "vocab_size": vocabulary,
        "num_hidden_layers": 3,
        "max_position_embeddings": 8192,
    }
    config = transformers.Gemma2Config(**sizes, head_dim=16, query_pre_attn_scalar=16)
    seeded(lambda: transformers.Gemma2Model(config), 1).save_pretrained(folder / "text_encoder")
    _save(
        folder / "transformer",
        "lumina-image-2-transformer",
        seed=2,
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=[4, 4, 4],
        cap_feat_dim=32,
    )
    _save(folder / "vae", "flux1-vae", seed=3, **_VAE, latent_channels=4)
    _flow_scheduler(folder, "lumina-image-2-scheduler")
    parts = _FLOW_PARTS | {
        "text_encoder": ("transformers", "Gemma2Model"),
        "tokenizer": ("transformers", "GemmaTokenizerFast"),
        "transformer": ("diffusers", "Lumina2Transformer2DModel"),
        "vae": ("diffusers", "AutoencoderKL"),
    }
    _write_index(folder, "Lumina2Pipeline", parts)


_STATISTICS = ("latents_mean", "latents_std")
_FLOW_PARTS: dict[str, tuple[str | None, str | None]] = {
    "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler")
}


def _flow_scheduler(folder: Path, name: str) -> None:
    scheduler = library("diffusers").FlowMatchEulerDiscreteScheduler(**published(name)["config"])
    scheduler.save_pretrained(folder / "scheduler")


def qwen_vl_config(rows: int) -> dict[str, Any]:
    """Qwen2.5-VL of width 16 and two blocks, with a vision tower of one."""
    facts = published("qwen2.5-vl-7b")["config"]
    text = {
        "vocab_size": rows,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": facts["text_config"]["rope_parameters"] | {"mrope_section": [1, 1, 2]},
    }
    vision = {
        "depth": 1,
        "fullatt_block_indexes": [0],
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
    }
    nested: dict[str, Any] = facts | {
        "text_config": facts["text_config"] | text,
        "vision_config": facts["vision_config"] | vision,
    }
    return nested


def _qwen3_config(tokens: int, layers: int) -> Any:
    """Qwen3 of width 16, and eight rows behind the tokenizer's last token."""
    sizes = CAUSAL | {
        "vocab_size": tokens + 8,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
    }
    return library("transformers").Qwen3Config(**sizes, head_dim=8, tie_word_embeddings=True)


def _spread_statistics(folder: Path) -> None:
    """Give FLUX.2's autoencoder statistics of channels that differ, as trained ones do."""
    from safetensors.torch import load_file, save_file

    path = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    generator = torch.Generator().manual_seed(4)
    shape = weights["bn.running_mean"].shape
    weights["bn.running_mean"] = torch.randn(shape, generator=generator)
    weights["bn.running_var"] = 0.5 + torch.rand(shape, generator=generator)
    save_file(weights, path, {"format": "pt"})


# The messages of a chat as Qwen3 writes them; without thinking the answer begins with its tags.
_QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def qwen_tokenizer(folder: Path, words: Sequence[str] = WORDS, *, chat: bool = True) -> int:
    """Write a tokenizer of Qwen's kind: BPE on bytes, no begin token, chat. Returns its size.

    words: those of one token.
    """
    merges = [tuple(merge.split()) for merge in _byte_merges(words)]
    pieces = [*_letters(), *("".join(merge) for merge in merges)]
    tokenizer = library("transformers").Qwen2Tokenizer(
        {piece: row for row, piece in enumerate(pieces)},
        merges,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=131072,
    )
    if chat:
        tokenizer.add_tokens(["<think>", "</think>"])
        tokenizer.chat_template = _QWEN_TEMPLATE
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def _byte_merges(words: Sequence[str]) -> list[str]:
    """The merges that make each of the words one token, at a prompt's start and behind a space."""
    merges: dict[str, None] = {}
    for word in words:
        for end in range(1, len(word)):
            merges[f"{word[:end]} {word[end]}"] = None
        merges[f"Ġ {word}"] = None
    return list(merges)


def library(name: str) -> Any:
    """A heavy library, imported when a folder is built."""
    return importlib.import_module(name)


def published(name: str) -> dict[str, Any]:
    """`cls`, `config` and `parameters` of a published part."""
    facts: dict[str, Any] = json.loads((PUBLISHED / f"{name}.json").read_text())
    return facts


def seeded(build: Callable[[], Any], seed: int) -> Any:
    torch.manual_seed(seed)
    return build().eval()


def _save(folder: Path, name: str, *, seed: int, **sizes: Any) -> None:
    """A published diffusers part with other sizes."""
    diffusers = library("diffusers")

    facts = published(name)
    config = facts["config"] | sizes
    seeded(lambda: getattr(diffusers, facts["cls"])(**config), seed).save_pretrained(folder)


def _write_scheduler(folder: Path, cls: str, **options: Any) -> None:
    getattr(library("diffusers"), cls)(**options).save_pretrained(folder / "scheduler")


def _write_index(
    folder: Path, kind: str, parts: Mapping[str, tuple[str | None, str | None]], **options: bool
) -> None:
    index = {"_class_name": kind, "_diffusers_version": "0.35.0", **options, **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


def clip_config(width: int) -> dict[str, int]:
    return {
        "vocab_size": len(_clip_vocabulary()),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 12,
    }


def clip_tower(
    folder: Path,
    suffix: str = "",
    *,
    width: int,
    seed: int,
    projection: bool = False,
    published_as: str | None = None,
    pad_token: str = "<|endoftext|>",
) -> None:
    """A tower and its tokenizer.

    published_as: take the special ids, length and activation of that published tower.
    """
    transformers = library("transformers")

    last = len(_clip_vocabulary()) - 1
    options = {"bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last}
    if published_as:
        options |= {
            key: value
            for key, value in published(published_as)["config"].items()
            if key in _CLIP_QUIRKS
        }
    sizes: dict[str, Any] = {**clip_config(width), **options}
    config = transformers.CLIPTextConfig(**sizes, projection_dim=width)
    cls = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    model = seeded(lambda: cls(config), seed)
    encoder = folder / f"text_encoder{suffix}"
    config.architectures = [cls.__name__]
    config.save_pretrained(encoder)
    state = model.state_dict()
    if not projection:
        # transformers 5.0 still has the prefix.
        bare = {name.removeprefix("text_model."): value for name, value in state.items()}
        state = {f"text_model.{name}": value for name, value in bare.items()}
    save_file(
        {name: value.contiguous() for name, value in state.items()},
        encoder / "model.safetensors",
        {"format": "pt"},
    )
    tokenizer = folder / f"tokenizer{suffix}"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(
        json.dumps({token: row for row, token in enumerate(_clip_vocabulary())})
    )
    (tokenizer / "merges.txt").write_text("#version: 0.2\n" + "\n".join(_clip_merges()) + "\n")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
                "pad_token": pad_token,
                "model_max_length": config.max_position_embeddings,
                "do_lower_case": True,
                "errors": "replace",
            }
        )
    )


def _clip_merges() -> list[str]:
    """The merges that make each of WORDS one token: c a, ca t</w>, …"""
    merges: dict[str, None] = {}
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges[f"{pieces[0]} {pieces[1]}"] = None
            pieces[:2] = [pieces[0] + pieces[1]]
    return list(merges)


def _clip_vocabulary() -> list[str]:
    """CLIP's order: bytes, bytes that end a word, merges, special tokens."""
    letters = _letters()
    merged = [merge.replace(" ", "") for merge in _clip_merges()]
    return [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *merged,
        "<|startoftext|>",
        "<|endoftext|>",
    ]


def _letters() -> list[str]:
    """A printable character for each byte, in GPT-2's order."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [256 + place for place in range(256 - len(printable))]
    return [chr(code) for code in printable + others]


def gemma_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> int:
    """Write a tokenizer of Gemma's kind: BPE that falls back to bytes, a begin token, nothing lost.

    words: those of one token. Returns its size.
    """
    pieces = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
    ]
    pieces += "abcdefghijklmnopqrstuvwxyz"
    merges: list[tuple[str, str]] = []
    for word in words:
        merges += [("▁" + word[:end], word[end]) for end in range(len(word))]
    merges = list(dict.fromkeys(merges))  # words that begin alike share merges
    pieces += ["".join(merge) for merge in merges]
    tokenizer = library("transformers").GemmaTokenizer(
        {piece: row for row, piece in enumerate(pieces)}, merges, add_bos_token=True
    )
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def published_folder(folder: Path, name: str, denoiser: str | None = None) -> None:
    """Write a family's folder with the configurations of published sizes; no weights fit them.

    denoiser: one of the family's; default the first. Tokenizers are stand-ins. Where the pipeline
    writes something before prompts, they read every word of it as one token, about as many tokens
    as the published ones.
    """
    family = FAMILIES[name]
    family.build(folder)
    index = json.loads((folder / "model_index.json").read_text())
    towers = sorted(part for part in index if part.startswith("text_encoder"))
    denoiser = denoiser or family.denoisers[0]
    parts = dict(zip(towers, family.towers_of(denoiser), strict=True)) | {
        "vae": family.autoencoder,
        "transformer" if "transformer" in index else "unet": denoiser,
    }
    for part, size in parts.items():
        facts = published(size)
        where = "diffusers" if part not in towers else "transformers"
        config = {key: value for key, value in facts["config"].items() if key != "torch_dtype"}
        config |= {"_class_name": facts["cls"]} if where == "diffusers" else {}
        (folder / part / "config.json").write_text(json.dumps(config))
        index[part] = [where, facts["cls"]]
        for weights in (folder / part).glob("*.safetensors"):
            weights.unlink()
    (folder / "model_index.json").write_text(json.dumps(index))
    pipeline = getattr(library("diffusers"), family.pipeline_class)
    text = "user assistant system think a photo of one the my "
    if name == "sana":
        call = inspect.signature(pipeline.__call__).parameters
        text += " ".join(call["complex_human_instruction"].default)
    else:
        text += inspect.getsource(pipeline.__init__)  # the sentences before a prompt among it
    words = (*WORDS, *(word for word in re.findall(r"[A-Za-z]+", text) if len(word) > 1))
    if "gemma" in family.towers[0]:
        gemma_tokenizer(folder / "tokenizer", [word for word in words if word.islower()])
    elif "qwen" in family.towers[0]:
        qwen_tokenizer(folder / "tokenizer", words)


# The training losses as published, written with diffusers' own modules and numbers alone.


@dataclass(frozen=True)
class Sample:
    """Latents in the denoiser's units, noise of the same shape, a time and a prompt for each."""

    x: Tensor  # (n, c, h, w)
    noise: Tensor
    t: Tensor  # (n,)
    prompts: Sequence[str]
    sizes: tuple[int, ...]  # height, width of the file; top, left of the crop; height, width of it


def squared_error(answer: Tensor, target: Tensor) -> Tensor:
    """Mean over a sample's numbers, (n, …) to (n,)."""
    return ((answer - target) ** 2).flatten(1).mean(dim=1)


def _alpha_bar(sample: Sample) -> Tensor:
    """ᾱ of Stable Diffusion's scaled linear schedule (Rombach et al. 2022), β from 0.00085."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha_bar = (1 - betas).cumprod(0)
    return alpha_bar[sample.t].view(-1, 1, 1, 1)


def stable_diffusion_loss(pipeline: Any, sample: Sample) -> Tensor:
    """Mean squared error of ε (1.5), or of v = √ᾱ ε − √(1 − ᾱ) x (2.1)."""
    kept = _alpha_bar(sample)
    noisy = kept.sqrt() * sample.x + (1 - kept).sqrt() * sample.noise
    states, _ = pipeline.encode_prompt(sample.prompts, "cpu", 1, False)
    answer = pipeline.unet(noisy, sample.t, encoder_hidden_states=states).sample
    target = sample.noise
    if pipeline.scheduler.config.prediction_type == "v_prediction":
        target = kept.sqrt() * sample.noise - (1 - kept).sqrt() * sample.x
    return squared_error(answer, target)


def sdxl_loss(pipeline: Any, sample: Sample) -> Tensor:
    """Mean squared error of ε; the UNet reads the pooled state and six sizes."""
    kept = _alpha_bar(sample)
    noisy = kept.sqrt() * sample.x + (1 - kept).sqrt() * sample.noise
    states, _, pooled, _ = pipeline.encode_prompt(
        sample.prompts, device="cpu", do_classifier_free_guidance=False
    )
    sizes = torch.tensor([sample.sizes] * len(sample.x), dtype=torch.float32)
    answer = pipeline.unet(
        noisy,
        sample.t,
        encoder_hidden_states=states,
        added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes},
    ).sample
    return squared_error(answer, sample.noise)


def flow_sample(sample: Sample) -> tuple[Tensor, Tensor]:
    """σ of each sample, (n,), and the latents (1 − σ) x + σ ε."""
    sigma = sample.t / 1000
    shaped = sigma.view(-1, 1, 1, 1)
    return sigma, (1 - shaped) * sample.x + shaped * sample.noise


def sd35_loss(pipeline: Any, sample: Sample) -> Tensor:
    """Mean squared error of ε − x (Esser et al. 2024); the transformer is given 1000 σ."""
    sigma, noisy = flow_sample(sample)
    texts = list(sample.prompts)
    states, _, pooled, _ = pipeline.encode_prompt(texts, texts, texts, "cpu", 1, False)
    answer = pipeline.transformer(
        hidden_states=noisy,
        timestep=1000 * sigma,
        encoder_hidden_states=states,
        pooled_projections=pooled,
    ).sample
    return squared_error(answer, sample.noise - sample.x)


def _packed(pipeline: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and their position ids, by the pipeline's own functions."""
    n, _, height, width = latents.shape
    ids = pipeline._prepare_latent_image_ids(n, height // 2, width // 2, "cpu", torch.float32)
    return pipeline._pack_latents(latents, *latents.shape), ids


def flux1_loss(pipeline: Any, sample: Sample) -> Tensor:
    """Mean squared error of ε − x on packed latents; the transformer is given σ and guidance 1."""
    sigma, noisy = flow_sample(sample)
    states, pooled, text_ids = pipeline.encode_prompt(list(sample.prompts), device="cpu")
    patches, ids = _packed(pipeline, noisy)
    answer = pipeline.transformer(
        hidden_states=patches,
        timestep=sigma,
        guidance=torch.ones(len(sigma)),
        pooled_projections=pooled,
        encoder_hidden_states=states,
        txt_ids=text_ids,
        img_ids=ids,
    ).sample
    return squared_error(answer, _packed(pipeline, sample.noise - sample.x)[0])


def chroma_loss(pipeline: Any, sample: Sample) -> Tensor:
    """As FLUX.1's, with a mask in place of pooled state and guidance."""
    sigma, noisy = flow_sample(sample)
    states, text_ids, mask, *_ = pipeline.encode_prompt(
        list(sample.prompts), device="cpu", do_classifier_free_guidance=False
    )
    patches, ids = _packed(pipeline, noisy)
    mask = pipeline._prepare_attention_mask(
        batch_size=len(mask),
        sequence_length=patches.shape[1],
        dtype=states.dtype,
        attention_mask=mask,
    )
    answer = pipeline.transformer(
        hidden_states=patches,
        timestep=sigma,
        encoder_hidden_states=states,
        attention_mask=mask,
        txt_ids=text_ids,
        img_ids=ids,
    ).sample
    return squared_error(answer, _packed(pipeline, sample.noise - sample.x)[0])


def pixart_loss(pipeline: Any, sample: Sample) -> Tensor:
    """Mean squared error of ε, linear β from 1e-4 to 0.02; the last 4 channels are a variance."""
    alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)[sample.t].view(-1, 1, 1, 1)
    noisy = alpha_bar.sqrt() * sample.x + (1 - alpha_bar).sqrt() * sample.noise
    states, mask, _, _ = pipeline.encode_prompt(
        list(sample.prompts), do_classifier_free_guidance=False, device="cpu"
    )
    answer = pipeline.transformer(
        noisy,
        encoder_hidden_states=states,
        encoder_attention_mask=mask,
        timestep=sample.t,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
    ).sample
    return squared_error(answer.chunk(2, dim=1)[0], sample.noise)


def wan_loss(pipeline: Any, sample: Sample) -> Tensor:
    """Mean squared error of ε − x on videos of one frame; the transformer is given 1000 σ."""
    sigma, noisy = flow_sample(sample)
    states, _ = pipeline.encode_prompt(
        list(sample.prompts),
        do_classifier_free_guidance=False,
        max_sequence_length=512,
        device="cpu",
    )
    answer = pipeline.transformer(
        hidden_states=noisy.unsqueeze(2), timestep=1000 * sigma, encoder_hidden_states=states
    ).sample
    return squared_error(answer, (sample.noise - sample.x).unsqueeze(2))


def sana_loss(pipeline: Any, sample: Sample) -> Tensor:
    """Mean squared error of the velocity ε − x at (1 − σ) x + σ ε (Xie et al. 2025)."""
    sigma = (sample.t / 1000).view(-1, 1, 1, 1)
    noisy = (1 - sigma) * sample.x + sigma * sample.noise
    call = inspect.signature(type(pipeline).__call__).parameters
    states, mask, _, _ = pipeline.encode_prompt(
        list(sample.prompts),
        do_classifier_free_guidance=False,
        device="cpu",
        complex_human_instruction=call["complex_human_instruction"].default,
    )
    answer = pipeline.transformer(
        noisy, encoder_hidden_states=states, encoder_attention_mask=mask, timestep=sample.t
    ).sample
    return squared_error(answer, sample.noise - sample.x)


def flux2_klein_loss(pipeline: Any, sample: Sample) -> Tensor:
    """Mean squared error of the velocity ε − x (training example of diffusers).

    The text is all 512 places; the image a token for each 2×2 patch of latents.
    """
    sigma = (sample.t / 1000).view(-1, 1, 1, 1)
    noisy = (1 - sigma) * sample.x + sigma * sample.noise
    states, text_places = pipeline.encode_prompt(list(sample.prompts), device="cpu")
    assert states.shape[1] == 512
    answer = pipeline.transformer(
        pipeline._pack_latents(noisy),
        encoder_hidden_states=states,
        timestep=sample.t / 1000,
        img_ids=pipeline._prepare_latent_ids(noisy),
        txt_ids=text_places,
        guidance=None,
    ).sample
    return squared_error(answer, pipeline._pack_latents(sample.noise - sample.x))


def z_image_loss(pipeline: Any, sample: Sample) -> Tensor:
    """Mean squared error of the velocity ε − x; the answer is its negative, at time 1 − σ."""
    sigma = (sample.t / 1000).view(-1, 1, 1, 1)
    noisy = (1 - sigma) * sample.x + sigma * sample.noise
    states, _ = pipeline.encode_prompt(
        list(sample.prompts), device="cpu", do_classifier_free_guidance=False
    )
    answer = pipeline.transformer(
        list(noisy.unsqueeze(2)), (1000 - sample.t) / 1000, states, return_dict=False
    )[0]
    return squared_error(-torch.stack(answer).squeeze(2), sample.noise - sample.x)


def qwen_image_loss(pipeline: Any, sample: Sample) -> Tensor:
    """Mean squared error of the velocity ε − x, on packed latents (training example)."""
    sigma = (sample.t / 1000).view(-1, 1, 1, 1)
    noisy = (1 - sigma) * sample.x + sigma * sample.noise
    states, mask = pipeline.encode_prompt(
        list(sample.prompts), device="cpu", max_sequence_length=512
    )
    count, channels, height, width = noisy.shape
    sizes = (count, channels, height, width)
    answer = pipeline.transformer(
        pipeline._pack_latents(noisy[:, None], *sizes),
        encoder_hidden_states=states,
        encoder_hidden_states_mask=mask,
        timestep=sample.t / 1000,
        img_shapes=[[(1, height // 2, width // 2)]] * count,
        guidance=None,
    ).sample
    target = (sample.noise - sample.x)[:, None]
    return squared_error(answer, pipeline._pack_latents(target, *sizes))


def lumina2_loss(pipeline: Any, sample: Sample) -> Tensor:
    """Mean squared error of the velocity ε − x; the answer is its negative, at time 1 − σ."""
    sigma = (sample.t / 1000).view(-1, 1, 1, 1)
    noisy = (1 - sigma) * sample.x + sigma * sample.noise
    states, mask, _, _ = pipeline.encode_prompt(
        list(sample.prompts), do_classifier_free_guidance=False, device="cpu"
    )
    answer = pipeline.transformer(noisy, 1 - sample.t / 1000, states, mask).sample
    return squared_error(-answer, sample.noise - sample.x)


def normal_latents(latents: Tensor, config: Mapping[str, Any], autoencoder: Any) -> Tensor:
    """Each channel normalised by the statistics of the configuration."""
    mean, std = (torch.tensor(autoencoder.config[name]).view(-1, 1, 1) for name in _STATISTICS)
    return (latents - mean) / std


def flux2_latents(latents: Tensor, config: Mapping[str, Any], autoencoder: Any) -> Tensor:
    """Patches of 2×2, each channel normalised by the autoencoder's statistics."""
    patches = library("diffusers").Flux2KleinPipeline._patchify_latents(latents)
    norm = autoencoder.bn
    deviation = (norm.running_var + config["batch_norm_eps"]).sqrt()
    normal: Tensor = (patches - norm.running_mean[:, None, None]) / deviation[:, None, None]
    return normal


def plain_latents(latents: Tensor, config: Mapping[str, Any], _autoencoder: Any) -> Tensor:
    """The autoencoder's latents in the denoiser's units, for a published shift and scale."""
    shift, scale = float(config.get("shift_factor") or 0), float(config["scaling_factor"])
    return (latents - shift) * scale


def channel_latents(latents: Tensor, config: Mapping[str, Any], _autoencoder: Any) -> Tensor:
    """The autoencoder's latents in the denoiser's units, for statistics of each channel."""
    mean, std = (torch.tensor(config[f"latents_{name}"]) for name in ("mean", "std"))
    return (latents - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)


def packed_by_flux(latents: Tensor) -> Tensor:
    """(n, c, h, w) to (n, h/2 · w/2, 4c), by the function of FLUX.1's pipeline."""
    pack = library("diffusers").FluxPipeline._pack_latents
    packed: Tensor = pack(latents, *latents.shape)
    return packed


def side_by_side(read: Sequence[Tensor]) -> Tensor:
    """The towers' states joined along the features."""
    return torch.cat(list(read), dim=-1)


def clip_then_t5(read: Sequence[Tensor]) -> Tensor:
    """Those of SD3: two CLIP towers side by side, filled up with zeros, and T5 behind them."""
    clip = side_by_side(read[:2])
    wide: Tensor = torch.nn.functional.pad(clip, (0, read[2].shape[-1] - clip.shape[-1]))
    return torch.cat([wide, read[2]], dim=1)


def unchanged(latents: Tensor) -> Tensor:
    return latents


def in_rows(tokens: Tensor) -> Tensor:
    """A token for each place of a square, row by row, (n, h w, c) to (n, c, h, w)."""
    side = round(tokens.shape[1] ** 0.5)
    rows: Tensor = tokens.transpose(1, 2).unflatten(2, (side, side))
    return rows


def in_patches(tokens: Tensor) -> Tensor:
    """A token for each patch of 2×2, (n, h w / 4, 4 c) to (n, c, h, w)."""
    return torch.nn.functional.pixel_shuffle(in_rows(tokens), 2)


@dataclass(frozen=True)
class Launcher:
    """The settings of the launchers that Kim et al. (2026) published; by default SDXL's."""

    learning_rate: float = 0.01  # of directions; multiplied by batch and accumulation
    vector_rate: float = 5e-3  # of free vectors; multiplied too
    batch_size: int = 4
    accumulate: int = 1
    kappa: float = 1e-4
    weight_decay: float = 1e-2
    steps: int = 400
    resolution: int = 768


@dataclass(frozen=True)
class Family:
    """What the tests know of a pipeline family."""

    pipeline_class: str  # of diffusers
    build: Callable[[Path], None]  # writes a tiny seeded folder
    towers: tuple[str, ...]  # published text encoders, in the pipeline's order
    denoisers: tuple[str, ...]  # published sizes
    autoencoder: str
    loss: Callable[[Any, Sample], Tensor]  # as published, per sample
    # The autoencoder's latents in the denoiser's units, from its published config or its weights.
    latents: Callable[[Tensor, Mapping[str, Any], Any], Tensor] = plain_latents
    # A word of one token, and a prompt in which a learned token splits no other token.
    word: str = "cat"
    prompt: str = "red {} red"
    # Conditioning pooled at the largest id of a prompt, hence at the learned token.
    pooled_at_token: tuple[str, ...] = ()
    call_options: Mapping[str, Any] = field(default_factory=dict)  # of the pipeline's call
    # The states that the denoiser reads, from those of each tower.
    states: Callable[[Sequence[Tensor]], Tensor] = side_by_side
    # Latents as the sampler holds them, and what a denoiser answers whose prediction is a target;
    # None: one step of the pipeline's sampler does not return the image.
    sampled: Callable[[Tensor], Tensor] = field(default=lambda latents: latents)
    answer: Callable[[Tensor], Tensor] | None = None
    # None was published for Stable Diffusion 1.5 and 2.1: they take SDXL's at their own resolution.
    launcher: Launcher = Launcher()
    side: int = 64  # pixels that the tiny pipeline was trained at
    film: bool = False  # whether the autoencoder takes films; an image is one frame
    # Of a flow that has one: the shift of times for images of 1024 px.
    shift: float | None = None
    unguided: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    # What the pipeline's sampler steps on as (n, c, h, w), for images of 64 px.
    unpacked: Callable[[Tensor], Tensor] = unchanged
    # Published text encoders by denoiser, where not `towers`.
    other_towers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Parameters of a published text encoder that nothing reads.
    unread: Mapping[str, int] = field(default_factory=dict)

    def towers_of(self, denoiser: str) -> tuple[str, ...]:
        """The published text encoders beside a denoiser, in the pipeline's order."""
        return self.other_towers.get(denoiser, self.towers)


FAMILIES: dict[str, Family] = {
    "sd15": Family(
        pipeline_class="StableDiffusionPipeline",
        build=build_sd15,
        towers=("clip-vit-l-14-text",),
        denoisers=("sd15-unet",),
        autoencoder="sd-vae",
        loss=stable_diffusion_loss,
        launcher=Launcher(resolution=512),
    ),
    "sd21": Family(
        pipeline_class="StableDiffusionPipeline",
        build=build_sd21,
        towers=("openclip-vit-h-14-text",),
        denoisers=("sd21-base-unet",),
        autoencoder="sd-vae",
        loss=stable_diffusion_loss,
        launcher=Launcher(resolution=512),
    ),
    "sdxl": Family(
        pipeline_class="StableDiffusionXLPipeline",
        build=build_sdxl,
        towers=("clip-vit-l-14-text", "openclip-vit-bigg-14-text"),
        denoisers=("sdxl-unet",),
        autoencoder="sdxl-vae",
        loss=sdxl_loss,
        pooled_at_token=("pooled",),
    ),
    "sd35": Family(
        pipeline_class="StableDiffusion3Pipeline",
        build=build_sd35,
        towers=(
            "clip-vit-l-14-text-projection",
            "openclip-vit-bigg-14-text",
            "t5-v1_1-xxl-encoder",
        ),
        denoisers=("sd35-medium-transformer", "sd35-large-transformer"),
        autoencoder="sd35-vae",
        loss=sd35_loss,
        pooled_at_token=("pooled",),
        states=clip_then_t5,
        shift=3.0,
        answer=lambda target: target,
        launcher=Launcher(resolution=1024),
    ),
    "flux1": Family(
        pipeline_class="FluxPipeline",
        build=build_flux1,
        towers=("clip-vit-l-14-text", "t5-v1_1-xxl-encoder"),
        denoisers=("flux1-dev-transformer",),
        autoencoder="flux1-vae",
        loss=flux1_loss,
        pooled_at_token=("pooled",),
        states=lambda read: read[1],
        shift=math.exp(1.15),  # for 4096 tokens
        unpacked=in_patches,
        sampled=packed_by_flux,
        answer=packed_by_flux,
        side=1024,  # of the class: no configuration says it
        launcher=Launcher(resolution=1024),
    ),
    "chroma": Family(
        pipeline_class="ChromaPipeline",
        build=build_chroma,
        towers=("t5-v1_1-xxl-encoder",),
        denoisers=("chroma1-hd-transformer",),
        autoencoder="flux1-vae",
        loss=chroma_loss,
        shift=3.0,
        unpacked=in_patches,
        sampled=packed_by_flux,
        answer=packed_by_flux,
        side=1024,
        launcher=Launcher(resolution=1024),
    ),
    "pixart": Family(
        pipeline_class="PixArtSigmaPipeline",
        build=build_pixart,
        towers=("t5-v1_1-xxl-encoder",),
        denoisers=("pixart-sigma-1024-transformer",),
        autoencoder="sdxl-vae",
        loss=pixart_loss,
        answer=lambda target: torch.cat([target, torch.ones_like(target)], dim=1),
        call_options={"clean_caption": False, "use_resolution_binning": False},
        launcher=Launcher(resolution=1024),
    ),
    "wan": Family(
        pipeline_class="WanPipeline",
        build=build_wan,
        towers=("umt5-xxl-encoder",),
        denoisers=("wan21-t2v-1.3b-transformer",),
        autoencoder="wan21-vae",
        loss=wan_loss,
        latents=channel_latents,
        call_options={"num_frames": 1},
        shift=3.0,
        unguided={"guidance_scale": 1.0, "num_frames": 1},
        unpacked=lambda latents: latents.squeeze(2),
        sampled=lambda latents: latents.unsqueeze(2),
        answer=lambda target: target.unsqueeze(2),
        film=True,
        side=480,
        launcher=Launcher(resolution=480),
    ),
    "sana": Family(
        pipeline_class="SanaPipeline",
        build=build_sana,
        towers=("gemma-2-2b",),
        denoisers=("sana15-1.6b-transformer", "sana15-4.8b-transformer"),
        autoencoder="sana-dcae",
        loss=sana_loss,
        answer=lambda target: target,
        word="e",
        prompt="red{}",
        call_options={"use_resolution_binning": False},
        shift=3.0,
        unguided={"guidance_scale": 1.0, "use_resolution_binning": False},
        launcher=Launcher(
            batch_size=2, accumulate=2, kappa=5e-5, weight_decay=0.0, steps=500, resolution=1024
        ),
    ),
    "flux2-klein": Family(
        pipeline_class="Flux2KleinPipeline",
        build=build_flux2_klein,
        towers=("qwen3-4b",),
        denoisers=("flux2-klein-4b-transformer", "flux2-klein-9b-transformer"),
        autoencoder="flux2-vae",
        loss=flux2_klein_loss,
        latents=flux2_latents,
        word="e",
        prompt="red{}",
        launcher=Launcher(resolution=1024),
        side=1024,
        shift=math.exp(1.15),  # FLUX.1's for 4096 tokens
        unpacked=in_rows,
        other_towers={"flux2-klein-9b-transformer": ("qwen3-8b",)},
        # Nine of 36 blocks; Qwen3-8B has a head of its own, of 151,936 × 4,096.
        unread={"qwen3-4b": 908_377_344, "qwen3-8b": 9 * 192_946_432 + 151_936 * 4096},
    ),
    "z-image": Family(
        pipeline_class="ZImagePipeline",
        build=build_z_image,
        towers=("qwen3-4b-model",),
        denoisers=("z-image-transformer",),
        autoencoder="flux1-vae",
        loss=z_image_loss,
        word="e",
        prompt="red{}",
        launcher=Launcher(resolution=1024),
        side=1024,
        shift=6.0,
        unguided={"guidance_scale": 0.0},
        unread={"qwen3-4b-model": 100_930_816},
    ),
    "qwen-image": Family(
        pipeline_class="QwenImagePipeline",
        build=build_qwen_image,
        towers=("qwen2.5-vl-7b",),
        denoisers=("qwen-image-transformer",),
        autoencoder="qwen-image-vae",
        loss=qwen_image_loss,
        latents=normal_latents,
        word="e",
        prompt="red{}",
        call_options={"true_cfg_scale": 4.0, "negative_prompt": [" "] * 2, "guidance_scale": None},
        launcher=Launcher(resolution=1024),
        side=1024,
        film=True,
        shift=math.exp(0.5 + 0.4 * 3840 / 7936),  # 4096 tokens, between 256 and 8192
        unguided={"true_cfg_scale": 1.0},
        unpacked=in_patches,
        # The vision tower and the head.
        unread={"qwen2.5-vl-7b": 8_292_166_656 - 7_070_619_136},
    ),
    "lumina2": Family(
        pipeline_class="Lumina2Pipeline",
        build=build_lumina2,
        towers=("gemma-2-2b",),
        denoisers=("lumina-image-2-transformer",),
        autoencoder="flux1-vae",
        loss=lumina2_loss,
        word="e",
        prompt="red{}",
        launcher=Launcher(resolution=1024),
        shift=math.exp(1.15),
        unread={"gemma-2-2b": 77_865_984},
    ),
}
