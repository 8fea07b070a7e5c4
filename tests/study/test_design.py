from collections import Counter

import pytest

from dti_geom.errors import StudyError
from dti_geom.study.design import Study, Trial, catch_needed, least_right
from studies import planned


def names(count: int) -> list[str]:
    return [f"method{at}" for at in range(count)]


def by_name(study: Study) -> dict[str, Trial]:
    return {trial.name: trial for trial in study.trials}


@pytest.mark.parametrize(("methods", "shown"), [(2, 2), (3, 3), (4, 2), (5, 4)])
def test_methods_subjects_prompts_and_sides_are_balanced(methods: int, shown: int) -> None:
    study = planned(names(methods), shown=shown)
    trials = by_name(study)
    counts: dict[str, Counter[object]] = {
        kind: Counter() for kind in ("side", "subject", "prompt", "with")
    }
    for own in study.raters:
        for screen in own:
            trial = trials[screen.trial]
            assert sorted(screen.pictures) == sorted(trial.pictures)
            if trial.catches:
                continue
            counts["subject"][trial.subject] += 1
            counts["prompt"][trial.prompt] += 1
            counts["with"][tuple(sorted(trial.pictures.values()))] += 1
            for side, name in enumerate(screen.pictures):
                counts["side"][trial.pictures[name], side] += 1
    assert len(counts["side"]) == methods * shown
    for kind, found in counts.items():
        assert max(found.values()) - min(found.values()) <= 0.05 * max(found.values()) + 2, kind


def test_each_rater_sees_methods_on_all_sides_and_no_case_twice() -> None:
    study = planned(names(4))
    trials = by_name(study)
    for own in study.raters:
        ordinary = [screen for screen in own if not trials[screen.trial].catches]
        assert len({screen.trial for screen in ordinary}) == len(ordinary) == 20
        sides = Counter(
            (trials[screen.trial].pictures[name], side)
            for screen in ordinary
            for side, name in enumerate(screen.pictures)
        )
        assert max(sides.values()) - min(sides.values()) <= 4


def test_the_right_side_of_catch_trials_is_balanced_and_their_places_vary() -> None:
    study = planned(names(3))
    trials = by_name(study)
    sides: Counter[int] = Counter()
    places: Counter[int] = Counter()
    for own in study.raters:
        caught = [screen for screen in own if trials[screen.trial].catches]
        assert Counter(trials[screen.trial].catches for screen in caught) == {
            "subject": 3,
            "text": 3,
        }
        for screen in caught:
            what = [trials[screen.trial].pictures[name] for name in screen.pictures]
            assert what.count("right") == 1
            sides[what.index("right")] += 1
            places[own.index(screen)] += 1
    assert max(sides.values()) - min(sides.values()) <= 1
    assert len(places) > 20


def test_the_same_seed_gives_the_same_study_and_another_seed_other_names() -> None:
    assert planned(names(3), raters=5) == planned(names(3), raters=5)
    first, second = planned(names(3), raters=5), planned(names(3), raters=5, seed=1)
    assert not set(first.sources) & set(second.sources)
    assert first.raters != second.raters


def test_a_subject_catch_shows_a_reference_that_no_screen_shows_as_such() -> None:
    study = planned(names(3))
    shown = {study.sources[name] for names in study.references.values() for name in names}
    for trial in study.trials:
        for name, what in trial.pictures.items() if trial.catches == "subject" else ():
            source = study.sources[name]
            if what == "right":
                assert source not in shown
                assert f"/{trial.subject.removeprefix('subject')}/" in source
            else:
                assert f"/{trial.subject.removeprefix('subject')}/" not in source


@pytest.mark.parametrize("shown", [2, 3, 4, 6])
def test_a_rater_who_guesses_rarely_passes_and_one_mistake_is_forgiven(shown: int) -> None:
    from scipy.stats import binom

    asked = catch_needed(shown)
    least = least_right(asked, shown)
    assert least < asked
    assert binom.sf(least - 1, asked, 1 / shown) < 0.05 < binom.sf(least - 2, asked, 1 / shown)


def test_too_few_catch_trials_pass_nobody() -> None:
    assert least_right(1, 2) == 2


def test_numbers_that_make_no_study_are_refused() -> None:
    with pytest.raises(StudyError, match="only method"):
        planned(names(1))
    with pytest.raises(StudyError, match="expected 2 to 3"):
        planned(names(3), shown=4)
