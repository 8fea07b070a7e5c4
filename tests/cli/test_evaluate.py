import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dti_geom.evaluation.evaluation import Evaluation
from dti_geom.files import load_result
from image_models import build_clip, build_dinov2
from runs import write_run
from warm import Completed, Run


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return [
        *("--image-encoder", build_dinov2(folder / "dinov2")),
        *("--text-encoder", build_clip(folder / "clip")),
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, sd15_pipeline: Path) -> Path:
    """A DTI and a TI run of one subject, finished without training."""
    folder = tmp_path_factory.mktemp("runs")
    images = folder / "my-dog"
    images.mkdir()
    for number in range(2):
        Image.new("RGB", (20, 24), (90 * number, 40, 120)).save(images / f"{number}.png")
    for place, method in enumerate(("dti", "ti")):
        write_run(folder / method, model=str(sd15_pipeline), method=method)
        for name in ("config", "result"):
            path = folder / method / f"{name}.json"
            path.write_text(
                path.read_text().replace(
                    '"images": "images"', f'"images": {json.dumps(str(images))}'
                )
            )
        vector = torch.randn(1, 32, generator=torch.Generator().manual_seed(place))
        save_file({"<x>": vector}, folder / method / "learned_embeds.safetensors")
    return folder


@pytest.fixture(scope="module")
def evaluated(
    run: Run, runs: Path, encoders: list[str | Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Completed]:
    out = tmp_path_factory.mktemp("out") / "evaluation"
    (out.parent / "mine.txt").write_text("a {} on Mars\na red {}\n")
    asked = [
        "--prompts",
        out.parent / "mine.txt",
        "--seeds",
        2,
        "--steps",
        2,
        "--baselines",
        "--dtype",
        "float32",
    ]
    return out, run(
        "evaluate", runs / "dti", f"mine={runs / 'ti'}", *asked, *encoders, "--out", out
    )


def test_evaluate_prints_tables_and_keeps_result_csv_latex_pictures_and_page(
    evaluated: tuple[Path, Completed], table_lines: Callable[[str], list[str]]
) -> None:
    out, done = evaluated
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {
        "pictures", "evaluation.json", "scores.csv", "table.tex", "index.html"
    }  # fmt: skip
    evaluation = load_result(out / "evaluation.json", Evaluation)
    methods = ["dti", "mine", "dti-rescaled", "mine-rescaled", "class word"]
    assert [row.method for row in evaluation.summaries] == methods
    assert {image.subject for image in evaluation.images} == {"my-dog"}
    assert len(evaluation.images) == 5 * 2 * 2
    assert len(list(csv.DictReader((out / "scores.csv").read_text().splitlines()))) == 20
    assert "class word &" in (out / "table.tex").read_text()
    for title in ("Scores", "Differences on the same subjects", "Prompt by prompt"):
        assert title in done.stdout
    assert "a {} on Mars" in done.stdout
    assert "runs and seeds of the one subject" in " ".join(done.stdout.split())
    assert max(map(len, table_lines(done.stdout))) <= 80


def test_nothing_is_overwritten_and_nothing_painted_before_that_is_known(
    evaluated: tuple[Path, Completed], run: Run, runs: Path, encoders: list[str | Path]
) -> None:
    out, _ = evaluated
    done = run("evaluate", runs / "dti", *encoders, "--out", out)
    assert done.returncode == 1
    assert "evaluation.json exists already" in done.stderr


def test_runs_of_two_models_and_prompts_that_are_nowhere_get_one_line(
    run: Run, runs: Path, encoders: list[str | Path], tmp_path: Path
) -> None:
    write_run(tmp_path / "other")
    done = run("evaluate", runs / "dti", tmp_path / "other", *encoders, "--out", tmp_path / "out")
    assert "the runs are of 2 models" in done.stderr
    done = run("evaluate", runs / "dti", *encoders, "--out", tmp_path / "out")
    assert "prompts are the DreamBooth dataset's own" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "label"),
    [
        ({}, "dti"),
        ({"magnitude": "mean", "kappa": 1e-4}, "dti"),
        ({"magnitude": "5.0"}, "dti m=5"),
        ({"magnitude": "min"}, "dti m=min"),
        ({"kappa": 0.0}, "dti κ=0"),
        ({"kappa": 5e-4}, "dti κ=0.0005"),
    ],
)
def test_a_run_is_labelled_as_the_papers_tables_tell_methods_apart(
    method: dict[str, Any], label: str
) -> None:
    from dti_geom.evaluation.reference import PUBLISHED
    from dti_geom.models.pipelines.stable_diffusion_xl import StableDiffusionXL
    from dti_geom.training import ConceptConfig, MethodConfig, RunConfig
    from dti_geom_cli.evaluate import method_label

    concept = ConceptConfig("<x>", "images", "dog")
    config = RunConfig("sdxl", (concept,), MethodConfig(**method))
    assert method_label(config, StableDiffusionXL.training.kappa) == label
    assert label in {row.method for row in PUBLISHED}
