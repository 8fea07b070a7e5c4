"""Tiny seeded image encoders in the published layout: config, preprocessor, safetensors."""

import json
import shutil
from pathlib import Path
from typing import Any

import transformers

from pipelines import clip_config, clip_tower, gemma_tokenizer, seeded

_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
_CLIP_MEAN, _CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def build_dinov2(folder: Path) -> Path:
    """As facebook/dinov2-base: the short side to 18, the middle 16 px cut out."""
    seeded(
        lambda: transformers.Dinov2Model(transformers.Dinov2Config(**_SIZES)), 1
    ).save_pretrained(folder)
    _write_preprocessor(
        folder,
        image_processor_type="BitImageProcessor",
        crop_size={"height": 16, "width": 16},
        do_center_crop=True,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        resample=3,
        size={"shortest_edge": 18},
    )
    return folder


def build_dino(folder: Path) -> Path:
    """As facebook/dino-vits16: no crop."""
    config = transformers.ViTConfig(**_SIZES)
    model = seeded(lambda: transformers.ViTModel(config, add_pooling_layer=False), 4)
    model.save_pretrained(folder)
    _write_preprocessor(
        folder,
        feature_extractor_type="ViTFeatureExtractor",
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        resample=3,
        size=16,
    )
    return folder


def build_clip(folder: Path) -> Path:
    """As openai/clip-vit-large-patch14, whose preprocessor writes its sizes as single numbers."""
    config = transformers.CLIPConfig(
        text_config=clip_config(32) | {"eos_token_id": 2}, vision_config=_SIZES, projection_dim=8
    )
    seeded(lambda: transformers.CLIPModel(config), 2).save_pretrained(folder)
    clip_tower(folder / "parts", width=32, seed=1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "parts" / "tokenizer")
    shutil.rmtree(folder / "parts")
    tokenizer.save_pretrained(folder)
    _write_preprocessor(
        folder,
        feature_extractor_type="CLIPFeatureExtractor",
        crop_size=16,
        do_center_crop=True,
        image_mean=_CLIP_MEAN,
        image_std=_CLIP_STD,
        resample=3,
        size=16,
    )
    return folder


def build_siglip(folder: Path) -> Path:
    """As siglip2-base-patch16-224: no crop, a Gemma tokenizer, a bias of the logit."""
    vocabulary = gemma_tokenizer(folder)
    text = {
        **clip_config(16),
        "vocab_size": vocabulary,
        "num_attention_heads": 2,
        "projection_size": 16,
    }
    config = transformers.SiglipConfig(text_config=text, vision_config=_SIZES)
    model = seeded(lambda: transformers.SiglipModel(config), 3)
    model.logit_bias.data.fill_(-1.5)  # untrained it is 0
    model.save_pretrained(folder)
    _write_preprocessor(
        folder,
        image_processor_type="SiglipImageProcessor",
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        resample=2,
        size={"height": 16, "width": 16},
    )
    return folder


def _write_preprocessor(folder: Path, **settings: object) -> None:
    flags = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "rescale_factor": 0.00392156862745098,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(flags | settings))
