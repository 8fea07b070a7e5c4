import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dti_geom.errors import StudyError
from dti_geom.files import dumps, to_json
from dti_geom.study import read_answers
from dti_geom.study.answers import RaterAnswers
from dti_geom.study.design import Study
from dti_geom.study.simulation import Crowd, simulate
from studies import planned


@pytest.fixture(scope="module")
def study() -> Study:
    return planned(raters=4)


@pytest.fixture(scope="module")
def given(study: Study) -> list[RaterAnswers]:
    return simulate(study, Crowd((0.0,) * 3), np.random.default_rng(0))


def test_answers_in_a_folder_come_back_as_they_were(
    study: Study, given: list[RaterAnswers], tmp_path: Path
) -> None:
    for answers in given:
        (tmp_path / f"{answers.rater}.json").write_text(dumps(answers))
    assert read_answers(study, [tmp_path]) == (given, [])


def test_of_two_files_of_a_session_the_later_counts(
    study: Study, given: list[RaterAnswers], tmp_path: Path
) -> None:
    early, late = replace(given[0], answers=given[0].answers[:4]), given[0]
    (tmp_path / "a.json").write_text(dumps(early))
    (tmp_path / "b.json").write_text(dumps(late))
    assert read_answers(study, [tmp_path / "b.json", tmp_path / "a.json"]) == ([early], [])
    assert read_answers(study, [tmp_path]) == ([late], [])
    (tmp_path / "c.json").write_text(dumps(replace(early, session="another person")))
    assert len(read_answers(study, [tmp_path])[0]) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"study": "another"}, "expected"),
        ({"rater": 5}, "expected 1 to 4"),
        ({"rater": 2}, "does not show"),
        ({"rater": "1"}, "rater"),
        ({"more": 1}, "more"),
        ({"answers": [0]}, "answers"),
        ({"screen": 99}, "screen 99"),
        ({"screen": -1}, "screen -1"),
        ({"choice": "x"}, "does not show"),
        ({"question": "beauty"}, "beauty"),
        ({"twice": True}, "two answers"),
    ],
)
def test_a_file_that_does_not_fit_is_left_out_with_the_reason(
    study: Study,
    given: list[RaterAnswers],
    tmp_path: Path,
    change: dict[str, Any],
    reason: str,
) -> None:
    content = to_json(given[0])
    if "twice" in change:
        content["answers"].append(content["answers"][0])
    elif set(change) & {"screen", "choice", "question"}:
        content["answers"][0] |= change
    else:
        content |= change
    (tmp_path / "bad.json").write_text(json.dumps(content))
    (tmp_path / "good.json").write_text(dumps(given[1]))
    answers, (refused,) = read_answers(study, [tmp_path])
    assert answers == [given[1]]
    assert refused.file.endswith("bad.json")
    assert reason in refused.reason


def test_without_any_answer_the_first_reason_is_told(study: Study, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(StudyError, match="not a file of answers"):
        read_answers(study, [tmp_path])
    with pytest.raises(StudyError, match="does not exist"):
        read_answers(study, [tmp_path / "none"])


def test_no_difference_is_no_answer_where_the_study_does_not_offer_it(
    given: list[RaterAnswers], tmp_path: Path
) -> None:
    tied = planned(raters=4, ties=False)
    (tmp_path / "a.json").write_text(dumps(given[0]))
    assert any(answer.choice == "none" for answer in given[0].answers)
    with pytest.raises(StudyError, match="does not show"):
        read_answers(tied, [tmp_path])
