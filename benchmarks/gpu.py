"""Measure training on a GPU with one command, and write a dated result.

    python benchmarks/gpu.py --minutes 8

For Stable Diffusion 1.5 at 512 px, SDXL at 768 and SANA 1.6B at 1024, of published size with random
weights in bfloat16, at batch 4: the time of a step beside its floor and the textbook loop (see
`train_step.py`, whose processes measure), with and without compiling; and the peak memory of a step
beside the estimate of `dti-geom train --dry-run`. What does not fit in the minutes is left out, and
the result says so. Writes benchmarks/results/DATE-gpu.json and .md, and overwrites neither.

    python benchmarks/gpu.py --device cpu --tiny --no-compile

runs the same on tiny models of the tests, to try the script. On a CPU the peak is that of the whole
process, which no estimate covers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flops import MODELS, estimate, tests_pipelines

BENCHMARKS = Path(__file__).parent
NAMES = ("sd15", "sdxl", "sana-1.6b")
TIMED = ("floor", "step", "textbook_same_precision")
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """A model on one device; times in seconds, memory in GiB, None where time ran out."""

    model: str
    resolution: int
    floor: float | None
    step: float | None
    textbook: float | None
    floor_compiled: float | None
    step_compiled: float | None
    peak: float | None
    estimated: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8, help="time for everything")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of each way")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the script")
    parser.add_argument("--out", type=Path, default=BENCHMARKS / "results", help="folder")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    machine: dict[str, Any] = {}
    rows: list[Row] = []
    for name in NAMES:
        with tempfile.TemporaryDirectory() as place:
            rows.append(measure(name, options, Path(place), deadline, machine))
    path = write(rows, machine, options.out)
    print(path.read_text(encoding="utf-8"))


def measure(
    name: str,
    options: argparse.Namespace,
    place: Path,
    deadline: float,
    machine: dict[str, Any],
) -> Row:
    """Measure one model in processes of its own; `machine` gets what they say of theirs."""
    facts, pipelines = MODELS[name], tests_pipelines()
    side = 64 if options.tiny else facts.resolution
    if options.tiny:
        pipelines.FAMILIES[facts.family].build(place)
    else:
        pipelines.published_folder(place, facts.family, facts.denoiser)
    given = [
        *("--model", str(place) if options.tiny else f"full-{name}"),
        *("--device", options.device, "--resolution", str(side), "--dtype", "bfloat16"),
        *(("--word", pipelines.FAMILIES[facts.family].word) if options.tiny else ()),
    ]

    def run(*arguments: str) -> dict[str, Any]:
        found = child([*given, *arguments], deadline)
        machine.update({key: found[key] for key in ("device", "torch", "batch_size") if found})
        return found

    steps = ("--steps", str(options.steps))
    # Memory first: it is the shortest, and nothing else may lie on the device.
    alone = run("--steps", "1", "--only", "step")
    eager = run(*steps, "--only", *TIMED).get("seconds", {})
    compiled = {}
    if options.compile:
        compiled = run(*steps, "--compile", "--only", "floor", "step").get("seconds", {})
    return Row(
        model=name,
        resolution=side,
        floor=eager.get("floor"),
        step=eager.get("step"),
        textbook=eager.get("textbook_same_precision"),
        floor_compiled=compiled.get("floor"),
        step_compiled=compiled.get("step"),
        peak=alone["peak_mib"] * 2**20 / GIB if alone else None,
        estimated=estimate(str(place), side, 4).training / GIB,
    )


def child(arguments: list[str], deadline: float) -> dict[str, Any]:
    """Return what a process of `train_step.py` measured; {} if the time is up or it failed."""
    left = deadline - time.monotonic()
    if left <= 0:
        return {}
    command = [sys.executable, str(BENCHMARKS / "train_step.py"), *arguments]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=left, check=True)
    except subprocess.TimeoutExpired:
        return {}
    except subprocess.CalledProcessError:
        print(f"failed: {' '.join(command)}", file=sys.stderr)  # it has printed the reason
        return {}
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def write(rows: list[Row], machine: dict[str, Any], folder: Path) -> Path:
    """Write the result as JSON and as a page, and return the page. Raises FileExistsError."""
    now = datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{now:%Y-%m-%d-%H%M}-gpu.md"
    result = {"date": now.isoformat(), "machine": machine, "rows": [asdict(row) for row in rows]}
    with open(page.with_suffix(".json"), "x", encoding="utf-8") as file:
        file.write(json.dumps(result, indent=1) + "\n")
    head = (
        f"# {now:%Y-%m-%d}, training steps\n\n"
        f"{machine.get('device', 'no process ended in time')}, torch {machine.get('torch', '?')}, "
        f"bfloat16, batch {machine.get('batch_size', '?')}, random weights. Medians in seconds, "
        "memory in GiB; – where the time was up, or there is nothing to measure.\n\n"
    )
    with open(page, "x", encoding="utf-8") as file:
        file.write(head + table(rows) + "\n\n`python benchmarks/gpu.py`\n")
    return page


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| model | px | floor | step | textbook | step / floor | compiled floor | compiled step | "
        "peak | estimated | estimated / peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            *(seconds(row.floor), seconds(row.step), seconds(row.textbook)),
            ratio(row.step, row.floor),
            *(seconds(row.floor_compiled), seconds(row.step_compiled)),
            *(ratio(row.peak, 1.0), ratio(row.estimated, 1.0), ratio(row.estimated, row.peak)),
        ]
        lines.append(f"| {row.model} | {row.resolution} | {' | '.join(cells)} |")
    return "\n".join(lines)


def seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def ratio(value: float | None, base: float | None) -> str:
    return "–" if value is None or base is None else f"{value / base:.2f}"


if __name__ == "__main__":
    main()
