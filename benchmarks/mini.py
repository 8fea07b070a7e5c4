"""How long the embedded model takes: one picture, and 400 training steps of one token at batch 4.

python benchmarks/mini.py
"""

import json
import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dti_geom.mini.recipe.autoencoder import encode
from dti_geom.mini.recipe.dataset import as_tensor
from dti_geom.mini.recipe.evaluate import seconds_for_one
from dti_geom.mini.recipe.export import SHIPPED
from dti_geom.mini.recipe.generate import open_pipeline

STEPS = 400
BATCH = 4
CONCEPT = "round-teapot"


class WithLearnedRow(nn.Module):
    """A frozen token table with one more row that learns."""

    def __init__(self, table: Tensor, start: Tensor) -> None:
        super().__init__()
        self.table = table
        self.learned = nn.Parameter(start.clone())

    def forward(self, ids: Tensor) -> Tensor:
        return torch.cat([self.table, self.learned[None]])[ids]


def seconds_for_training(pipeline: Any, steps: int = STEPS) -> float:
    """Wall time of a plain textual inversion of `steps` steps, everything but one row frozen."""
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
    paths = sorted((SHIPPED / "concepts" / CONCEPT).glob("*.png"))
    pictures = as_tensor(np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths]))
    latents = encode(pipeline.vae, pictures) * pipeline.vae.config.scaling_factor
    table = pipeline.text_encoder.get_input_embeddings().weight.detach()
    word = pipeline.tokenizer.convert_tokens_to_ids("teapot</w>")
    rows = WithLearnedRow(table, table[word])
    pipeline.text_encoder.set_input_embeddings(rows)
    ids = pipeline.tokenizer(
        "a photo of a teapot", padding="max_length", return_tensors="pt"
    ).input_ids
    ids[ids == word] = len(table)
    optimiser = torch.optim.AdamW([rows.learned], 0.02)
    scheduler = pipeline.scheduler
    started = time.perf_counter()
    for _ in range(steps):
        clean = latents[torch.randint(len(latents), (BATCH,))]
        levels = torch.randint(len(scheduler.alphas_cumprod), (BATCH,))
        noise = torch.randn_like(clean)
        states = pipeline.text_encoder(ids).last_hidden_state.expand(BATCH, -1, -1)
        found = pipeline.unet(scheduler.add_noise(clean, noise, levels), levels, states).sample
        (found - scheduler.get_velocity(clean, noise, levels)).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    return time.perf_counter() - started


def main() -> None:
    pipeline = open_pipeline(SHIPPED)
    result = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "one_image_seconds": round(seconds_for_one(pipeline), 3),
        "training_seconds": round(seconds_for_training(pipeline), 1),
        "training_steps": STEPS,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
