import pytest

from dti_geom.evaluation import SamplerSettings
from dti_geom.evaluation.evaluation import Evaluation, scorer_accuracy, summarize
from dti_geom.evaluation.scores import ImageScore
from dti_geom.files import load_result, save_result
from dti_geom.reporting import Report


@pytest.fixture(scope="module")
def result(tmp_path_factory):
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
    known = (scores, (), tuple(summarize(scores)), (), (), scorer_accuracy(), ())
    settings = SamplerSettings(50, 5.0, 1024, "float32")
    evaluation = Evaluation(
        "sdxl", "paper", (0, 1), settings, "mini", "siglip", "sigmoid of the logit", *known
    )
    folder = tmp_path_factory.mktemp("evaluation")
    save_result(folder / "evaluation.json", Report("sdxl", evaluation=evaluation))
    return folder


def test_compare_prints_the_papers_rows_and_says_what_was_not_run(
    run, result, tmp_path, table_lines
):
    done = run("compare", result, "--out", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["sdxl", "ti", "0.561", "not", "run", "0.292", "not", "run"] in lines
    assert ["sdxl", "dti", "0.450", "0.56", "0.522", "0.4"] in lines
    assert any(line[:3] == ["sdxl", "dti", "0.11"] for line in lines)
    assert any(line[:3] == ["sdxl", "mine", "0.56"] for line in lines)
    assert (
        "sdxl: scored by mini and siglip, not dinov2 and siglip; 2 of 30 subjects; seeds 0, 1."
        in " ".join(done.stdout.split())
    )
    assert "The scorer's own accuracy" in done.stdout
    assert max(map(len, table_lines(done.stdout))) <= 80
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {
        "comparison.json",
        "index.html",
    }
    assert (
        load_result(tmp_path / "kept" / "comparison.json", Report).comparison.others[0].method
        == "mine"
    )


def test_json_is_the_comparison_and_nothing_else(run_json, result):
    found = run_json("compare", result / "evaluation.json")
    assert set(found) == {"rows", "others", "notes"}
    assert set(found["rows"][0]) == {
        "reference",
        "subject",
        "text",
        "subject_difference",
        "text_difference",
    }


def test_a_result_without_scores_is_refused(run, tmp_path):
    save_result(tmp_path / "evaluation.json", Report("mini"))
    done = run("compare", tmp_path)
    assert done.returncode == 1
    assert "holds no evaluation" in done.stderr
