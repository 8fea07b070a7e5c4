from collections.abc import Callable
from pathlib import Path

import pytest

from dti_geom.evaluation.evaluation import Evaluation, summarize
from dti_geom.evaluation.pictures import SamplerSettings
from dti_geom.evaluation.reference import Comparison
from dti_geom.evaluation.scores import ImageScore, scorer_accuracy
from dti_geom.files import load_result, save_result
from dti_geom.models.image_encoders import open_image_encoder
from warm import Run, RunJson


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `dti-geom evaluate` leaves it, of two methods on SDXL."""
    scores = tuple(
        ImageScore(
            method,
            subject,
            "",
            "a {}",
            "x",
            seed,
            "0.png",
            0.5 + 0.02 * seed + 0.1 * (subject == "cat"),
            0.4,
        )
        for method in ("dti", "mine")
        for subject in ("dog", "cat")
        for seed in (0, 1)
    )
    known = (
        scores,
        (),
        tuple(summarize(scores)),
        (),
        (),
        scorer_accuracy(open_image_encoder("mini")),
        (),
    )
    settings = SamplerSettings(50, 5.0, 1024, "float32")
    evaluation = Evaluation(
        "sdxl", "paper", (0, 1), settings, "mini", "siglip", "sigmoid of the logit", *known
    )
    folder = tmp_path_factory.mktemp("evaluation")
    save_result(folder / "evaluation.json", evaluation)
    return folder


def test_compare_prints_the_papers_rows_and_says_what_was_not_run(
    run: Run, result: Path, tmp_path: Path, table_lines: Callable[[str], list[str]]
) -> None:
    done = run("compare", result, "--out", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    # A table wider than the terminal comes in parts, each of which names its rows.
    assert any(line.startswith("ti on sdxl 0.561 not run") for line in lines)
    assert any(line.startswith("dti on sdxl 0.450 0.56") for line in lines)
    assert any(line.startswith("mine on sdxl 0.56") for line in lines)
    text = " ".join(lines)
    assert "2 of 30 subjects" in text
    assert "scored by mini and siglip" in text
    assert "The scorer's own accuracy" in done.stdout
    assert max(map(len, table_lines(done.stdout))) <= 80
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {
        "comparison.json",
        "index.html",
    }
    kept = load_result(tmp_path / "kept" / "comparison.json", Comparison)
    assert kept.others[0].method == "mine"


def test_json_is_the_comparison_and_nothing_else(run_json: RunJson, result: Path) -> None:
    comparison = run_json("compare", result / "evaluation.json")
    assert set(comparison) == {"rows", "others", "notes", "accuracy", "ceilings"}
    assert set(comparison["rows"][0]) == {
        "reference",
        "subject",
        "text",
        "subject_difference",
        "text_difference",
    }


def test_a_file_that_is_no_evaluation_is_refused(run: Run, tmp_path: Path) -> None:
    save_result(tmp_path / "evaluation.json", SamplerSettings(50, 5.0, 1024, "float32"))
    done = run("compare", tmp_path)
    assert done.returncode == 1
    assert "evaluation.json" in done.stderr
    assert "Traceback" not in done.stderr
