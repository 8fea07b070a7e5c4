"""Estimate the paper's protocol for its five models at their published sizes, without weights.

    python benchmarks/protocol.py [--model sdxl …] [--teraflops 200] [--cards 1 8 64] [--json]

Prints what `dti-geom protocol paper --dry-run` prints for each: 30 subjects with five images each,
ti, ti-rescaled, crossinit and dti, bfloat16. Models have their published configurations and no
numbers (torch's meta device); tokenizers are the tests' stand-ins, so every class word is "dog".
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from flops import MODELS, tests_pipelines
from PIL import Image

from dti_geom.sweeps.protocol import ProtocolEstimate, estimate_protocol, paper_plan
from dti_geom.training.data import CLASSES_FILE

SUBJECTS, IMAGES = 30, 5
PROMPTS = "\n".join(f"'a {{0}} {{1}} {number}'.format(a, b)" for number in range(25))


def dataset(folder: Path) -> Path:
    """Write a dataset of the size of DreamBooth's."""
    names = [f"subject{number}" for number in range(SUBJECTS)]
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(IMAGES):
            Image.new("RGB", (64, 64)).save(folder / name / f"{number}.jpg")
    classes = "".join(f"{name},dog\n" for name in names)
    lists = f"Object Prompts\n{PROMPTS}\nLive Subject Prompts\n{PROMPTS}\n"
    (folder / CLASSES_FILE).write_text(f"subject_name,class\n{classes}\nprompt_list\n{lists}")
    return folder


def estimated(name: str, teraflops: float, cards: list[int]) -> ProtocolEstimate:
    facts = MODELS[name]
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "model"
        tests_pipelines().published_folder(model, facts.family, facts.denoiser)
        for part in model.glob("*/config.json"):  # looked for, and not read
            stem = "model" if "encoder" in part.parent.name else "diffusion_pytorch_model"
            (part.parent / f"{stem}.safetensors").touch()
        plan = paper_plan(str(model), dataset(Path(place) / "data"), dtype="bfloat16")
        return estimate_protocol(plan, teraflops, cards)


def table(found: dict[str, ProtocolEstimate]) -> str:
    """Return the estimates as a Markdown table."""
    cards = list(next(iter(found.values())).by_cards)
    head = ["model", "updates", "pictures", "10¹² an update", "10¹² a picture"]
    head += [f"hours, {count} {'card' if count == 1 else 'cards'}" for count in cards]
    head += ["GiB", "GiB, low"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, cost in found.items():
        row = [name, f"{cost.updates:,}", f"{cost.pictures:,}"]
        row += [f"{cost.update_flops / 1e12:.1f}", f"{cost.picture_flops / 1e12:.0f}"]
        row += [f"{hours:.1f}" for hours in cost.by_cards.values()]
        row += [f"{cost.gib:.1f}", f"{cost.gib_low:.1f}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--teraflops", type=float, default=200.0)
    parser.add_argument("--cards", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    # The SD 2.1 of that table is the base model, at its own 512 px here.
    found = {
        name.replace("sd21", "sd21-base"): estimated(name, options.teraflops, options.cards)
        for name in options.model
    }
    if options.json:
        print(json.dumps({name: asdict(cost) for name, cost in found.items()}, indent=1))
    else:
        print(table(found))


if __name__ == "__main__":
    main()
