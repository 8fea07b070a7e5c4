"""Small evaluations with painted pictures, for tests of preference studies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dti_geom.evaluation.evaluation import Evaluation, summarize
from dti_geom.evaluation.pictures import SamplerSettings
from dti_geom.evaluation.scores import ImageScore
from dti_geom.files import save_result
from dti_geom.study import score_study
from dti_geom.study.answers import Refused
from dti_geom.study.design import Case, Study, plan_study
from dti_geom.study.scoring import StudyScore
from dti_geom.study.simulation import Crowd, simulate

METHODS = ("ti", "dti", "crossinit")
SUBJECTS = ("dog", "vase", "clock", "backpack")
PROMPTS = ("a {} on a beach", "a red {}", "a drawing of a {}", "a {} made of <b>glass</b>")


def planned(
    methods: Sequence[str] = METHODS, subjects: int = 6, prompts: int = 8, **options: Any
) -> Study:
    """Plan a study of invented files; options are those of `plan_study`."""
    cases = [
        Case(
            subject=f"subject{subject}",
            prompt=f"{{}} prompt{prompt}",
            words=f"thing prompt{prompt}",
            group="x",
            seed=0,
            files={name: f"{name}/{subject}/{prompt}.png" for name in methods},
            text_scores={name: (prompt + at) % 5 / 5 for at, name in enumerate(methods)},
        )
        for subject in range(subjects)
        for prompt in range(prompts)
    ]
    references = {f"subject{at}": [f"r/{at}/{n}.png" for n in range(5)] for at in range(subjects)}
    words = {subject: subject for subject in references}
    defaults: dict[str, Any] = {"model": "mini", "seed": 0, "raters": 60}
    return plan_study(cases, references, words, **(defaults | options))


def study_score(methods: Sequence[str] = METHODS, spammers: float = 0.0) -> StudyScore:
    """Score simulated raters, who like each method better than the one before."""
    study = planned(methods, raters=30)
    crowd = Crowd(tuple(0.8 * at for at in range(len(methods))), spammers=spammers)
    refused = (Refused(f"{methods[0]}.json", "not a file of answers"),)
    return score_study(study, simulate(study, crowd, np.random.default_rng(0)), refused)


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
