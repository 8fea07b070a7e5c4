"""Small evaluations with painted pictures, for tests of preference studies."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dti_geom.evaluation.evaluation import Evaluation, summarize
from dti_geom.evaluation.pictures import SamplerSettings
from dti_geom.evaluation.scores import ImageScore
from dti_geom.files import save_result

METHODS = ("ti", "dti", "crossinit")
SUBJECTS = ("dog", "vase", "clock", "backpack")
PROMPTS = ("a {} on a beach", "a red {}", "a drawing of a {}", "a {} made of <b>glass</b>")


def write_evaluation(
    folder: Path,
    methods: Sequence[str] = METHODS,
    subjects: Sequence[str] = SUBJECTS,
    prompts: Sequence[str] = PROMPTS,
    seeds: Sequence[int] = (0, 1),
) -> Path:
    """Write an evaluation whose files betray their method: size, metadata, noise, name, order."""
    rng = np.random.default_rng(0)
    scores = []
    for at, method in enumerate(methods):
        for subject in subjects:
            for prompt in prompts:
                for seed in seeds:
                    file = f"{method}-{subject}-{prompts.index(prompt)}-{seed}.png"
                    information = PngInfo()
                    information.add_text("method", method)
                    path = folder / "pictures" / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    # Noisier and larger from method to method.
                    picture = _picture(rng, side=32 + 8 * at, noise=40 * at)
                    picture.save(path, pnginfo=information)
                    scores.append(
                        ImageScore(
                            method=method,
                            subject=subject,
                            run="",
                            prompt=prompt,
                            group="x",
                            seed=seed,
                            file=file,
                            subject_score=0.5,
                            text_score=float(rng.random()),
                        )
                    )
    for subject in subjects:
        for number in range(5):
            path = folder / "references" / subject / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            _picture(rng, side=48, noise=10).save(path)
    evaluation = Evaluation(
        model="mini",
        prompts="mini",
        seeds=tuple(seeds),
        settings=SamplerSettings(25, 5.0, 64, "float32"),
        image_encoder="mini",
        text_encoder="mini",
        text_unit="share of checks",
        images=tuple(scores),
        left_out=(),
        summaries=tuple(summarize(scores)),
        differences=(),
        by_prompt=(),
        accuracy=(),
        pictures=(),
    )
    save_result(folder / "evaluation.json", evaluation)
    return folder


def _picture(rng: np.random.Generator, side: int, noise: int) -> Image.Image:
    """A disc of a random colour, under noise."""
    rows, columns = np.mgrid[:side, :side] - side / 2
    disc = rows**2 + columns**2 < (side / 3) ** 2
    colors = rng.integers(0, 256, size=(2, 3))
    values = np.where(disc[..., None], colors[0], colors[1]) + rng.normal(
        0, noise, size=(side, side, 3)
    )
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))
