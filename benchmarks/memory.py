"""Hold the estimate of a training update's memory against what updates use on the CPU.

    python benchmarks/memory.py [--family sdxl …] [--json]

Every family is built at a middle size with random weights: denoisers of the published depth of
blocks and a fraction of their width, in float32. Each measurement has a process of its own: one
update to warm up, then the growth of its resident memory in the next. The estimate is made from the
configuration, as `dti-geom train --dry-run` makes it: activations and working buffers. Weights are
left out of both; they are known exactly.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
UNET = {"layers_per_block": 2, "norm_num_groups": 8}
# By family: sizes of the denoiser that differ from the tests' tiny one, and pixels of a side.
MIDDLE: dict[str, tuple[dict[str, Any], int]] = {
    "sd15": (UNET | {"block_out_channels": (96, 192), "attention_head_dim": 4}, 256),
    "sd21": (UNET | {"block_out_channels": (96, 192), "attention_head_dim": (2, 4)}, 256),
    "sdxl": (
        UNET
        | {
            "block_out_channels": (64, 128, 256),
            "transformer_layers_per_block": (1, 2, 4),
            "attention_head_dim": (2, 4, 8),
        },
        256,
    ),
    "sana": (
        {
            "num_attention_heads": 16,
            "attention_head_dim": 32,
            "num_cross_attention_heads": 8,
            "cross_attention_head_dim": 64,
            "cross_attention_dim": 512,
            "num_layers": 8,
        },
        512,
    ),
}
# glibc then gives freed memory back at once, so that resident memory is memory in use.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", nargs="+", choices=MIDDLE, default=list(MIDDLE))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "MEMORY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        folder, memory = options.measure
        print(measured(Path(folder), options.family[0], memory, options.batch_size))
        return
    rows: list[dict[str, Any]] = []
    for family in options.family:
        with tempfile.TemporaryDirectory() as place:
            rows += compared(Path(place), family, options.batch_size)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print("{family:<6} {memory:<5} estimated {estimated_mib:7.1f} MiB  ".format(**row), end="")
        print("measured {measured_mib:7.1f} MiB  ratio {ratio:.3f}".format(**row))


def compared(place: Path, family: str, batch_size: int) -> list[dict[str, Any]]:
    """Return estimate and measurement of a family, with fast and with low memory."""
    from dti_geom.training.estimates import estimate_run

    build(place, family)
    rows = []
    for part in estimate_run(config_of(place, family, "fast", batch_size)).memory:
        command = [sys.executable, __file__, "--family", family, "--batch-size", str(batch_size)]
        done = subprocess.run(
            [*command, "--measure", str(place), part.memory],
            env=os.environ | MALLOC,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        estimated, used = part.activations + part.working, int(done.stdout.split()[-1])
        rows.append(
            {
                "family": family,
                "memory": part.memory,
                "estimated_mib": estimated / 2**20,
                "measured_mib": used / 2**20,
                "ratio": estimated / used,
            }
        )
    return rows


def build(place: Path, family: str) -> None:
    """Write the folder of a middle-sized model, and pictures to train on."""
    import torch
    from PIL import Image

    sys.path.insert(0, str(TESTS))
    from pipelines import FAMILIES, library

    FAMILIES[family].build(place / "model")
    sizes, _ = MIDDLE[family]
    part = "transformer" if family == "sana" else "unet"
    config = json.loads((place / "model" / part / "config.json").read_text()) | sizes
    torch.manual_seed(0)
    denoiser = getattr(library("diffusers"), config["_class_name"]).from_config(config)
    denoiser.save_pretrained(place / "model" / part)
    (place / "images").mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (90 * number, 90, 20)).save(place / "images" / f"{number}.png")


def config_of(place: Path, family: str, memory: str, batch_size: int) -> Any:
    """Return the run of which an update is estimated and measured."""
    sys.path.insert(0, str(TESTS))
    from dti_geom.training import ConceptConfig, DataConfig, PreviewConfig, RunConfig
    from pipelines import FAMILIES

    concept = ConceptConfig("<x>", str(place / "images"), FAMILIES[family].word)
    return RunConfig(
        str(place / "model"),
        (concept,),
        data=DataConfig(resolution=MIDDLE[family][1]),
        preview=PreviewConfig(every=0),
        steps=2,
        batch_size=batch_size,
        dtype="float32",
        memory=memory,
    )


def measured(place: Path, family: str, memory: str, batch_size: int) -> int:
    """Return the bytes by which an update makes this process grow."""
    import torch

    from dti_geom.models.pipelines import open_text_to_image
    from dti_geom.models.pipelines.memory import spend_memory
    from dti_geom.training.peak_memory import peak_memory, reset_peak_memory
    from dti_geom.training.trainer import Trainer

    config = config_of(place, family, memory, batch_size)
    model = open_text_to_image(config.model, dtype=torch.float32)
    spend_memory(model, memory)
    updates = Trainer(model, config).updates()
    next(updates)
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak_memory(model.device)
    before = peak_memory(model.device)
    next(updates)
    return peak_memory(model.device) - before


if __name__ == "__main__":
    main()
