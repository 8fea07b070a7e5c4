"""How fast does `dti-geom --help` answer? Beside it, the interpreter alone.

python benchmarks/startup.py [--runs 10] [--json]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "pass": [sys.executable, "-c", "pass"],
    "help": [str(Path(sys.executable).parent / "dti-geom"), "--help"],
    "norms_help": [str(Path(sys.executable).parent / "dti-geom"), "norms", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.runs):  # interleaved, so that a busy moment strikes all alike
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    if arguments.json:
        print(json.dumps(medians))
    else:
        print(
            f"median of {arguments.runs}: "
            + ", ".join(f"{name} {value:.3f} s" for name, value in medians.items())
        )


if __name__ == "__main__":
    main()
