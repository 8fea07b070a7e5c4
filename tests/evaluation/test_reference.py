from collections.abc import Sequence
from dataclasses import replace

import pytest

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.evaluation import Evaluation, summarize
from dti_geom.evaluation.pictures import SamplerSettings
from dti_geom.evaluation.reference import PUBLISHED, TABLES, ComparedRow, Comparison, compare
from dti_geom.evaluation.scores import ImageScore, ScorerAccuracy
from dti_geom.files import from_json, to_json
from dti_geom.mini.ceilings import ConceptCeiling, Likeness
from dti_geom.statistics import Interval, Share


def evaluation(
    model: str = "sdxl", methods: Sequence[str] = ("dti",), subject: float = 0.5, text: float = 0.4
) -> Evaluation:
    scores = tuple(
        ImageScore(method, name, "", "a {}", "x", seed, "0.png", subject + 0.01 * seed, text)
        for method in methods
        for name in ("dog", "cat")
        for seed in (0, 1)
    )
    settings = SamplerSettings(50, 5.0, 1024, "float32")
    known = (scores, (), tuple(summarize(scores)), (), (), (), ())
    return Evaluation(
        model, "paper", (0, 1), settings, "dinov2", "siglip", "sigmoid of the logit", *known
    )


def row(comparison: Comparison, table: str, model: str, method: str) -> ComparedRow:
    return next(
        one
        for one in comparison.rows
        if (one.reference.table, one.reference.model, one.reference.method)
        == (table, model, method)
    )


def width(interval: Interval) -> float:
    assert interval.low is not None
    assert interval.high is not None
    return interval.high - interval.low


def test_the_published_rows_are_those_of_the_tables() -> None:
    main = {
        (one.model, one.method): (one.subject, one.text) for one in PUBLISHED if one.table == "main"
    }
    assert main["sdxl", "ti"] == (0.561, 0.292)
    assert main["sdxl", "dti"] == (0.450, 0.522)
    assert main["sd15", "dti"] == (0.418, None)
    assert [sum(one.table == table for one in PUBLISHED) for table in TABLES] == [10, 6, 8]
    assert len({(one.table, one.model, one.method) for one in PUBLISHED}) == len(PUBLISHED)


def test_a_run_stands_beside_every_row_of_its_model_and_method_and_the_others_are_not_run() -> None:
    found = compare([evaluation()])
    for table in ("main", "ablation"):
        beside = row(found, table, "sdxl", "dti")
        assert beside.subject is not None
        assert beside.subject_difference is not None
        assert beside.text_difference is not None
        assert beside.subject.mean == pytest.approx(0.505)
        assert beside.subject_difference.mean == pytest.approx(0.505 - 0.450)
        assert beside.text_difference.mean == pytest.approx(0.4 - 0.522)
        assert width(beside.subject_difference) == pytest.approx(width(beside.subject))
    absent = [one for one in found.rows if one.subject is None]
    assert len(absent) == len(PUBLISHED) - 2
    assert all(one.text is one.subject_difference is one.text_difference is None for one in absent)


def test_a_score_that_was_not_published_has_no_difference() -> None:
    beside = row(compare([evaluation("sd15")]), "main", "sd15", "dti")
    assert beside.text is not None
    assert beside.text_difference is None


def test_what_has_no_row_stands_apart_and_a_hub_id_is_the_model_it_names() -> None:
    found = compare(
        [
            evaluation("mini"),
            evaluation("stabilityai/stable-diffusion-xl-base-1.0", ("dti", "mine")),
        ]
    )
    assert [(one.model, one.method) for one in found.others] == [("mini", "dti"), ("sdxl", "mine")]
    assert row(found, "main", "sdxl", "dti").subject is not None


def test_what_is_not_the_papers_protocol_is_said() -> None:
    assert compare([evaluation()]).notes == ("sdxl: 2 of 30 subjects; seeds 0, 1.",)
    other = replace(evaluation(), image_encoder="clip", prompts="styles", seeds=(0, 1, 2, 3))
    assert compare([other]).notes == (
        "sdxl: scored by clip and siglip, not dinov2 and siglip; 2 of 30 subjects; prompts styles.",
    )
    assert compare([evaluation("mini")]).notes == ("mini: not a model of the paper.",)


def test_two_results_of_the_same_method_are_refused() -> None:
    with pytest.raises(EvaluationError, match="two results hold dti on sdxl"):
        compare([evaluation(), evaluation()])


def test_the_comparison_round_trips_through_json() -> None:
    found = compare([evaluation(), evaluation("mini")])
    assert from_json(Comparison, to_json(found)) == found


def test_ceilings_and_the_scorers_accuracy_are_kept_beside_scores_of_ones_own() -> None:
    own = evaluation("mini")
    accuracy = (ScorerAccuracy("both", Share.of(9, 10), Share.of(8, 10)),)
    ceilings = {"dog": ConceptCeiling("dog", {}, Likeness(0.9, 0.8, 0.1))}
    summaries = tuple(replace(row, subject_ceiling=0.8) for row in own.summaries)
    known = replace(own, accuracy=accuracy, ceilings=ceilings, summaries=summaries)
    found = compare([evaluation(), known])
    assert (found.accuracy, found.ceilings) == (accuracy, ceilings)
    assert found.others[0].subject_ceiling == 0.8
