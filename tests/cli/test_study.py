import json
from pathlib import Path

import numpy as np
import pytest

from dti_geom.files import dumps, load_result
from dti_geom.study import read_study
from dti_geom.study.scoring import StudyScore
from dti_geom.study.simulation import Crowd, simulate
from studies import METHODS, write_evaluation
from warm import Run, RunJson


@pytest.fixture(scope="module")
def study(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_evaluation(folder / "evaluation", seeds=[0])
    done = run(
        *("study", "build", folder / "evaluation", "--out", folder / "study", "--raters", 8),
        *("--references", folder / "evaluation" / "references", "--trials", 6, "--seed", 1),
    )
    assert done.returncode == 0, done.stderr
    assert "8 raters see 12 screens each, 6 of them catch trials" in " ".join(done.stdout.split())
    assert str(folder / "study" / "public" / "index.html") in done.stdout
    return folder / "study"


@pytest.fixture(scope="module")
def answers(study: Path) -> Path:
    folder = study.with_name("answers")
    folder.mkdir()
    key = read_study(study)
    for given in simulate(key, Crowd((0.0, 2.0, 0.0)), np.random.default_rng(0)):
        (folder / f"{given.rater}.json").write_text(dumps(given))
    return folder


def test_scoring_prints_shares_and_keeps_a_page(
    run: Run, study: Path, answers: Path, tmp_path: Path
) -> None:
    done = run("study", "score", study, answers, "--out", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    assert "“dti” was chosen most" in " ".join(done.stdout.split())
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"study.json", "index.html"}
    kept = load_result(tmp_path / "kept" / "study.json", StudyScore)
    assert set(kept.methods) == set(METHODS)


def test_json_is_the_score_and_what_is_left_out_is_told(
    run: Run, study: Path, answers: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text("[]")
    done = run("study", "score", study, answers, tmp_path, "--json")
    assert len(json.loads(done.stdout)["shares"]) == 6
    assert "x.json" in done.stderr


def test_answers_of_another_study_are_an_error(run: Run, study: Path, tmp_path: Path) -> None:
    done = run("study", "score", study, tmp_path)
    assert done.returncode == 1
    assert "no answers of the study" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_names_a_number_of_raters(run_json: RunJson) -> None:
    plan = run_json(
        *("study", "plan", "--difference", 0.6, "--methods", 2, "--subjects", 8, "--prompts", 4),
        *("--trials", 6, "--studies", 10),
    )
    assert plan["enough"]["raters"] >= 10
