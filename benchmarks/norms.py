"""Measure `dti-geom norms` on tables of published size, and loading the whole encoder.

    python benchmarks/norms.py [--runs 3] [--json]

Two encoder folders are made in a temporary place: CLIP ViT-L/14 (49408 × 768, float32, 0.5 GB) and
Gemma-2-2B (256000 × 2304, bfloat16, 5.2 GB). Token tables are random; every other tensor is zero,
which costs the same to load. Each way runs in its own process, whose wall time and peak resident
memory are measured.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "tests" / "data" / "published"
ENCODERS = {
    "49408x768": ("clip-vit-l-14-text", "float32"),
    "256000x2304": ("gemma-2-2b", "bfloat16"),
}
WHOLE_ENCODER = """
import sys, transformers, dti_geom.geometry
cls, folder = sys.argv[1:]
module = getattr(transformers, cls).from_pretrained(folder, dtype="auto")
print(dti_geom.geometry.summarize_norms(module.get_input_embeddings().weight.detach()))
"""


def make_encoder(folder: Path, config_name: str, dtype_name: str) -> None:
    """Write an encoder of published size."""
    import torch
    import transformers
    from safetensors.torch import save_file

    facts = json.loads((CONFIGS / f"{config_name}.json").read_text())
    cls = getattr(transformers, facts["cls"])
    config = cls.config_class(**facts["config"], architectures=[facts["cls"]], dtype=dtype_name)
    config.save_pretrained(folder)
    with torch.device("meta"):
        state = cls(config).state_dict()
    tensors = {
        name: torch.zeros(value.shape, dtype=getattr(torch, dtype_name))
        for name, value in state.items()
    }
    table = next(
        name for name in tensors if name.endswith(("token_embedding.weight", "embed_tokens.weight"))
    )
    tensors[table].normal_(std=0.014, generator=torch.Generator().manual_seed(0))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident MiB of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {command}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--make", nargs=3, metavar=("FOLDER", "CONFIG", "DTYPE"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.make:
        make_encoder(Path(arguments.make[0]), *arguments.make[1:])
        return
    results = {}
    for size, (config_name, dtype_name) in ENCODERS.items():
        with tempfile.TemporaryDirectory() as place:
            # In its own process: the peak memory of a child process includes what its parent had
            # in memory, which must stay small.
            subprocess.run(
                [sys.executable, __file__, "--make", place, config_name, dtype_name], check=True
            )
            cls = json.loads((CONFIGS / f"{config_name}.json").read_text())["cls"]
            ways = {
                "norms": [
                    sys.executable,
                    "-m",
                    "dti_geom_cli",
                    "norms",
                    "--model",
                    place,
                    "--json",
                ],
                "whole_encoder": [sys.executable, "-c", WHOLE_ENCODER, cls, place],
                "import_torch": [sys.executable, "-c", "import torch"],
            }
            runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _ in range(arguments.runs):
                for name, command in ways.items():
                    runs[name].append(measure(command))
            results[size] = {
                name: {
                    "seconds": round(statistics.median(seconds for seconds, _ in pairs), 3),
                    "peak_mib": round(statistics.median(peak for _, peak in pairs)),
                }
                for name, pairs in runs.items()
            }
    if arguments.json:
        print(json.dumps(results))
        return
    for size, ways_measured in results.items():
        for name, cost in ways_measured.items():
            print(f"{size:>12}  {name:<14} {cost['seconds']:7.2f} s  {cost['peak_mib']:6.0f} MiB")


if __name__ == "__main__":
    main()
