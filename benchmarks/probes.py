"""Measure what each registered probe costs, at its default settings, and loading the encoder.

    python benchmarks/probes.py [--model mini] [--only attenuation …] [--json]

Without --model, a text tower of the size of CLIP ViT-L/14 (49408 × 768, 12 layers, float32) with
seeded random weights is made in a temporary folder. Each probe runs in its own process; wall time,
processor time and peak resident memory are the process's, with loading. A probe that does not apply
costs what it takes to find that out: without learned vectors, `angles` is one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dti_geom.probes.registry import PROBES

CONFIG = Path(__file__).parents[1] / "tests" / "data" / "published" / "clip-vit-l-14-text.json"
CASES = ("load", *PROBES)
RUN = """
import contextlib, sys, torch
from dti_geom.errors import DoesNotApply
from dti_geom.models import open_encoders
from dti_geom.probes import measure

case, model = sys.argv[1:]
for encoder in open_encoders(model, dtype=torch.float32):
    encoder.blocks
    if case != "load":
        with contextlib.suppress(DoesNotApply):
            measure(encoder, case)
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
    """Run a command; return its seconds, processor seconds and peak resident MiB."""
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
    """Measure the cases that were asked for, and print their costs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="what `dti-geom --model` accepts")
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
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
        for case in arguments.only:
            cost = measure([sys.executable, "-c", RUN, case, arguments.model or place])
            results[case] = cost
            if not arguments.json:
                print(
                    f"{case:<12} {cost['seconds']:7.1f} s {cost['cpu_seconds']:7.1f} cpu s "
                    f"{cost['peak_mib']:6.0f} MiB",
                    flush=True,
                )
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
