"""Let a denoiser read the text encoder's states without the final norm, as SDXL's does.

The embedded model's denoiser reads normalised states. Here its cross-attention learns to read the
states before the final norm, divided by their usual length so that its weights keep their scale. It
imitates the denoiser as it was: the same velocity for the same noisy latents and caption. Latents
come from the model's own pictures of its training captions. Nothing else changes. On such a model,
TI and DTI learn the test concepts as in dial.py.

python benchmarks/unnormed.py --work build/unnormed --stage adapt
python benchmarks/unnormed.py --work build/unnormed --stage train
python benchmarks/unnormed.py --work build/unnormed --stage paint
python benchmarks/unnormed.py --work build/unnormed --stage summary --out reports/dial/unnormed.json

All but the last resume. What was expected stands in reports/dial/README.md.
"""

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dial import COMPARED, DTI, RESCALED, TI
from experiments import (
    AT_ONCE,
    SCORES,
    Arms,
    correct,
    difference_lines,
    differences,
    heading,
    in_table,
    options_of,
    row_of,
    run_stage,
    write_summary,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dti_geom.files import atomic_path
from dti_geom.mini.recipe.captions import caption
from dti_geom.mini.recipe.dataset import as_tensor
from dti_geom.mini.recipe.denoiser import NOISE_LEVELS, UNCONDITIONAL
from dti_geom.mini.recipe.sampling import SceneSampler
from dti_geom.mini.scorer import shipped_scorer
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.training import MethodConfig

GAINS = (64, 1)
PICTURES = 1024
BATCH = 32
UPDATES = 400
RATE = 5e-4
READERS = (".attn2.to_k.", ".attn2.to_v.")  # of the denoiser: what reads the states
SCALE, ERRORS = "scale", "errors"


class Divided(nn.Module):
    """Stands in the place of a final norm and divides by a constant."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, states: Tensor) -> Tensor:
        return states / self.scale.to(states.dtype)


@dataclass(frozen=True)
class Lesson:
    """Captions and the latents of the model's own pictures of them, (n, 8, 16, 16)."""

    captions: list[str]
    latents: Tensor


def lesson(model: TextToImage, path: Path, pictures: int) -> Lesson:
    """Paint the captions of random training scenes, unless `path` holds their latents."""
    rng = np.random.default_rng(0)
    captions = [caption(scene, rng) for scene in SceneSampler(rng).draw_many(pictures)]
    if not path.exists():
        parts = []
        for first in range(0, pictures, AT_ONCE):
            part = captions[first : first + AT_ONCE]
            painted = model.generate(part, range(first, first + len(part)))
            pixels = as_tensor(np.stack([np.asarray(picture) for picture in painted]))
            parts.append(model.encode_images(pixels.to(model.vae.dtype)).mean.float())
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as beside:
            save_file({"latents": torch.cat(parts).contiguous()}, beside)
    return Lesson(captions, load_file(path)["latents"])


def usual_length(model: TextToImage, captions: Sequence[str]) -> Tensor:
    """Return how much longer states are before the final norm than after it, as a scalar.

    The median over the tokens of captions, but for the first: its length is another.
    """
    (tower,) = model.towers
    norm: Any = tower.module.final_layer_norm
    found: list[Tensor] = []
    hook = norm.register_forward_hook(
        lambda _module, inputs, output: found.append(inputs[0].norm(dim=-1) / output.norm(dim=-1))
    )
    with torch.no_grad():
        model.encode_text(list(captions))
    hook.remove()
    return torch.cat(found)[:, 1:].float().median()


def adapt(name: str, folder: Path, *, pictures: int = PICTURES, updates: int = UPDATES) -> None:
    """Let the denoiser of a model read states without the final norm; keep what changed."""
    path = folder / f"{name.replace(':', '-')}.safetensors"
    if path.exists():
        return
    model = open_text_to_image(name, dtype=torch.bfloat16)
    shown = lesson(model, folder / "lesson.safetensors", pictures)
    scale = usual_length(model, shown.captions[:256])
    with torch.no_grad():
        targets = torch.cat(
            [
                model.encode_text(shown.captions[first : first + 256])["states"]
                for first in range(0, len(shown.captions), 256)
            ]
        )
        empty_target = model.encode_text([""])["states"]
    teacher = deepcopy(model.denoiser)
    (tower,) = model.towers
    tower.module.final_layer_norm = Divided(scale)
    with torch.no_grad():
        states = torch.cat(
            [
                model.encode_text(shown.captions[first : first + 256])["states"]
                for first in range(0, len(shown.captions), 256)
            ]
        )
        empty = model.encode_text([""])["states"]
    learned = {
        name: parameter
        for name, parameter in model.denoiser.named_parameters()
        if any(reader in name for reader in READERS)
    }
    model.denoiser.float()
    for parameter in learned.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(learned.values(), RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    draw, errors, noising = torch.Generator().manual_seed(0), [], model.pipeline.scheduler
    start = time.process_time()
    for update in range(updates):
        chosen = torch.randint(len(shown.captions), (BATCH,), generator=draw)
        levels = torch.randint(NOISE_LEVELS, (BATCH,), generator=draw)
        noise = torch.randn((BATCH, *shown.latents.shape[1:]), generator=draw)
        unprompted = (torch.rand(BATCH, generator=draw) < UNCONDITIONAL)[:, None, None]
        noisy = noising.add_noise(shown.latents[chosen], noise, levels).bfloat16()
        with torch.no_grad():
            read = torch.where(unprompted, empty_target, targets[chosen])
            wanted = teacher(noisy, levels, read).sample.float()
        read = torch.where(unprompted, empty, states[chosen])
        with torch.autocast("cpu", torch.bfloat16):
            answer = model.denoiser(noisy.float(), levels, read.float()).sample.float()
        loss = (answer - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        errors.append(loss.item())
        if update % 50 == 49:
            print(f"{name}: update {update + 1}, error {np.mean(errors[-50:]):.5f}", flush=True)
    print(f"{name}: {time.process_time() - start:.0f} core-seconds", flush=True)
    kept = {name: parameter.detach().bfloat16() for name, parameter in learned.items()}
    with atomic_path(path) as beside:
        save_file(kept | {SCALE: scale, ERRORS: torch.tensor(errors)}, beside)


class UnnormedArms(Arms):
    """Arms on a model whose denoiser reads states without the final norm."""

    @property
    def model(self) -> TextToImage:
        """The open model with what `adapt` kept."""
        if self._model is None:
            changed = load_file(self.work / f"{self.name.replace(':', '-')}.safetensors")
            model = open_text_to_image(self.name, dtype=torch.bfloat16)
            (tower,) = model.towers
            tower.module.final_layer_norm = Divided(changed.pop(SCALE))
            del changed[ERRORS]
            parameters = dict(model.denoiser.named_parameters())
            with torch.no_grad():
                for name, value in changed.items():
                    parameters[name].copy_(value)
            self._model = model
        return self._model


def arms_at(work: Path, gain: float, steps: int | None = None) -> UnnormedArms:
    """Return what is trained and painted at a gain."""
    name = "mini" if gain == 1 else f"mini:gain={gain:g}"
    methods = {TI: MethodConfig("ti"), DTI: MethodConfig("dti")}
    return UnnormedArms(work, name, methods, {RESCALED: (TI, 1.0)}, steps=steps)


def summary(
    arms_by_gain: dict[float, UnnormedArms], concepts: Any, seeds: Sequence[int]
) -> dict[str, Any]:
    """Return scores by gain and variant, and their differences corrected over both gains."""
    scorer, rows, compared, cells = shipped_scorer(), [], [], []
    for gain, arms in sorted(arms_by_gain.items()):
        kept = load_file(arms.work / f"{arms.name.replace(':', '-')}.safetensors")
        found = [cell for seed in seeds for cell in arms.cells(concepts, seed, scorer)]
        cells += [{"gain": gain} | cell for cell in found]
        compared += [{"gain": gain} | row for row in differences(found, COMPARED)]
        variants = dict.fromkeys(cell["variant"] for cell in found)
        rows.append(
            {
                "gain": gain,
                "scale": float(kept[SCALE]),
                "error, first and last 50": [
                    float(kept[ERRORS][:50].mean()),
                    float(kept[ERRORS][-50:].mean()),
                ],
                "variants": {variant: row_of(found, variant) for variant in variants},
            }
        )
    correct(compared)
    return heading("unnormed.py", concepts, seeds) | {
        "gains": rows,
        "differences": compared,
        "cells": cells,
    }


def show(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of two tables in Markdown."""
    yield "| gain | shown | norm ÷ mean | " + " | ".join(SCORES) + " |"
    yield "|" + "---|" * (3 + len(SCORES))
    for row in found["gains"]:
        for variant, values in row["variants"].items():
            size = f"×{values['norm / mean']:.1f}"
            yield f"| {row['gain']:g} | {variant} | {size} | {in_table(values)} |"
    yield ""
    for row in found["gains"]:
        yield f"gain {row['gain']:g}:"
        yield from difference_lines(
            [tested for tested in found["differences"] if tested["gain"] == row["gain"]]
        )


def main() -> None:
    parser = options_of(__doc__, Path("build/unnormed"), first=("adapt",))
    parser.add_argument("--gains", type=float, nargs="+", default=list(GAINS))
    options = parser.parse_args()
    arms = {gain: arms_at(options.work, gain, options.steps) for gain in options.gains}
    if options.stage == "adapt":
        for model in arms.values():
            adapt(model.name, options.work)
    elif options.stage == "summary":
        found = summary(arms, options.concepts, options.seeds)
        write_summary(options.out, found)
        print("\n".join(show(found)))
    else:
        run_stage(options, list(arms.values()))


if __name__ == "__main__":
    main()
