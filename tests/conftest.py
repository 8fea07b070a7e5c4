"""Tiny seeded models in the exact layout the real ones are published in."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import (
    CAUSAL,
    FAMILIES,
    WORDS,
    clip_config,
    clip_tower,
    qwen_vl_config,
    seeded,
)

# No test asks the real Hub anything. Tests with a server of their own set it back.
os.environ["HF_HUB_OFFLINE"] = "1"

CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Start the Chromium on the path, or the one that DTI_GEOM_CHROMIUM names."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("DTI_GEOM_CHROMIUM") or next(
        filter(None, map(shutil.which, names)), None
    )
    if program is None:
        pytest.skip("no Chromium found: install one, or name it in DTI_GEOM_CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(CHROMIUM_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real embeddings and photographs, where the checkout has them beside it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def sd15_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 1.x: one CLIP tower; weights have transformers 4's prefix `text_model.`."""
    folder = tmp_path_factory.mktemp("sd15")
    _pipeline(
        folder, "StableDiffusionPipeline", text_encoder="CLIPTextModel", tokenizer="CLIPTokenizer"
    )
    clip_tower(folder, width=32, seed=1)
    return folder


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion XL: two CLIP towers of different width, the second with a projection."""
    folder = tmp_path_factory.mktemp("sdxl")
    _pipeline(
        folder,
        "StableDiffusionXLPipeline",
        text_encoder="CLIPTextModel",
        text_encoder_2="CLIPTextModelWithProjection",
        tokenizer="CLIPTokenizer",
        tokenizer_2="CLIPTokenizer",
    )
    clip_tower(folder, width=32, seed=1)
    clip_tower(folder, "_2", width=48, seed=2, projection=True)
    return folder


@pytest.fixture(scope="session")
def sana_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SANA 1.5: Gemma-2 in sharded bfloat16 safetensors, with a sentencepiece-like tokenizer."""
    import transformers

    folder = tmp_path_factory.mktemp("sana")
    _pipeline(folder, "SanaPipeline", text_encoder="Gemma2Model", tokenizer="GemmaTokenizerFast")
    _metaspace_tokenizer(folder / "tokenizer")
    config = transformers.Gemma2Config(**CAUSAL, head_dim=16, query_pre_attn_scalar=16)
    model = seeded(lambda: transformers.Gemma2Model(config), 3).to(torch.bfloat16)
    model.save_pretrained(folder / "text_encoder", max_shard_size="40KB")
    assert (folder / "text_encoder" / "model.safetensors.index.json").exists()
    return folder


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a whole pipeline that generates, by its name in `FAMILIES`."""

    @cache
    def built(name: str) -> Path:
        folder = tmp_path_factory.mktemp(f"{name}_pipeline")
        FAMILIES[name].build(folder)
        return folder

    return built


@pytest.fixture(scope="session")
def sd15_pipeline(pipeline_folder: Callable[[str], Path]) -> Path:
    """A whole Stable Diffusion 1.5 that generates."""
    return pipeline_folder("sd15")


@pytest.fixture(scope="session")
def sd21_pipeline(pipeline_folder: Callable[[str], Path]) -> Path:
    """A whole Stable Diffusion 2.1 that generates: v-prediction."""
    return pipeline_folder("sd21")


@pytest.fixture(scope="session")
def sdxl_pipeline(pipeline_folder: Callable[[str], Path]) -> Path:
    """A whole Stable Diffusion XL that generates."""
    return pipeline_folder("sdxl")


@pytest.fixture(scope="session")
def sana_pipeline(pipeline_folder: Callable[[str], Path]) -> Path:
    """A whole SANA 1.5 that generates: flow matching."""
    return pipeline_folder("sana")


@pytest.fixture(scope="session")
def single_encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per family whose encoders are published alone, without a tokenizer."""
    import transformers as tf

    t5: dict[str, Any] = {
        "vocab_size": 64,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
    }
    bert: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 20,
    }
    seeing: dict[str, Any] = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 32,
        "deepstack_visual_indexes": [0],
    }
    pixtral: dict[str, Any] = {
        "num_hidden_layers": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    builders: dict[str, Callable[[], torch.nn.Module]] = {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**CAUSAL)),
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**CAUSAL)),
        "qwen3": lambda: tf.Qwen3Model(tf.Qwen3Config(**CAUSAL, head_dim=8)),
        "smollm3": lambda: tf.SmolLM3ForCausalLM(tf.SmolLM3Config(**CAUSAL, pad_token_id=0)),
        "qwen2_5_vl": lambda: tf.Qwen2_5_VLForConditionalGeneration(
            tf.Qwen2_5_VLConfig(**qwen_vl_config(300))
        ),
        "qwen3_vl": lambda: tf.Qwen3VLForConditionalGeneration(
            tf.Qwen3VLConfig(text_config={**CAUSAL, "head_dim": 8}, vision_config=seeing)
        ),
        "mistral3": lambda: tf.Mistral3ForConditionalGeneration(
            tf.Mistral3Config(
                text_config={**CAUSAL, "model_type": "mistral", "head_dim": 8},
                vision_config={"model_type": "pixtral", **pixtral},
            )
        ),
        "t5": lambda: tf.T5EncoderModel(tf.T5Config(**t5)),
        "byt5": lambda: tf.T5EncoderModel(tf.T5Config(**{**t5, "vocab_size": 384})),
        "t5gemma": lambda: tf.T5GemmaForConditionalGeneration(_t5gemma_config()),
        "umt5": lambda: tf.UMT5EncoderModel(tf.UMT5Config(**t5)),
        "bert": lambda: tf.BertModel(tf.BertConfig(**bert)),
        "roberta": lambda: tf.RobertaModel(tf.RobertaConfig(**bert)),
        "clip": lambda: tf.CLIPModel(
            tf.CLIPConfig(
                text_config=clip_config(32),
                vision_config={
                    **clip_config(32),
                    "image_size": 8,
                    "patch_size": 4,
                    "projection_dim": 16,
                },
                projection_dim=16,
            )
        ),
    }
    folders: dict[str, Path] = {}
    for seed, (name, build) in enumerate(builders.items()):
        folders[name] = tmp_path_factory.mktemp(name)
        seeded(build, seed).save_pretrained(folders[name])
    return folders


def _t5gemma_config() -> Any:
    """Encoder and decoder of two blocks each, as published: both in one file."""
    import transformers as tf

    part = CAUSAL | {"head_dim": 16, "query_pre_attn_scalar": 16}
    return tf.T5GemmaConfig(encoder=part, decoder=part, vocab_size=CAUSAL["vocab_size"])


def _pipeline(folder: Path, kind: str, **parts: str) -> None:
    """Write model_index.json. It only names the image parts: nothing in geometry may open them."""
    index = {"_class_name": kind, "_diffusers_version": "0.35.0", "feature_extractor": [None, None]}
    index |= {part: ["transformers", name] for part, name in parts.items()}
    index |= {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    for part in ("unet", "vae"):
        (folder / part).mkdir()
        (folder / part / "diffusion_pytorch_model.safetensors").write_bytes(b"never to be opened")


def _metaspace_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "▁",
        *"abcdefghijklmnopqrstuvwxyz",
        *("▁" + word for word in WORDS),
        "cat",
    ]
    tokenizer = Tokenizer(
        models.Unigram([(piece, -len(pieces) + len(piece)) for piece in pieces], unk_id=3)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = {
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "bos_token": "<bos>",
        "unk_token": "<unk>",
    }
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
