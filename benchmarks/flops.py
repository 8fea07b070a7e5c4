"""Count the floating-point operations of a training step, of its lower bound and of public loops.

    python benchmarks/flops.py [--model sd15 …] [--batch-size 4] [--json]

step       the trainer's objective, forward and backward to a token's vectors, as `dti-geom train`
           runs it at its defaults
floor      the text encoders on the tokens of the prompts, and the denoiser on fixed latents and the
           conditioning: forward, and backward to what the token changes. No other work.
textbook   diffusers' scripts for textual inversion (Stable Diffusion, SDXL): weights are frozen as
           in the floor, images are encoded at every step, and the gradient reaches the whole token
           table, which costs memory and no products. SANA has no such script: every step encodes
           images, and the pipeline's own conditioning with the instruction and all padding

Models have their published sizes and no numbers (torch's meta device). A multiply and an add count
as two operations; only products count (matrices, convolutions, attention). Tokenizers are the
tests' stand-ins: SANA's reads the instruction as 295 tokens, Gemma's own as about 190.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

TESTS = Path(__file__).parents[1] / "tests"
TOKEN = "<x>"


class Published(NamedTuple):
    """A model of the table."""

    family: str  # of the tests' facts
    denoiser: str
    resolution: int


MODELS = {
    "sd15": Published("sd15", "sd15-unet", 512),
    "sd21": Published("sd21", "sd21-base-unet", 768),
    "sdxl": Published("sdxl", "sdxl-unet", 768),
    "sana-1.6b": Published("sana", "sana15-1.6b-transformer", 1024),
    "sana-4.8b": Published("sana", "sana15-4.8b-transformer", 1024),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows = []
    for name in options.model:
        facts = MODELS[name]
        with tempfile.TemporaryDirectory() as place:
            tests_pipelines().published_folder(Path(place), facts.family, facts.denoiser)
            counted = count(place, facts.resolution, options.batch_size)
        rows.append({"model": name, **counted})
    if options.json:
        print(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1))
    else:
        print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the counts as a Markdown table, in 10¹² operations."""
    lines = [
        "| model | px | step | floor | textbook | step / floor | textbook / step |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        step, floor, textbook = (row[way] / 1e12 for way in ("step", "floor", "textbook"))
        lines.append(
            f"| {row['model']} | {row['resolution']} | {step:.2f} | {floor:.2f} | {textbook:.2f} | "
            f"{step / floor:.3f} | {textbook / step:.2f} |"
        )
    return "\n".join(lines)


def count(folder: str, resolution: int, batch_size: int) -> dict[str, Any]:
    """Count the operations of each way for the model in a folder; its weights are not read."""
    from dti_geom.models.metering import flops_of
    from dti_geom.models.pipelines.blueprint import meta_model
    from dti_geom.models.sources import Folder

    model = meta_model(Folder(Path(folder)), torch.bfloat16)
    return {
        "resolution": resolution,
        "batch_size": batch_size,
        "step": estimate(folder, resolution, batch_size).flops,
        "floor": flops_of(floor(model, resolution, batch_size)),
        "textbook": flops_of(textbook(model, resolution, batch_size)),
    }


def estimate(folder: str, resolution: int, batch_size: int) -> Any:
    """Return memory and operations of the trainer's update, as `dti-geom train --dry-run` does."""
    from dti_geom.models.catalog import profile_of
    from dti_geom.models.pipelines.blueprint import meta_model
    from dti_geom.models.sources import Folder
    from dti_geom.training import ConceptConfig, DataConfig, RunConfig
    from dti_geom.training.estimates import estimate_memory
    from dti_geom.training.trainer import with_defaults

    model = meta_model(Folder(Path(folder)), torch.bfloat16)
    images = str(profile_of("mini").concepts()["round-teapot"].images)
    config = RunConfig(
        model=model.name,
        concepts=(ConceptConfig(TOKEN, images, "dog", vectors=1),),
        data=DataConfig(resolution=resolution),
        batch_size=batch_size,
    )
    return estimate_memory(model, with_defaults(config, model), "fast")


def floor(model: Any, resolution: int, batch_size: int) -> Callable[[], None]:
    """Return the modules' own forward and backward passes, with nothing around them."""
    conditioning = conditioning_of(model, resolution, batch_size)
    learned = [
        conditioning[name].detach().requires_grad_()
        for name in ("states", "pooled")
        if name in conditioning
    ]
    given = conditioning | dict(zip(("states", "pooled"), learned, strict=False))
    noisy, times = noise(model, resolution, batch_size)
    # SANA reads its begin token and its instruction once for all steps.
    places = given["states"].shape[1] - (1 if model.instruction else 0)
    ids = torch.zeros(batch_size, places, dtype=torch.long, device="meta")

    def run() -> None:
        for tower in model.towers:
            lookup = tower.module.get_input_embeddings()
            hook = lookup.register_forward_hook(lambda _m, _i, out: out.detach().requires_grad_())
            states = tower.module(ids, output_hidden_states=True)
            hook.remove()
            outputs_of(model, states).backward()
        model.predict(noisy, times, given).sum().backward()

    return run


def outputs_of(model: Any, states: Any) -> Tensor:
    """Return the sum of what the denoiser reads of a tower's output."""
    from dti_geom.models.pipelines.stable_diffusion_xl import StableDiffusionXL

    if not isinstance(model, StableDiffusionXL):
        return states.last_hidden_state.sum()  # type: ignore[no-any-return]
    read: Tensor = states.hidden_states[-2].sum()
    return read + states.text_embeds.sum() if "text_embeds" in states else read


def textbook(model: Any, resolution: int, batch_size: int) -> Callable[[], None]:
    """Return a step of the loop of public scripts."""
    conditioning_of(model, resolution, batch_size)  # places the token
    prompts = prompts_of(batch_size)
    noisy, times = noise(model, resolution, batch_size)
    pixels = torch.empty(batch_size, 3, resolution, resolution, device="meta")

    def run() -> None:
        with torch.no_grad():
            model.vae.encode(pixels.to(model.vae.dtype))
        if model.instruction:
            instruction = model.instruction_lines()
            states, mask, _, _ = model.pipeline.encode_prompt(
                prompts,
                do_classifier_free_guidance=False,
                device=model.device,
                complex_human_instruction=instruction,
            )
            conditioning = {"states": states, "mask": mask}
        else:
            conditioning = model.encode_prompts(prompts, views(resolution, batch_size))
        model.predict(noisy, times, conditioning).sum().backward()

    return run


def conditioning_of(model: Any, resolution: int, batch_size: int) -> dict[str, Tensor]:
    """Place a token without numbers in the model, and return the conditioning of a batch."""
    widths = [tower.token_table.shape[1] for tower in model.towers]
    rows = [torch.empty(1, width, device="meta").requires_grad_() for width in widths]
    model.place(TOKEN, rows)
    return model.encode_prompts(prompts_of(batch_size), views(resolution, batch_size))  # type: ignore[no-any-return]


def noise(model: Any, resolution: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return noisy latents and times without numbers."""
    pixels = torch.empty(1, 3, resolution, resolution, device="meta")
    shape = model.encode_images(pixels).mean.shape[1:]
    return torch.empty(batch_size, *shape, device="meta"), torch.zeros(batch_size, device="meta")


def prompts_of(batch_size: int) -> list[str]:
    """Return the first prompts that a run trains on."""
    from dti_geom.models.templates import TEMPLATES

    return [template.replace("{}", TOKEN) for template in TEMPLATES["object"][:batch_size]]


def views(resolution: int, batch_size: int) -> list[Any]:
    """Return whole images."""
    from dti_geom.models.pipelines import View

    side = (resolution, resolution)
    return [View(side, (0, 0), side)] * batch_size


def tests_pipelines() -> Any:
    """Return the tests' builders of pipelines."""
    sys.path.insert(0, str(TESTS))
    import pipelines

    return pipelines


if __name__ == "__main__":
    main()
