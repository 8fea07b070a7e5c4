from collections.abc import Callable
from pathlib import Path

import pytest

from dti_geom.files import load_result
from dti_geom.training.inflation import PredictedInflation
from warm import Run, RunJson

OPTIONS = ("--learning-rate", "0.002", "--steps", "300")


def test_json_is_the_prediction_and_nothing_else(run_json: RunJson) -> None:
    result = run_json("inflation", *OPTIONS, "--init", "fox")
    assert (result["model"], result["learning_rate"], result["steps"]) == ("mini", 0.002, 300)
    (tower,) = result["towers"]
    assert tower["norms"][-1] > tower["start_norm"]


def test_the_sections_sentence_is_printed_and_the_page_is_kept(
    run: Run, tmp_path: Path, flowing: Callable[[str], str]
) -> None:
    done = run("inflation", *OPTIONS, "--out", tmp_path)
    assert done.returncode == 0
    assert "after 300 updates" in flowing(done.stdout)
    assert str(tmp_path / "index.html") in done.stdout
    kept = load_result(tmp_path / "inflation.json", PredictedInflation)
    assert kept.weight_decay == 0.01


def test_both_towers_of_a_model_are_predicted(run_json: RunJson, sdxl_folder: Path) -> None:
    result = run_json("inflation", *OPTIONS, "--model", sdxl_folder)
    assert [tower["tower"] for tower in result["towers"]] == ["text_encoder", "text_encoder_2"]


@pytest.mark.parametrize(
    "wrong", [("--init", "fox", "--start-norm", "1"), ("--weight-decay", "-1"), ("--init", "#9999")]
)
def test_what_does_not_fit_is_one_line_on_standard_error(run: Run, wrong: tuple[str, ...]) -> None:
    done = run("inflation", *OPTIONS, *wrong)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
