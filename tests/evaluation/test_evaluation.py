import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.evaluation import (
    ALL,
    CLASS_WORD,
    Candidate,
    Evaluation,
    evaluate,
    paired_differences,
    prompt_scores,
    summarize,
    with_baselines,
)
from dti_geom.evaluation.prompts import Prompt, PromptSet
from dti_geom.evaluation.scores import ImageScore, PromptFit, scorer_accuracy
from dti_geom.files import from_json, to_json
from dti_geom.geometry import norms, summarize_norms
from dti_geom.models.catalog import embedded_folder
from dti_geom.models.image_encoders import open_image_encoder, open_image_text_encoder
from image_models import build_clip, build_dinov2


def score(method, subject, seed, subject_score, text_score, prompt="a {}", group="x", run=""):
    return ImageScore(method, subject, run, prompt, group, seed, "0.png", subject_score, text_score)


def test_a_summary_weighs_subjects_alike_and_names_each_group():
    scores = [score("dti", "dog", seed, 0.2, 0.4) for seed in range(8)]
    scores += [score("dti", "cat", seed, 0.6, 0.8, group="y") for seed in range(2)]
    overall, x, y = summarize(scores)
    assert (overall.group, overall.images, overall.subject.mean) == (ALL, 10, pytest.approx(0.4))
    assert (x.group, x.text.mean, x.subject.subjects) == ("x", pytest.approx(0.4), 1)
    assert (y.group, y.images) == ("y", 2)


def test_differences_are_taken_only_on_what_both_methods_have():
    scores = [score("dti", "dog", seed, 0.5 + seed / 10, 0.9) for seed in range(3)]
    scores += [score("ti", "dog", seed, 0.3 + seed / 10, 0.5) for seed in range(2)]
    scores += [score("ti", "dog", 0, 0.0, 0.0, prompt="another {}")]
    (found,) = paired_differences(scores)
    assert (found.first, found.second, found.cells) == ("dti", "ti", 2)
    assert (found.subject.mean, found.text.mean) == pytest.approx((0.2, 0.4))
    assert (found.subject.low, found.subject.high) == pytest.approx((0.2, 0.2))  # seeds cancel


def test_training_runs_of_one_subject_are_averaged_before_they_are_paired():
    scores = [
        score("dti", "dog", 0, value, 0.5, run=run) for run, value in (("a", 0.2), ("b", 0.6))
    ]
    scores += [score("ti", "dog", 0, 0.1, 0.5)]
    (found,) = paired_differences(scores)
    assert (found.cells, found.subject.mean) == (1, pytest.approx(0.3))


def test_nothing_is_compared_that_shares_no_subject():
    assert paired_differences([score("dti", "dog", 0, 1, 1), score("ti", "cat", 0, 1, 1)]) == []


def test_each_prompt_has_its_means():
    scores = [score("dti", "dog", seed, seed, 0.5, prompt="a {}") for seed in (0, 1)] + [
        score("ti", "dog", 0, 1, 1)
    ]
    first, second = prompt_scores(scores)
    assert (first.method, first.images, first.subject, first.text) == ("dti", 2, 0.5, 0.5)
    assert (second.method, second.images) == ("ti", 1)


def test_the_scorers_accuracy_is_what_the_models_figures_say():
    rows = json.loads((embedded_folder() / "figures.json").read_text())["rows"]
    found = {one.check: one for one in scorer_accuracy(open_image_encoder("mini"))}
    assert set(found) == {"background", "colour", "accessory", "count", "order", "both"}
    assert to_json(found["order"].renders) == rows["true renders"]["relation"]
    assert to_json(found["colour"].reconstructions) == rows["reconstructions"]["first_colour"]


@pytest.fixture
def subjects(tmp_path):
    """Two subjects, each with two reference images."""
    rng = np.random.default_rng(0)
    files = {}
    for subject in ("cat", "dog"):
        paths = [tmp_path / f"{subject}-{number}.png" for number in range(2)]
        for path in paths:
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
        files[subject] = tuple(map(str, paths))
    return files


@pytest.fixture
def candidates(subjects):
    def make(*methods, norm=3.0):
        rng = torch.Generator().manual_seed(0)
        return [
            Candidate(
                method,
                subject,
                subject,
                files,
                (norm * torch.randn(1, 32, generator=rng) / 32**0.5,),
                method,
            )
            for method in methods
            for subject, files in subjects.items()
        ]

    return make


@pytest.fixture
def encoders(tmp_path):
    return (
        open_image_encoder(str(build_dinov2(tmp_path / "dinov2"))),
        PromptFit(open_image_text_encoder(str(build_clip(tmp_path / "clip")))),
    )


PROMPTS = PromptSet(
    "two",
    lambda word, _thing: (
        Prompt(f"a red {{}}, a {word}", "one"),
        Prompt("a {} and a {other}", "two"),
    ),
)


def test_every_method_is_scored_on_the_same_cells_and_the_result_round_trips(
    sd15, candidates, encoders, tmp_path
):
    result = evaluate(sd15, candidates("dti", "ti"), PROMPTS, (0, 1), *encoders, tmp_path, steps=2)
    assert len(result.images) == 2 * 2 * 2 * 2
    assert {(one.method, one.subject, one.prompt, one.seed) for one in result.images} == {
        (method, subject, prompt.text, seed)
        for method in ("dti", "ti")
        for subject in ("cat", "dog")
        for prompt in PROMPTS.of(subject, "")
        for seed in (0, 1)
    }
    assert len({one.file for one in result.images}) == 16
    assert {path.name for path in (tmp_path / "pictures").glob("*.png")} == {
        one.file for one in result.images
    }
    assert [one.cells for one in result.differences] == [8, 4, 4]
    assert len(result.pictures) == 8
    assert result.accuracy == ()
    assert from_json(Evaluation, json.loads(json.dumps(to_json(result)))) == result


def test_a_broken_picture_leaves_its_cell_out_of_the_difference(
    sd15, candidates, encoders, tmp_path
):
    first = evaluate(sd15, candidates("dti", "ti"), PROMPTS, (0, 1), *encoders, tmp_path, steps=2)
    (tmp_path / "pictures" / first.images[0].file).write_bytes(b"torn")
    again = evaluate(sd15, candidates("dti", "ti"), PROMPTS, (0, 1), *encoders, tmp_path, steps=2)
    assert [one.file for one in again.images] == [one.file for one in first.images[1:]]
    assert [one.subject_score for one in again.images] == pytest.approx(
        [x.subject_score for x in first.images[1:]]
    )
    assert [one.file for one in again.left_out] == [
        str(tmp_path / "pictures" / first.images[0].file)
    ]
    assert again.differences[0].cells == 7


def test_a_method_with_one_subject_goes_without_prompts_of_two(
    sd15, candidates, encoders, tmp_path
):
    result = evaluate(sd15, candidates("dti")[:1], PROMPTS, (0,), *encoders, tmp_path, steps=2)
    assert [one.group for one in result.images] == ["one"]


def test_baselines_are_the_class_word_and_each_token_at_the_vocabularys_mean_norm(sd15, candidates):
    found = with_baselines(candidates("ti"), sd15)
    assert [(one.method, one.subject) for one in found] == [
        (method, subject)
        for method in ("ti", "ti-rescaled", CLASS_WORD)
        for subject in ("cat", "dog")
    ]
    mean = summarize_norms(sd15.towers[0].token_table).mean
    assert norms(found[2].vectors[0]).item() == pytest.approx(mean)
    assert found[4].vectors is None
    at_mean = [replace(one, method="dti", vectors=found[2].vectors) for one in candidates("dti")]
    assert {one.method for one in with_baselines(at_mean, sd15)} == {"dti", CLASS_WORD}


def test_a_subject_has_the_same_references_throughout(sd15, candidates, encoders, tmp_path):
    first, second, *_ = candidates("dti", "ti")
    other = replace(first, references=second.references, run="runs/other")
    with pytest.raises(EvaluationError, match=r"cat has other reference images in runs/other"):
        evaluate(sd15, [first, other], PROMPTS, (0,), *encoders, tmp_path, steps=2)
    with pytest.raises(EvaluationError, match="no run was given"):
        evaluate(sd15, [], PROMPTS, (0,), *encoders, tmp_path)
