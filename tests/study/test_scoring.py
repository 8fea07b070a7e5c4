from dataclasses import replace

import numpy as np
import pytest

from dti_geom.errors import StudyError
from dti_geom.files import from_json, to_json
from dti_geom.statistics import Interval
from dti_geom.study import score_study
from dti_geom.study.answers import Answer, RaterAnswers
from dti_geom.study.design import NONE, Study
from dti_geom.study.scoring import StudyScore
from dti_geom.study.simulation import Crowd, simulate, true_shares
from studies import METHODS, planned, study_score

EQUAL = Crowd((0.0, 0.0, 0.0))


def simulated(study: Study, crowd: Crowd, seed: int = 0) -> StudyScore:
    return score_study(study, simulate(study, crowd, np.random.default_rng(seed)))


def holds(interval: Interval, truth: float) -> bool:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low <= truth <= interval.high


def choosing(study: Study, method: str | None) -> list[RaterAnswers]:
    """Raters who are careful, and always choose a method; None: that none is better."""
    trials = {trial.name: trial for trial in study.trials}
    found = []
    for number, screens in enumerate(study.raters, 1):
        answers = []
        for at, screen in enumerate(screens):
            trial = trials[screen.trial]
            named = {what: name for name, what in trial.pictures.items()}
            choice = named["right"] if trial.catches else named.get(method or "", NONE)
            answers += [Answer(at, trial.name, asked, choice, 2.0) for asked in ("subject", "text")]
        found.append(RaterAnswers("study answers", study.name, number, "x", tuple(answers)))
    return found


def test_a_method_that_is_always_chosen_has_all_of_the_share() -> None:
    score = score_study(planned(), choosing(planned(), "dti"))
    assert {(s.method, s.share.mean) for s in score.shares} == {
        ("ti", 0.0),
        ("dti", 1.0),
        ("crossinit", 0.0),
    }
    assert [(s.share.low, s.share.high) for s in score.shares if s.method == "dti"] == [(1, 1)] * 2
    strengths = {s.method: s.log_strength.mean for s in score.strengths}
    assert strengths["dti"] > 2 > 0 > strengths["ti"]
    assert all(np.isfinite(list(strengths.values())))
    assert [found.alpha for found in score.agreement] == [None, None]
    assert all(pair.p == 0 for pair in score.differences if "dti" in (pair.first, pair.second))
    assert all(pair.p == 1 for pair in score.differences if "dti" not in (pair.first, pair.second))


def test_an_answer_that_none_is_better_counts_for_all_pictures_alike() -> None:
    score = score_study(planned(), choosing(planned(), None))
    assert [s.share.mean for s in score.shares] == pytest.approx([1 / 3] * 6)
    assert score.ties == score.answers
    assert [s.log_strength.mean for s in score.strengths] == pytest.approx([0] * 6, abs=1e-6)


def test_shares_of_a_question_add_up_to_one_and_sides_too() -> None:
    score = simulated(planned(), Crowd((0.0, 0.5, 1.0)))
    for question in ("subject", "text"):
        shares = [s.share.mean for s in score.shares if s.question == question]
        places = [s.share.mean for s in score.sides if s.question == question]
        assert sum(shares) == pytest.approx(1)
        assert sum(places) == pytest.approx(1)


def test_the_strengths_of_pairs_are_those_of_the_model_that_answers_were_drawn_from() -> None:
    study = planned(["a", "b"], raters=200, ties=False)
    alike = Crowd((0.0, 1.0), 0, 0, 0, tie=0)
    score = simulated(study, alike)
    strengths = [s.log_strength for s in score.strengths if s.question == "text"]
    # Gumbel noise of scale 1: the log odds of b are 1.
    assert strengths[1].mean - strengths[0].mean == pytest.approx(1, abs=0.1)
    assert holds(strengths[1], 0.5)


def test_intervals_hold_the_true_shares_and_differences_as_often_as_they_say() -> None:
    # benchmarks/study.py measures it on 300 studies of each design. The 240 here depend on
    # one another, so 95 % within 5 points is what chance leaves.
    study = planned(subjects=12, raters=24)
    crowd = Crowd((0.0, 0.3, 0.6))
    truth = dict(zip(METHODS, true_shares(study, crowd, 100_000), strict=True))
    hits = []
    for seed in range(20):
        score = simulated(study, crowd, seed)
        hits += [holds(s.share, truth[s.method]) for s in score.shares]
        hits += [holds(d.difference, truth[d.first] - truth[d.second]) for d in score.differences]
    assert 0.90 <= np.mean(hits) <= 0.995


def test_a_planted_difference_is_found_and_equal_methods_are_rarely_told_apart() -> None:
    study = planned(subjects=12, raters=24)

    def found(crowd: Crowd, seed: int) -> set[tuple[str, str]]:
        differences = simulated(study, crowd, seed).differences
        return {(d.first, d.second) for d in differences if d.p is not None and d.p < 0.05}

    planted = [found(Crowd((0.0, 2.0, 0.0)), seed) for seed in range(3)]
    assert all({("ti", "dti"), ("dti", "crossinit")} <= pairs for pairs in planted)
    assert sum(bool(found(EQUAL, seed)) for seed in range(8)) <= 2


def test_raters_who_choose_at_random_are_left_out_and_careful_ones_kept() -> None:
    study = planned(raters=60)
    score = simulated(study, replace(EQUAL, spammers=0.25))
    out = {rater.rater for rater in score.left_out}
    assert len(out & set(range(1, 16))) >= 13
    assert len(out - set(range(1, 16))) <= 1
    assert score.raters == 60 - len(out)
    assert score.catches is not None
    assert score.catches.share > 0.95


def test_a_favoured_place_is_seen_and_does_not_make_methods_differ() -> None:
    study = planned(raters=80)
    biased = [
        simulated(study, replace(EQUAL, subject_spread=0.0, places=(1.5, 0.0, 0.0)), seed)
        for seed in range(3)
    ]
    for score in biased:
        assert score.sides[0].share.mean > 0.5
        assert not any(d.p is not None and d.p < 0.05 for d in score.differences)
        assert [s.share.mean for s in score.shares] == pytest.approx([1 / 3] * 6, abs=0.06)


def test_raters_agree_where_cases_decide_and_not_where_noise_does() -> None:
    study = planned(raters=60)
    noise = simulated(study, Crowd((0.0,) * 3, 0, 0, 0)).agreement[0]
    clear = simulated(study, Crowd((0.0,) * 3, 0, 0, 20.0)).agreement[0]
    assert noise.trials > 40
    assert noise.alpha is not None
    assert clear.alpha is not None
    assert abs(noise.alpha) < 0.05 < 0.8 < clear.alpha


def test_alpha_is_that_of_the_published_formula() -> None:
    study = planned(raters=12)
    answers = simulate(study, EQUAL, np.random.default_rng(0))
    (found, _) = score_study(study, answers).agreement
    # Krippendorff's coincidences, counted pair by pair.
    from dti_geom.study.scoring import judgements

    judged = judgements(study, answers, "subject")
    values = [
        -1 if place < 0 else int(shown[place])
        for place, shown in zip(judged.chosen, judged.shown, strict=True)
    ]
    units: dict[int, list[int]] = {}
    for trial, value in zip(judged.trials, values, strict=True):
        units.setdefault(int(trial), []).append(value)
    several = [unit for unit in units.values() if len(unit) > 1]
    pooled = [value for unit in several for value in unit]
    observed = sum(
        (a != b) / (len(unit) - 1) for unit in several for a in unit for b in unit
    ) / len(pooled)
    expected = sum(a != b for a in pooled for b in pooled) / (len(pooled) * (len(pooled) - 1))
    assert found.alpha == pytest.approx(1 - observed / expected)


def test_the_papers_shares_stand_beside_dti_and_nothing_else() -> None:
    shares = {(s.question, s.method): s.published for s in study_score().shares}
    assert shares["subject", "dti"] == 0.4345
    assert shares["text", "dti"] == 0.6677
    assert set(shares.values()) == {0.4345, 0.6677, None}


def test_a_score_survives_its_file() -> None:
    score = study_score()
    assert from_json(StudyScore, to_json(score)) == score


def test_a_study_where_nobody_counts_is_refused() -> None:
    study = planned()
    with pytest.raises(StudyError, match="60 of 60 failed the catch trials"):
        score_study(study, [replace(rater, answers=()) for rater in choosing(study, "dti")])
