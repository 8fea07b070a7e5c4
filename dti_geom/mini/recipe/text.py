"""The text encoder, and the reading lesson that it gets before it is trained with the denoiser.

In the lesson it tells from the state at the end of a caption what the scene shows. That takes two
minutes. Afterwards it knows which thing "to the left of" puts on which side, while a contrastive
text encoder would have learned a bag of words.
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
    """Return an untrained pre-norm `CLIPTextModel`: 5 blocks, MAX_TOKENS learned positions."""
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
    """Return optimiser groups with weight decay for everything but the embedding tables.

    Decay would change the norms of the token table, which this project studies.
    """
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


def end_states(encoder: Any, ids: Tensor) -> Tensor:
    """Return the states (n, WIDTH) at the first end token of token ids (n, MAX_TOKENS)."""
    ends = (ids == encoder.config.eos_token_id).int().argmax(dim=1)
    states: Tensor = encoder(ids).last_hidden_state
    return states[torch.arange(len(ids), device=ids.device), ends]


def teach_reading(
    encoder: Any, ids: Tensor, answers: Tensor, folder: Path, steps: int, seed: int
) -> None:
    """Train the encoder in place, and save it to `folder`.

    ids: (n, MAX_TOKENS), captions. answers: (n, readings), class numbers that the captions give.
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
        truth = answers[chosen].to(device)
        with torch.autocast(device.type, torch.bfloat16):
            state = end_states(encoder, ids[chosen].to(device))
        logits = {name: head(state.float()) for name, head in heads.items()}
        errors = [
            functional.cross_entropy(logits[name], truth[:, i], ignore_index=IGNORED)
            for i, name in enumerate(READINGS)
        ]
        # "second" is the second reading. Its class 0 is "none", and IGNORED is below 0: what is
        # left are pairs whose caption names the sides.
        ordered = truth[:, 1] > 0
        right = (logits["first"].argmax(dim=1) == truth[:, 0])[ordered].float().mean()
        return {"loss": torch.stack(errors).sum(), "first_of_pair_right": right}

    training.run(losses)
    encoder.eval().save_pretrained(folder)
