"""Tiny seeded models in the exact layout the real ones are published in."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the real Hub anything; those with a server of their own say so

WORDS = ("cat", "dog", "house", "red", "phone")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real embeddings and photographs, where the checkout has them beside it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def sd15_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 1.x: one CLIP tower, weights under the `text_model.` prefix of transformers 4."""
    folder = tmp_path_factory.mktemp("sd15")
    _pipeline(folder, "StableDiffusionPipeline", text_encoder="CLIPTextModel", tokenizer="CLIPTokenizer")
    _clip_tower(folder, "", width=32, seed=1)
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
    _clip_tower(folder, "", width=32, seed=1)
    _clip_tower(folder, "_2", width=48, seed=2, projection=True)
    return folder


@pytest.fixture(scope="session")
def sana_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SANA 1.5: Gemma-2 in sharded bfloat16 safetensors, with a sentencepiece-like tokenizer."""
    import transformers

    folder = tmp_path_factory.mktemp("sana")
    _pipeline(folder, "SanaPipeline", text_encoder="Gemma2Model", tokenizer="GemmaTokenizerFast")
    _metaspace_tokenizer(folder / "tokenizer")
    config = transformers.Gemma2Config(**_CAUSAL, head_dim=16, query_pre_attn_scalar=16)
    model = _seeded(lambda: transformers.Gemma2Model(config), 3).to(torch.bfloat16)
    model.save_pretrained(folder / "text_encoder", max_shard_size="40KB")
    assert (folder / "text_encoder" / "model.safetensors.index.json").exists()
    return folder


@pytest.fixture(scope="session")
def single_encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per family whose encoders are published alone, without a tokenizer."""
    import transformers as tf

    t5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    bert = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 20,
    }
    builders: dict[str, Callable[[], torch.nn.Module]] = {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**_CAUSAL)),
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**_CAUSAL)),
        "qwen3": lambda: tf.Qwen3Model(tf.Qwen3Config(**_CAUSAL, head_dim=8)),
        "t5": lambda: tf.T5EncoderModel(tf.T5Config(**t5)),
        "umt5": lambda: tf.UMT5EncoderModel(tf.UMT5Config(**t5)),
        "bert": lambda: tf.BertModel(tf.BertConfig(**bert)),
        "roberta": lambda: tf.RobertaModel(tf.RobertaConfig(**bert)),
        "clip": lambda: tf.CLIPModel(
            tf.CLIPConfig(
                text_config=_clip_config(32),
                vision_config={**_clip_config(32), "image_size": 8, "patch_size": 4, "projection_dim": 16},
                projection_dim=16,
            )
        ),
    }
    folders = {}
    for seed, (name, build) in enumerate(builders.items()):
        folders[name] = tmp_path_factory.mktemp(name)
        _seeded(build, seed).save_pretrained(folders[name])
    return folders


_CAUSAL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
}


def _seeded(build: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build().eval()


def _pipeline(folder: Path, kind: str, **parts: str) -> None:
    """model_index.json; the image parts are there in name only, since nothing in geometry may open them."""
    index = {"_class_name": kind, "_diffusers_version": "0.35.0", "feature_extractor": [None, None]}
    index |= {part: ["transformers", name] for part, name in parts.items()}
    index |= {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    for part in ("unet", "vae"):
        (folder / part).mkdir()
        (folder / part / "diffusion_pytorch_model.safetensors").write_bytes(b"never to be opened")


def _clip_config(width: int) -> dict[str, int]:
    return {
        "vocab_size": len(_clip_vocabulary()),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 12,
    }


def _clip_tower(folder: Path, suffix: str, *, width: int, seed: int, projection: bool = False) -> None:
    import transformers

    last = len(_clip_vocabulary()) - 1
    config = transformers.CLIPTextConfig(
        **_clip_config(width), projection_dim=width, bos_token_id=last - 1, eos_token_id=last, pad_token_id=last
    )
    cls = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    model = _seeded(lambda: cls(config), seed)
    encoder = folder / f"text_encoder{suffix}"
    config.architectures = [cls.__name__]
    config.save_pretrained(encoder)
    state = model.state_dict()
    if not projection:
        state = {f"text_model.{name}": value for name, value in state.items()}
    save_file(
        {name: value.contiguous() for name, value in state.items()}, encoder / "model.safetensors", {"format": "pt"}
    )
    tokenizer = folder / f"tokenizer{suffix}"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({token: row for row, token in enumerate(_clip_vocabulary())}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n" + "\n".join(_clip_merges()) + "\n")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>",
                "model_max_length": 12,
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
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [256 + place for place in range(256 - len(printable))]
    letters = [chr(code) for code in printable + others]
    merged = [merge.replace(" ", "") for merge in _clip_merges()]
    return [*letters, *(f"{letter}</w>" for letter in letters), *merged, "<|startoftext|>", "<|endoftext|>"]


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
    tokenizer = Tokenizer(models.Unigram([(piece, -len(pieces) + len(piece)) for piece in pieces], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
