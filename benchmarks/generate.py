"""Measure pictures per second of `paint_pictures`, and of the diffusers pipeline per prompt.

    python benchmarks/generate.py [--model mini] [--pictures 16] [--runs 3] [--json]

painted    `paint_pictures` at its defaults but in float32: in batches, PNG files and index written
one        `pipeline(prompt, generator=…)` for each picture in float32, at the same steps and
           guidance, PNG files written
default    `paint_pictures` at its defaults: the precision that the device multiplies fastest

Times are medians of runs taken in turns in the same process. Processor time is more reliable on a
shared machine. Peak memories are of processes that do nothing else.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Heavy libraries are imported inside functions: the peak memory of a child process includes what
# its parent had in memory.

WAYS = ("painted", "one", "default")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mini", help="a name or pipeline folder")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--only", nargs="+", choices=WAYS, help=argparse.SUPPRESS
    )  # in this process
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options)))
        return
    result = child(options, *WAYS)
    result["peak_mib"] = {way: child(options, way, runs=1)["peak_mib"] for way in WAYS}
    result["speedup"] = result["seconds"]["one"] / result["seconds"]["painted"]
    if options.json:
        print(json.dumps(result, indent=1))
        return
    settings = "{pictures} pictures, {steps} steps, {size} px, {threads} threads".format(**result)
    print(f"{result['model']}, {settings}, torch {result['torch']}")
    for way in WAYS:
        seconds, processor = result["seconds"][way], result["cpu_seconds"][way]
        faster = result["seconds"]["one"] / seconds
        cheaper = result["cpu_seconds"]["one"] / processor
        print(
            f"{way:<8} {options.pictures / seconds:7.2f} pictures/s  "
            f"{processor / options.pictures:7.3f} cpu s each  "
            f"{faster:5.2f} × one ({cheaper:.2f} × of processor time)  "
            f"{result['peak_mib'][way]:6.0f} MiB"
        )


def child(options: argparse.Namespace, *ways: str, runs: int | None = None) -> dict[str, Any]:
    """Measure these ways in a separate process."""
    given = (
        "--model",
        options.model,
        "--pictures",
        str(options.pictures),
        "--runs",
        str(runs or options.runs),
    )
    done = subprocess.run(
        [sys.executable, __file__, *given, "--only", *ways],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    if done.returncode:
        raise SystemExit(done.returncode)  # the child process has printed the reason
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from dti_geom.evaluation import paint_pictures
    from dti_geom.models.pipelines import open_text_to_image

    ways = list(options.only)
    models = {}
    for way in ways:
        dtype = None if way == "default" else torch.float32
        models[way] = open_text_to_image(options.model, dtype=dtype)
    things = ("fox", "frog", "whale", "rocket", "apple", "car", "owl", "panda")
    prompts = [f"a photo of a {things[number % len(things)]}" for number in range(options.pictures)]
    half = list(dict.fromkeys(prompts))
    seeds = range(options.pictures // len(half))
    first = models[ways[0]]

    def paint(way: str, folder: str) -> None:
        paint_pictures(models[way], half, seeds, folder)

    def one_at_a_time(way: str, folder: str) -> None:
        model = models[way]
        for number, (prompt, seed) in enumerate(
            (prompt, seed) for prompt in half for seed in seeds
        ):
            result = model.pipeline(
                prompt,
                num_inference_steps=model.sampling_steps,
                guidance_scale=model.guidance,
                generator=torch.Generator().manual_seed(seed),
            )
            result.images[0].save(Path(folder) / f"{number}.png")

    work: dict[str, Callable[[str, str], None]] = {
        "painted": paint,
        "one": one_at_a_time,
        "default": paint,
    }
    for way in ways:  # the first call chooses kernels, which takes time
        models[way].generate([prompts[0]], [0], steps=1)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    processor: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.runs):
        for way in ways:
            with tempfile.TemporaryDirectory() as folder:
                started, cpu = time.perf_counter(), time.process_time()
                work[way](way, folder)
                seconds[way].append(time.perf_counter() - started)
                processor[way].append(time.process_time() - cpu)
    return {
        "model": options.model,
        "pictures": len(half) * len(seeds),
        "steps": first.sampling_steps,
        "size": first.resolution,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "seconds": {way: statistics.median(times) for way, times in seconds.items()},
        "cpu_seconds": {way: statistics.median(times) for way, times in processor.items()},
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
