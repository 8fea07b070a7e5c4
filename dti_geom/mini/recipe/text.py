"""The text encoder, and the reading lesson it gets before it ever meets the denoiser.

The lesson: from the state at the end of a caption, tell what the scene holds. It takes two minutes and gives the
denoiser a text encoder that already knows which side "to the left of" puts whom; a contrastive tower learns a bag of
words instead.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dti_geom.mini.recipe.labels import IGNORED, READINGS
from dti_geom.mini.recipe.loop import Schedule, Training
from dti_geom.mini.recipe.muon import muon_and_adam
from dti_geom.mini.recipe.tokenizer import MAX_TOKENS

WIDTH = 256
BATCH = 128
MUON_RATE = 0.02
ADAM_RATE = 1e-3


def new_text_encoder(tokenizer: CLIPTokenizer) -> Any:
    """An untrained pre-norm `CLIPTextModel`: 5 blocks, 24 learned positions."""
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 640,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "projection_dim": WIDTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "attn_implementation": "eager",
    }
    return CLIPTextModel(CLIPTextConfig(**settings))


def decay_groups(model: nn.Module, rate: float, decay: float = 1e-2) -> list[dict[str, Any]]:
    """Optimiser groups: weight decay for everything but the embedding tables, whose norms are a subject of study."""
    named = list(model.named_parameters())
    return [
        {
            "params": [p for name, p in named if "embedding" not in name],
            "lr": rate,
            "weight_decay": decay,
        },
        {
            "params": [p for name, p in named if "embedding" in name],
            "lr": rate,
            "weight_decay": 0.0,
        },
    ]


def teach_reading(
    encoder: Any, ids: Tensor, answers: Tensor, folder: Path, steps: int, seed: int
) -> None:
    """The lesson; leaves the encoder trained and saves it to `folder`.

    ids: (n, MAX_TOKENS); answers: (n, readings), class numbers as the caption tells them.
    """
    torch.manual_seed(seed)
    device = encoder.device
    heads = nn.ModuleDict(
        {name: nn.Linear(WIDTH, len(classes)) for name, classes in READINGS.items()}
    ).to(device)
    optimisers = muon_and_adam(encoder, MUON_RATE, ADAM_RATE)
    optimisers.append(torch.optim.AdamW(heads.parameters(), ADAM_RATE, fused=True))
    training = Training(
        folder, {"encoder": encoder, "heads": heads}, optimisers, Schedule(steps, warmup=40), seed
    )
    encoder.train()

    def losses(generator: torch.Generator) -> dict[str, Tensor]:
        chosen = torch.randint(len(ids), (BATCH,), generator=generator)
        wanted = answers[chosen].to(device)
        with torch.autocast(device.type, torch.bfloat16):
            state = encoder(ids[chosen].to(device)).pooler_output
        logits = {name: head(state.float()) for name, head in heads.items()}
        errors = [
            functional.cross_entropy(logits[name], wanted[:, i], ignore_index=IGNORED)
            for i, name in enumerate(READINGS)
        ]
        told = (
            wanted[:, 1] > 0
        )  # pairs whose sides are told; "second" is the second reading, its class 0 is "none"
        right = (logits["first"].argmax(dim=1) == wanted[:, 0])[told].float().mean()
        return {"loss": torch.stack(errors).sum(), "first_of_pair_right": right}

    training.run(losses)
    encoder.eval().save_pretrained(folder)
