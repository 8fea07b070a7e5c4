"""Compare fixed views of the training images with fresh random crops, on mini.

    python benchmarks/crops.py --work FOLDER [--steps 400] [--seeds 2]

The pictures of two concepts are widened by their mirrored margins, to 96 × 64 pixels: the centre
cut is the picture itself, a random cut may lose a part of the subject, as in photographs. DTI and
TI each learn both concepts, once from the centre and once with --random-crops. All are painted in
the prompts of mini and compared with the pictures as they were. FOLDER keeps runs and pictures; a
second call makes only what is missing. Prints JSON: mean scores, and random less fixed over the
pictures of equal prompt and seed, with its standard error.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONCEPTS = ("green-fox", "round-teapot")
METHODS = ("dti", "ti")
WAYS = {"fixed": False, "random": True}
SCORES = ("subject", "text")
MARGIN = 16  # pixels on either side


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each prompt")
    options = parser.parse_args()
    print(json.dumps(measure(options.work, options.steps, range(options.seeds)), indent=1))


def measure(work: Path, steps: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Train, paint and score what is missing in `work`; return the scores."""
    from dti_geom.evaluation import evaluate
    from dti_geom.evaluation.prompts import open_prompt_set
    from dti_geom.models.catalog import known_concepts
    from dti_geom.models.pipelines import open_text_to_image
    from dti_geom.sweeps.cells import open_scorers, run_candidates

    model = open_text_to_image("mini")
    candidates = []
    for way in WAYS:
        for method in METHODS:
            for concept in CONCEPTS:
                folder = trained(work, way, method, concept, steps)
                bundled = known_concepts()[concept]
                run = run_config(bundled.images, bundled.init, method, way, steps)
                candidates += run_candidates(f"{way}-{method}", folder, run, model)
    encoder, text = open_scorers("mini", None, None, "cpu")
    prompts = open_prompt_set("mini")
    result = evaluate(model, candidates, prompts, seeds, encoder, text, work / "evaluation")
    return summary(result.images)


def trained(work: Path, way: str, method: str, concept: str, steps: int) -> Path:
    """Return the folder of a finished run."""
    from dti_geom.models.catalog import known_concepts
    from dti_geom.training import train

    folder, bundled = work / "runs" / f"{way}-{method}-{concept}", known_concepts()[concept]
    if not (folder / "result.json").exists():
        images = widened(bundled.images, work / "wide" / concept)
        train(run_config(images, bundled.init, method, way, steps), folder, overwrite=True)
    return folder


def run_config(images: Path, init: str, method: str, way: str, steps: int) -> Any:
    from dti_geom.training import ConceptConfig, DataConfig, MethodConfig, PreviewConfig, RunConfig

    return RunConfig(
        "mini",
        (ConceptConfig("<x>", str(images), init),),
        MethodConfig(method),
        DataConfig(random_crops=WAYS[way]),
        PreviewConfig(every=0),
        steps=steps,
        checkpoint_every=steps,
    )


def widened(source: Path, target: Path) -> Path:
    """Write the pictures of a folder with mirrored margins at their sides."""
    import numpy as np
    from PIL import Image

    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.png")):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        wide = np.pad(pixels, ((0, 0), (MARGIN, MARGIN), (0, 0)), mode="reflect")
        Image.fromarray(wide).save(target / path.name)
    return target


def summary(images: Sequence[Any]) -> dict[str, Any]:
    """Return mean scores of each way and method, and the differences between the ways."""
    by_picture = {(i.method, i.subject, i.prompt, i.seed): i for i in images}
    means: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    for method in METHODS:
        rows = [key[1:] for key in by_picture if key[0] == f"fixed-{method}"]
        differences[method] = {"pictures": len(rows)}
        for score in SCORES:
            values = {}
            for way in WAYS:
                pictures = [by_picture[(f"{way}-{method}", *row)] for row in rows]
                values[way] = [getattr(picture, f"{score}_score") for picture in pictures]
                name = f"{way}-{method}"
                means.setdefault(name, {})[score] = statistics.mean(values[way])
            less = [a - b for a, b in zip(values["random"], values["fixed"], strict=True)]
            error = statistics.stdev(less) / len(less) ** 0.5
            differences[method][score] = {"mean": statistics.mean(less), "error": error}
    return {"means": means, "random less fixed": differences}


if __name__ == "__main__":
    main()
