"""Hold the estimate of a training update's memory against what updates use on the CPU.

    python benchmarks/memory.py [--family sdxl …] [--json]
    python benchmarks/memory.py --published [NAME …] [--json]

Every family is built at a middle size with random weights: denoisers of the published depth of
blocks and a fraction of their width, in float32. Each measurement has a process of its own: one
update to warm up, then the growth of its resident memory in the next. The estimate is made from the
configuration, as `dti-geom train --dry-run` makes it: activations and working buffers. Weights are
left out of both; they are known exactly.

--published prints the estimates alone, for the published sizes in bfloat16 with a batch of 4.
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
# By name: family, denoiser, pixels of a side.
PUBLISHED = {
    "sd15": ("sd15", "sd15-unet", 512),
    "sd21": ("sd21", "sd21-base-unet", 768),
    "sdxl": ("sdxl", "sdxl-unet", 768),
    "sana-1.6b": ("sana", "sana15-1.6b-transformer", 1024),
    "sana-4.8b": ("sana", "sana15-4.8b-transformer", 1024),
    "flux2-klein-4b": ("flux2-klein", "flux2-klein-4b-transformer", 1024),
    "flux2-klein-9b": ("flux2-klein", "flux2-klein-9b-transformer", 1024),
    "z-image": ("z-image", "z-image-transformer", 1024),
    "qwen-image": ("qwen-image", "qwen-image-transformer", 1024),
    "lumina2": ("lumina2", "lumina-image-2-transformer", 1024),
    "sd35-medium": ("sd35", "sd35-medium-transformer", 1024),
    "sd35-large": ("sd35", "sd35-large-transformer", 1024),
    "flux1-dev": ("flux1", "flux1-dev-transformer", 1024),
    "chroma": ("chroma", "chroma1-hd-transformer", 1024),
    "pixart-sigma": ("pixart", "pixart-sigma-1024-transformer", 1024),
    "wan2.1-1.3b": ("wan", "wan21-t2v-1.3b-transformer", 480),
}
# glibc then gives freed memory back at once, so that resident memory is memory in use.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", nargs="+", choices=MIDDLE, default=list(MIDDLE))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument(
        "--published",
        nargs="*",
        choices=PUBLISHED,
        help="estimate these published sizes; without a name all",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "MEMORY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        folder, memory = options.measure
        print(measured(Path(folder), options.family[0], memory, options.batch_size))
        return
    rows: list[dict[str, Any]] = []
    if options.published is not None:
        for name in options.published or PUBLISHED:
            rows += published_rows(name)
        print(json.dumps(rows, indent=1) if options.json else published_table(rows))
        return
    for family in options.family:
        with tempfile.TemporaryDirectory() as place:
            rows += compared(Path(place), family, options.batch_size)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print("{family:<6} {memory:<5} estimated {estimated_mib:7.1f} MiB  ".format(**row), end="")
        print("measured {measured_mib:7.1f} MiB  ratio {ratio:.3f}".format(**row))


def published_rows(name: str) -> list[dict[str, Any]]:
    """Return the estimates of a published size, with fast and with low memory; sizes in GiB."""
    import torch

    sys.path.insert(0, str(TESTS))
    from dti_geom.models.pipelines.blueprint import meta_model
    from dti_geom.models.pipelines.memory import MEMORY
    from dti_geom.models.sources import Folder
    from dti_geom.training import ConceptConfig, DataConfig, RunConfig
    from dti_geom.training.estimates import CARDS, GIB, estimate_memory
    from dti_geom.training.trainer import with_defaults
    from pipelines import FAMILIES, published_folder

    family, denoiser, side = PUBLISHED[name]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        published_folder(Path(place) / "model", family, denoiser)
        pictures(Path(place) / "images", 5)
        model = meta_model(Folder(Path(place) / "model"), torch.bfloat16)
        concept = ConceptConfig("<x>", f"{place}/images", FAMILIES[family].word)
        config = RunConfig(str(place), (concept,), data=DataConfig(resolution=side))
        config = with_defaults(config, model)
        for memory in MEMORY:
            part = estimate_memory(model, config, memory)
            parts = ("weights", "activations", "working", "training")
            phases = ("loading", "encoding", "painting", "needed")
            row = {field: getattr(part, field) / GIB for field in parts + phases}
            card = next((gib for gib in CARDS if part.needed <= gib * GIB), None)
            flops = {"tflop": part.flops / 1e12, "card": card}
            rows.append({"model": name, "side": side, "memory": memory} | row | flops)
    return rows


def published_table(rows: list[dict[str, Any]]) -> str:
    """Return the estimates as a Markdown table."""
    fields = [key for key in rows[0] if key not in ("model", "memory")]
    lines = ["| model | memory | " + " | ".join(fields) + " |", "|---" * (len(fields) + 2) + "|"]
    for row in rows:
        cells = [
            f"{row[field]:.1f}" if isinstance(row[field], float) else str(row[field])
            for field in fields
        ]
        lines.append(f"| {row['model']} | {row['memory']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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

    sys.path.insert(0, str(TESTS))
    from pipelines import FAMILIES, library

    FAMILIES[family].build(place / "model")
    sizes, _ = MIDDLE[family]
    part = "transformer" if family == "sana" else "unet"
    config = json.loads((place / "model" / part / "config.json").read_text()) | sizes
    torch.manual_seed(0)
    denoiser = getattr(library("diffusers"), config["_class_name"]).from_config(config)
    denoiser.save_pretrained(place / "model" / part)
    pictures(place / "images", 2)


def pictures(folder: Path, count: int) -> None:
    """Write pictures of one colour each."""
    from PIL import Image

    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (64, 64), (40 * number, 90, 20)).save(folder / f"{number}.png")


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
