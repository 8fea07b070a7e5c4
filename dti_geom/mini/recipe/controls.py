"""Control towers: mini's text encoder with one property of its architecture changed.

Each control gets the reading lesson of `text.py`: the same captions, answers, steps, rates and
seed. No picture is painted and no denoiser trained, so the towers compare with each other and not
with the shipped encoder. Their weights are not shipped.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import BertConfig, BertModel, CLIPTokenizer, Qwen3Config, Qwen3Model

from dti_geom.mini.recipe.captions import caption
from dti_geom.mini.recipe.dataset import CAPTIONS_PER_SCENE
from dti_geom.mini.recipe.export import SHIPPED
from dti_geom.mini.recipe.labels import labels_in_caption
from dti_geom.mini.recipe.sampling import SceneSampler
from dti_geom.mini.recipe.text import WIDTH, new_text_encoder, teach_reading
from dti_geom.mini.recipe.tokenizer import (
    MAX_TOKENS,
    encode_captions,
    encode_in_pieces,
    load_tokenizer,
)

BLOCKS, HEADS = 5, 4  # of mini's encoder


def _rotary_settings(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 432,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": WIDTH // HEADS,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,  # a padding row would stay zero, and the end token pads here
        "use_cache": False,
        "attn_implementation": "eager",
    }


def new_rotary_encoder(tokenizer: CLIPTokenizer) -> Any:
    """Return an untrained `Qwen3Model`: rotary positions, RMSNorm and a gated MLP.

    Width, blocks and heads are those of mini's encoder. The MLP is narrower, since a gated one has
    three matrices in place of two. Both token tables start at norm 0.32.
    """
    return Qwen3Model(Qwen3Config(**_rotary_settings(tokenizer)))


def new_post_norm_encoder(tokenizer: CLIPTokenizer) -> Any:
    """Return an untrained causal `BertModel`: e + p is normalised, then the state after each block.

    Otherwise as mini's encoder, with learned positions.
    """
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 640,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": MAX_TOKENS,
        "type_vocab_size": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        "is_decoder": True,  # a token sees those before it, as in the other towers
        "use_cache": False,
        "attn_implementation": "eager",
    }
    return BertModel(BertConfig(**settings), add_pooling_layer=False)


class UnitNormConfig(Qwen3Config):
    """A type of its own, so that nothing opens such a tower as a Qwen3."""

    model_type = "unit_norm_control"


class UnitNormBlock(nn.Module):
    """A block whose states have length 1: h ← u(h + α (u(f(h)) − h)), u(x) = x/‖x‖.

    As nGPT (Loshchilov et al. 2024, equations 10 and 11), without its normalised weights.
    """

    def __init__(self, block: Any) -> None:
        """Take attention and MLP of a block of Qwen3; leave its norms."""
        super().__init__()
        self.self_attn, self.mlp = block.self_attn, block.mlp
        self.steps = nn.Parameter(torch.full((2 * WIDTH,), 1 / BLOCKS))  # α of both

    def forward(self, hidden_states: Tensor, **settings: Any) -> Tensor:
        """Return the next state, (n, L, d)."""
        attention, mlp = self.steps.chunk(2)
        state = normalize(hidden_states, dim=-1)
        update = self.self_attn(hidden_states=state, **settings)[0]
        state = _stepped(state, update, attention)
        return _stepped(state, self.mlp(state), mlp)


def _stepped(state: Tensor, update: Tensor, step: Tensor) -> Tensor:
    return normalize(state + step * (normalize(update, dim=-1) - state), dim=-1)


def new_unit_norm_encoder(tokenizer: CLIPTokenizer) -> Any:
    """Return an untrained rotary encoder whose states have length 1, from the token's row on."""
    encoder = Qwen3Model(UnitNormConfig(**_rotary_settings(tokenizer)))
    encoder.layers = nn.ModuleList(UnitNormBlock(block) for block in encoder.layers)
    return encoder


TOWERS: dict[str, Callable[[CLIPTokenizer], Any]] = {
    "absolute": new_text_encoder,
    "rotary": new_rotary_encoder,
    "post-norm": new_post_norm_encoder,
    "unit-norm": new_unit_norm_encoder,
}


def lesson(
    tokenizer: CLIPTokenizer, scenes: int, in_pieces: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Return captions and answers of random scenes, which are not painted.

    in_pieces: share of captions whose words are split into pieces. Returns token ids
    (n, MAX_TOKENS) and class numbers (n, readings), with CAPTIONS_PER_SCENE captions a scene.
    """
    words = np.random.default_rng(seed)
    texts: list[str] = []
    answers: list[list[int]] = []
    for scene in SceneSampler(np.random.default_rng(seed)).draw_many(scenes):
        for _ in range(CAPTIONS_PER_SCENE):
            text = caption(scene, words)
            texts.append(text)
            answers.append(list(labels_in_caption(scene, text).values()))
    ids = np.array(encode_captions(tokenizer, texts))
    rng = np.random.default_rng(seed)
    broken = rng.choice(len(texts), int(in_pieces * len(texts)), replace=False)
    if len(broken):
        ids[broken] = encode_in_pieces(tokenizer, [texts[i] for i in broken], rng)
    return torch.from_numpy(ids), torch.tensor(answers)


def train_controls(
    folder: Path, towers: list[str], *, scenes: int, in_pieces: float, steps: int, seed: int
) -> None:
    """Train these towers; write each with the tokenizer of mini to a folder of its name."""
    tokenizer = load_tokenizer(SHIPPED / "tokenizer")
    ids, answers = lesson(tokenizer, scenes, in_pieces, seed)
    for name in towers:
        torch.manual_seed(seed)
        encoder = TOWERS[name](tokenizer)
        teach_reading(encoder, ids, answers, folder / name, steps, seed)
        tokenizer.save_pretrained(folder / name)
