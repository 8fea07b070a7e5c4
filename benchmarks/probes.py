"""What does each probe cost, at its default settings? Beside them, loading the encoder alone.

    python benchmarks/probes.py [--model mini] [--only attenuation …] [--json]

Without --model, a text tower of the size of CLIP ViT-L/14 (49408 × 768, 12 layers, float32) with seeded random weights
is made in a temporary place. Each probe runs in a process of its own; wall time, processor time and peak memory
(resident) are the process's, with loading.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "tests" / "data" / "published" / "clip-vit-l-14-text.json"
WAYS = ("load", "norms", "swap", "attenuation", "stagnation", "attention", "angles")
RUN = """
import sys, torch
from dti_geom import probes
from dti_geom.models import open_encoders

way, model = sys.argv[1:]
for encoder in open_encoders(model, dtype=torch.float32):
    encoder.blocks
    if way != "load":
        probes.run(encoder, [way])
"""
MAKE = """
import json, sys, torch, transformers

config, folder = sys.argv[1:]
facts = json.load(open(config))
cls = getattr(transformers, facts["cls"])
torch.manual_seed(0)
cls(cls.config_class(**facts["config"], architectures=[facts["cls"]])).save_pretrained(folder)
"""


def measure(command: list[str]) -> dict[str, float]:
    """Seconds, processor seconds and peak resident MiB of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    errors = process.stderr.read() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(errors)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="what `dti-geom --model` accepts")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as place:
        if arguments.model is None:
            subprocess.run(
                [sys.executable, "-c", MAKE, str(CONFIG), place],
                check=True,
                stderr=subprocess.DEVNULL,
            )
        for way in arguments.only:
            results[way] = measure([sys.executable, "-c", RUN, way, arguments.model or place])
            if not arguments.json:
                one = results[way]
                print(
                    f"{way:<12} {one['seconds']:7.1f} s {one['cpu_seconds']:7.1f} cpu s {one['peak_mib']:6.0f} MiB",
                    flush=True,
                )
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
