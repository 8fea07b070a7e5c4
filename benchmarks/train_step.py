"""Measure the cost of a training step, of its lower bound, and of the loop of public examples.

    python benchmarks/train_step.py --model mini [--steps 15] [--batch-size 4]
        [--resolution R] [--dtype D] [--json]

floor      one forward pass of the denoiser and the backward pass to its conditioning, on fixed
           latents and a fixed conditioning, in the precision of our step
towers     forward and backward pass of the text encoders on a batch of prompts, which every
           learned token needs too
step       an update of `Trainer.updates()` at its defaults (DTI), without previews and files
textbook   the usual example script, in float32, its default: every step opens and encodes images,
           computes a gradient and an AdamW step for the whole enlarged token table, and restores
           the rows that should not have moved
textbook_same_precision   the same in mixed precision: denoiser and autoencoder in our step's
           precision, the text encoders under autocast; left out where that precision is float32

Times are medians of steps taken in turns in the same process, so that a busy moment affects all
alike. Processor time is more reliable on a shared machine, most of all with one thread. Peak
memories are of processes that do nothing else: resident on a CPU, allocated on a GPU.

--model: mini, sdxl-tiny (28 million parameters, 256 px), a pipeline folder, or full-sd15,
full-sdxl, full-sana-1.6b and others: published sizes with random weights, in bfloat16 on a CUDA
GPU, at 512, 768 and 1024 px. All train on pictures that ship with mini. These are small: opening
photographs would make the textbook loop slower.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flops import MODELS, tests_pipelines

# Heavy libraries are imported inside functions: the peak memory of a child process includes what
# its parent had in memory.

WAYS = ("floor", "towers", "step", "textbook", "textbook_same_precision")
TOKEN = "<bench>"
WARM_UP = 2  # steps before those that count
FULL = {f"full-{name}": facts for name, facts in MODELS.items()}  # with random weights


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="mini", help=f"mini, sdxl-tiny, {', '.join(FULL)} or a pipeline folder"
    )
    parser.add_argument("--steps", type=int, default=15, help="measured steps of each way")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--resolution", type=int, help="pixels of a side; default: the model's")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="default: the trainer's"
    )
    parser.add_argument("--device", help="default: cuda for full-*, else cpu")
    parser.add_argument("--threads", type=int, help="of torch; default: its own")
    parser.add_argument(
        "--compile", action="store_true", help="compile the denoiser of floor and step"
    )
    parser.add_argument("--word", help="one that is a single token of the model; default: dog")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--make", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument(
        "--only", nargs="+", choices=WAYS, help=argparse.SUPPRESS
    )  # in this process
    options = parser.parse_args()
    options.device = options.device or ("cuda" if options.model in FULL else "cpu")
    if options.make:
        make_tiny(Path(options.make))
    elif options.only:
        print(json.dumps(measure(options)))
    else:
        with tempfile.TemporaryDirectory() as place:
            report(in_processes(options, place), as_json=options.json)


def in_processes(options: argparse.Namespace, place: str) -> dict[str, Any]:
    """Measure times of all ways in one process, and the peak memory of each in its own process."""
    environment = dict(os.environ)
    if options.threads:
        environment["OMP_NUM_THREADS"] = str(options.threads)

    def run(*arguments: str) -> str:
        command = [sys.executable, __file__, *arguments]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(done.returncode)  # the child process has printed the reason
        return done.stdout

    if options.model == "sdxl-tiny":
        run("--make", place)
    given = [
        "--model", place if options.model == "sdxl-tiny" else options.model,
        "--batch-size", str(options.batch_size),
        "--device", options.device,
        *(["--resolution", str(options.resolution)] if options.resolution else []),
        *(["--dtype", options.dtype] if options.dtype else []),
        *(["--compile"] if options.compile else []),
        *(["--word", options.word] if options.word else []),
    ]  # fmt: skip
    measured: dict[str, Any] = json.loads(
        run(*given, "--steps", str(options.steps), "--only", *WAYS)
    )
    seconds, processor = measured.pop("seconds"), measured.pop("cpu_seconds")
    peaks = {
        way: json.loads(run(*given, "--steps", "1", "--only", way))["peak_mib"] for way in seconds
    }
    return measured | {
        "model": options.model,
        **{f"{way}_s": seconds.get(way) for way in WAYS},
        **{f"{way}_cpu_s": processor.get(way) for way in WAYS},
        "step_to_floor": seconds["step"] / seconds["floor"],
        "step_to_textbook": seconds["step"] / seconds["textbook"]
        if "textbook" in seconds
        else None,
        "peak_mib": peaks,
    }


def report(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=1))
        return
    print(
        "{model}, batch {batch_size}, {resolution} px, {dtype}, {device}, {threads} threads, "
        "torch {torch}; medians of {steps} steps".format(**result)
    )
    for way, peak in result["peak_mib"].items():
        seconds, processor = result[f"{way}_s"], result[f"{way}_cpu_s"]
        slower, costlier = seconds / result["floor_s"], processor / result["floor_cpu_s"]
        ratios = f"{slower:5.2f} × floor ({costlier:.2f} × of processor time)"
        print(f"{way:<24} {seconds:8.4f} s  {processor:8.4f} cpu s  {ratios}  {peak:6.0f} MiB")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure seconds of the ways in `options.only` and the peak memory of this process."""
    import torch

    from dti_geom.training.peak_memory import peak_memory

    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            f"--model {options.model} would run on cuda, and there is no GPU here; "
            "mini and sdxl-tiny run on a CPU."
        )
    steps = prepare(options)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # random weights were drawn in float32
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in steps}
    for _ in range(WARM_UP + options.steps):
        for way, step in steps.items():
            wall, processor = time.perf_counter(), time.process_time()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken[way].append((time.perf_counter() - wall, time.process_time() - processor))
    return {
        "seconds": {
            way: statistics.median(wall for wall, _ in pairs[WARM_UP:])
            for way, pairs in taken.items()
        },
        "cpu_seconds": {
            way: statistics.median(cpu for _, cpu in pairs[WARM_UP:])
            for way, pairs in taken.items()
        },
        "peak_mib": peak_memory(device) / 2**20,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "resolution": options.resolution,
        "dtype": options.dtype,
        "compile": options.compile,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def prepare(options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Return a step of each way in `options.only` that applies.

    Sets the options that were not given to the model's defaults.
    """
    import torch

    from dti_geom.models.pipelines import default_dtype, family_of, open_text_to_image
    from dti_geom.models.pipelines.stable_diffusion import StableDiffusion
    from dti_geom.models.pipelines.stable_diffusion_xl import StableDiffusionXL

    dtype = getattr(torch, options.dtype) if options.dtype else default_dtype(options.device)
    options.dtype = str(dtype).removeprefix("torch.")
    steps: dict[str, Callable[[], object]] = {}
    if {"floor", "towers", "step"} & set(options.only):
        if options.model in FULL:
            pipeline = full_pipeline(options.model, options.device, dtype)
            model = family_of(type(pipeline).__name__)(pipeline, options.model)
        else:
            model = open_text_to_image(options.model, device=options.device, dtype=dtype)
        options.resolution = options.resolution or side_of(options.model) or model.resolution
        if options.compile:
            model.denoiser = torch.compile(model.denoiser)
        if "floor" in options.only:
            steps["floor"] = floor(model, options)
        if "towers" in options.only:
            steps["towers"] = towers(model, options)
        if "step" in options.only:
            steps["step"] = our_step(model, options)
        if not isinstance(model, StableDiffusion | StableDiffusionXL):
            return steps  # no example script to compare with
    precisions = {"textbook": torch.float32, "textbook_same_precision": dtype}
    for way, precision in precisions.items():
        if way in options.only and not (
            way == "textbook_same_precision" and dtype == torch.float32
        ):
            steps[way] = textbook(options, precision)
    return steps


def floor(model: Any, options: argparse.Namespace) -> Callable[[], object]:
    """Return a forward and backward pass of the denoiser."""
    import torch

    from dti_geom.models.pipelines import View

    side, generator = options.resolution, torch.Generator().manual_seed(0)
    latent = model.encode_images(torch.zeros(1, 3, side, side)).mean
    noisy = torch.randn(options.batch_size, *latent.shape[1:], generator=generator).to(model.device)
    times = model.noising.draw_times([generator] * options.batch_size).to(model.device)
    prompts, view = (
        [f"a photo of a {word_of(options)}"] * options.batch_size,
        View((side, side), (0, 0), (side, side)),
    )
    with torch.no_grad():
        conditioning = model.encode_prompts(prompts, [view] * options.batch_size)
    learned = [value for name, value in conditioning.items() if name in ("states", "pooled")]

    def step() -> None:
        for value in learned:
            value.requires_grad_().grad = None
        model.predict(noisy, times, conditioning).square().mean().backward()

    return step


def towers(model: Any, options: argparse.Namespace) -> Callable[[], object]:
    """Return a forward and backward pass of the text encoders, up to a learned token."""
    from dti_geom.models.pipelines.base import View
    from dti_geom.models.templates import OBJECT_TEMPLATES

    rows = [
        tower.token_table[tower.vocabulary.rows(word_of(options))].float() for tower in model.towers
    ]
    vectors = [row.clone().requires_grad_() for row in rows]
    side = options.resolution
    prompts = [
        OBJECT_TEMPLATES[number % len(OBJECT_TEMPLATES)].replace("{}", TOKEN)
        for number in range(options.batch_size)
    ]
    views = [View((side, side), (0, 0), (side, side))] * options.batch_size

    def step() -> None:
        model.place(TOKEN, vectors)  # the trainer puts its own in place before each step
        conditioning = model.encode_prompts(prompts, views)
        sum(
            conditioning[name].float().square().mean()
            for name in ("states", "pooled")
            if name in conditioning
        ).backward()

    return step


def our_step(model: Any, options: argparse.Namespace) -> Callable[[], object]:
    """The trainer, as it comes."""
    from dti_geom.training import ConceptConfig, DataConfig, RunConfig, Trainer

    config = RunConfig(
        model=options.model,
        concepts=(ConceptConfig(TOKEN, str(pictures()), word_of(options)),),
        data=DataConfig(resolution=options.resolution),
        steps=WARM_UP + options.steps,
        batch_size=options.batch_size,
        device=options.device,
    )
    updates = Trainer(model, config).updates()
    model.rest_vae()
    return lambda: next(updates)


def textbook(options: argparse.Namespace, precision: Any) -> Callable[[], object]:
    """Textual inversion as example scripts for Stable Diffusion and SDXL teach it."""
    import diffusers
    import torch
    from torch.nn.functional import mse_loss

    from dti_geom.models.catalog import embedded_folder
    from dti_geom.models.loading import import_transformers, quiet
    from dti_geom.models.templates import OBJECT_TEMPLATES

    with quiet(import_transformers()), quiet(diffusers):
        if options.model in FULL:
            pipeline = full_pipeline(options.model, options.device, torch.float32)
        else:
            folder = embedded_folder() if options.model == "mini" else options.model
            pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32).to(
                options.device
            )
        unet, vae = (
            part.requires_grad_(False).to(precision) for part in (pipeline.unet, pipeline.vae)
        )
    scheduler = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
    towers = [
        (
            pipeline.components[name.replace("text_encoder", "tokenizer")],
            part.requires_grad_(False).train(),
        )
        for name, part in sorted(pipeline.components.items())
        if name.startswith("text_encoder") and part is not None
    ]
    tables, kept_rows = [], []
    for tokenizer, encoder in towers:
        tokenizer.add_tokens(TOKEN)
        rows = max(len(tokenizer), encoder.get_input_embeddings().num_embeddings + 1)
        table = encoder.resize_token_embeddings(rows, mean_resizing=False).weight.requires_grad_()
        ids = tokenizer.convert_tokens_to_ids([TOKEN, f"{word_of(options)}</w>"])
        table.data[ids[0]] = table.data[ids[1]]
        tables.append(table)
        kept_rows.append(torch.arange(rows, device=table.device) != ids[0])
    originals = [table.detach().clone() for table in tables]
    optimizer = torch.optim.AdamW(tables, lr=5e-4, weight_decay=1e-2)
    side = (
        options.resolution
        or side_of(options.model)
        or unet.config.sample_size * pipeline.vae_scale_factor
    )
    options.resolution = side
    paths = sorted(pictures().glob("*.png"))
    generator = torch.Generator().manual_seed(0)

    def choose(count: int) -> list[int]:
        return torch.randint(count, (options.batch_size,), generator=generator).tolist()

    def encode_text(prompts: list[str]) -> tuple[Any, dict[str, Any]]:
        """Return the states that the UNet attends to, and its additional conditions."""
        outputs = []
        with torch.autocast(
            torch.device(options.device).type, precision, enabled=precision != torch.float32
        ):
            for tokenizer, encoder in towers:
                ids = tokenizer(
                    prompts, padding="max_length", truncation=True, return_tensors="pt"
                ).input_ids
                outputs.append(encoder(ids.to(options.device), output_hidden_states=True))
        if len(towers) == 1:
            return outputs[0].last_hidden_state.to(precision), {}
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        time_ids = torch.tensor(
            [[side, side, 0, 0, side, side]] * options.batch_size, device=options.device
        )
        return states.to(precision), {
            "text_embeds": outputs[1].text_embeds.to(precision),
            "time_ids": time_ids.to(precision),
        }

    def step() -> None:
        pixels = torch.stack([opened(paths[number], side) for number in choose(len(paths))])
        prompts = [
            OBJECT_TEMPLATES[number].replace("{}", TOKEN)
            for number in choose(len(OBJECT_TEMPLATES))
        ]
        latents = (
            vae.encode(pixels.to(options.device, precision)).latent_dist.sample()
            * vae.config.scaling_factor
        )
        noise = torch.randn_like(latents)
        times = torch.randint(
            scheduler.config.num_train_timesteps, (len(latents),), device=options.device
        )
        states, added = encode_text(prompts)
        answer = unet(
            scheduler.add_noise(latents, noise, times), times, states, added_cond_kwargs=added
        ).sample
        velocity = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(latents, noise, times) if velocity else noise
        mse_loss(answer.float(), target.float()).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for table, original, kept in zip(tables, originals, kept_rows, strict=True):
                table[kept] = original[kept]

    return step


def opened(path: Path, side: int) -> Any:
    """(3, side, side) in [−1, 1]."""
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(path) as image:
        resized = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized, np.float32)).permute(2, 0, 1) / 127.5 - 1


def full_pipeline(model: str, device: str, dtype: Any) -> Any:
    """Return a pipeline of published size with random weights and the tests' tokenizers."""
    import torch
    from torch import nn

    from dti_geom.models.pipelines.blueprint import meta_model
    from dti_geom.models.sources import Folder

    facts = FULL[model]
    with tempfile.TemporaryDirectory() as place:
        tests_pipelines().published_folder(Path(place), facts.family, facts.denoiser)
        pipeline = meta_model(Folder(Path(place)), dtype).pipeline
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            of_transformers = type(part).__module__.startswith("transformers")
            build: Any = type(part) if of_transformers else type(part).from_config  # type: ignore[attr-defined]
            with torch.device(device):
                built = build(part.config).to(next(part.parameters()).dtype)
            pipeline.register_modules(**{name: built})
    return pipeline


def make_tiny(folder: Path) -> None:
    tests_pipelines().build_sdxl(folder, bench=True)


def pictures() -> Path:
    from dti_geom.models.catalog import profile_of

    return profile_of("mini").concepts()["round-teapot"].images


def side_of(model: str) -> int | None:
    """Return the pixels of a side that a model of published size is trained at."""
    return FULL[model].resolution if model in FULL else None


def word_of(options: argparse.Namespace) -> str:
    """Return a word that is a single token of the model."""
    word: str = options.word or ("teapot" if options.model == "mini" else "dog")
    return word


if __name__ == "__main__":
    main()
