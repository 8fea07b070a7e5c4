import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

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
    check_summaries,
    evaluate,
    paired_differences,
    prompt_scores,
    summarize,
    with_baselines,
)
from dti_geom.evaluation.learned import TokenVectors
from dti_geom.evaluation.prompts import SUBJECT, Prompt, PromptSet
from dti_geom.evaluation.scores import ImageScore, PromptFit, SceneChecks, scorer_accuracy
from dti_geom.files import from_json, to_json
from dti_geom.geometry import norms, summarize_norms
from dti_geom.mini.ceilings import Ceiling, ConceptCeiling, Likeness
from dti_geom.mini.prompts import SceneTemplate
from dti_geom.mini.scenes import Item, Scene
from dti_geom.models.catalog import embedded_folder
from dti_geom.models.image_encoders import ImageEncoder, ImageTextEncoder, open_image_encoder
from dti_geom.models.pipelines import TextToImage
from dti_geom.statistics import Share, bootstrap_test

Candidates = Callable[..., list[Candidate]]


def score(
    method: str,
    subject: str,
    seed: int,
    subject_score: float,
    text_score: float,
    prompt: str = "a {}",
    group: str = "x",
    run: str = "",
) -> ImageScore:
    return ImageScore(
        method=method,
        subject=subject,
        run=run,
        prompt=prompt,
        group=group,
        seed=seed,
        file="0.png",
        subject_score=subject_score,
        text_score=text_score,
    )


def test_a_summary_weighs_subjects_alike_and_names_each_group() -> None:
    scores = [score("dti", "dog", seed, 0.2, 0.4) for seed in range(8)]
    scores += [score("dti", "cat", seed, 0.6, 0.8, group="y") for seed in range(2)]
    overall, x, y = summarize(scores)
    assert (overall.group, overall.images) == (ALL, 10)
    assert (overall.subject.mean, x.text.mean) == pytest.approx((0.4, 0.4))
    assert (x.group, x.subject.subjects) == ("x", 1)
    assert (y.group, y.images) == ("y", 2)


def test_differences_are_taken_only_on_what_both_methods_have() -> None:
    scores = [score("dti", "dog", seed, 0.5 + seed / 10, 0.9) for seed in range(3)]
    scores += [score("ti", "dog", seed, 0.3 + seed / 10, 0.5) for seed in range(2)]
    scores += [score("ti", "dog", 0, 0.0, 0.0, prompt="another {}")]
    (found,) = paired_differences(scores)
    assert (found.first, found.second, found.cells) == ("dti", "ti", 2)
    assert (found.subject.mean, found.text.mean) == pytest.approx((0.2, 0.4))
    assert (found.subject.low, found.subject.high) == pytest.approx((0.2, 0.2))  # seeds cancel


def runs(method: str, *values: float, subject: str = "dog") -> list[ImageScore]:
    """One picture of each training run."""
    return [
        score(method, subject, 0, value, 0.5, run=f"{method}-{number}")
        for number, value in enumerate(values)
    ]


def test_training_runs_are_paired_in_order_and_an_only_run_with_each() -> None:
    (found,) = paired_differences([*runs("dti", 0.2, 0.6), *runs("ti", 0.1, 0.5)])
    assert (found.cells, found.subject.values) == (2, 2)
    assert (found.subject.low, found.subject.high) == pytest.approx((0.1, 0.1))  # both alike
    (found,) = paired_differences([*runs("dti", 0.2, 0.6), *runs("ti", 0.1)])
    assert found.cells == 2
    assert found.subject.mean == pytest.approx(0.3)
    assert found.subject.low < 0 < found.subject.high  # type: ignore[operator]
    (found,) = paired_differences([*runs("dti", 0.2, 0.6), *runs("ti", 0.0, 0.1, 0.2)])
    assert found.cells == 1
    assert found.subject.mean == pytest.approx(0.3)


def test_training_runs_are_a_level_of_the_interval() -> None:
    """Two runs that differ say more of the next one than two pictures of one run."""
    two_runs = [image for subject in "ab" for image in runs("dti", 0.2, 0.8, subject=subject)]
    one_run = [replace(image, run="", seed=number % 2) for number, image in enumerate(two_runs)]
    assert summarize(two_runs)[0].subject.values == summarize(one_run)[0].subject.values == 4
    alone = [image for image in two_runs if image.subject == "a"]
    steady = [replace(image, seed=seed) for image in alone for seed in range(9)]
    assert summarize(steady)[0].subject.low == summarize(alone)[0].subject.low


def test_the_p_values_of_a_table_are_one_family_and_noise_of_sums_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    scores: list[ImageScore] = []
    for number in range(8):
        base = float(rng.random() / 2)
        for method, shift in (("a", 0.0), ("b", 0.1 + rng.random() / 10), ("c", 1e-17)):
            for group in ("x", "y"):
                scores.append(
                    score(method, f"s{number}", 0, base + shift, base, prompt=group, group=group)
                )
    found = paired_differences(scores)
    overall = [row for row in found if row.group == ALL]
    assert {(row.first, row.second): row.text_p for row in overall} == {
        ("a", "b"): 1.0,
        ("a", "c"): 1.0,
        ("b", "c"): 1.0,
    }
    alike = next(row for row in overall if (row.first, row.second) == ("a", "c"))
    assert alike.subject_p == 1.0
    levels = [
        [[(score.subject_score - base.subject_score)]]
        for score, base in zip(
            [one for one in scores if one.method == "a" and one.group == "x"],
            [one for one in scores if one.method == "b" and one.group == "x"],
            strict=True,
        )
    ]
    alone = bootstrap_test(levels)[1]
    assert alone is not None
    clear = next(row for row in found if (row.first, row.second, row.group) == ("a", "b", "x"))
    # Over all prompts there are 3 pairs and 2 scores; in the two groups twice as many.
    assert overall[0].subject_p == pytest.approx(6 * alone, rel=0.05)
    assert clear.subject_p == pytest.approx(12 * alone, rel=0.05)


def ceiling(both: int, likeness: float = 0.8) -> ConceptCeiling:
    """Of 100 true pictures, so many pass "both"; all pass "background"."""
    checks = {"both": Share.of(both, 100), "background": Share.of(100, 100)}
    return ConceptCeiling(
        "x",
        {name: Ceiling(share, share) for name, share in checks.items()},
        Likeness(0.9, likeness, 0.1),
    )


def test_a_check_is_summed_up_where_it_was_asked_and_can_decide() -> None:
    asked = {"background": True, "both": False}
    scores = [
        replace(score("dti", "dog", 0, 0.5, 1.0), checks=asked, undecided=("both",)),
        replace(score("dti", "cat", 0, 0.5, 0.5), checks=asked),
        replace(score("dti", "cat", 1, 0.5, 1.0), checks={"background": True, "both": True}),
        replace(score("dti", "cat", 2, 0.5, 1.0), checks={"background": True}),
    ]
    ceilings = {"dog": ceiling(30), "cat": ceiling(98)}
    background, both = check_summaries(scores, ceilings)
    assert (background.check, background.images, background.share.mean) == ("background", 4, 1.0)
    assert (both.check, both.images, both.share.mean) == ("both", 2, 0.5)
    assert (background.ceiling, both.ceiling) == (1.0, 0.98)
    assert [one.ceiling for one in check_summaries(scores, {"cat": ceiling(98)})] == [None, 0.98]


def test_ceilings_stand_beside_the_scores_if_they_are_known_for_every_subject() -> None:
    scores = [
        replace(score("dti", subject, 0, 0.5, 0.5), subject_ceiling=value, text_ceiling=value)
        for subject, value in (("dog", 0.8), ("cat", 0.6), ("cat", 0.6))
    ]
    (found,) = summarize(scores)
    assert (found.subject_ceiling, found.text_ceiling) == pytest.approx((0.7, 0.7))
    (found,) = summarize([*scores, score("dti", "own", 0, 0.5, 0.5)])
    assert (found.subject_ceiling, found.text_ceiling) == (None, None)


def test_nothing_is_compared_that_shares_no_subject() -> None:
    assert paired_differences([score("dti", "dog", 0, 1, 1), score("ti", "cat", 0, 1, 1)]) == []


def test_each_prompt_has_its_means() -> None:
    scores = [score("dti", "dog", seed, seed, 0.5, prompt="a {}") for seed in (0, 1)] + [
        score("ti", "dog", 0, 1, 1)
    ]
    first, second = prompt_scores(scores)
    assert (first.method, first.images, first.subject, first.text) == ("dti", 2, 0.5, 0.5)
    assert (second.method, second.images) == ("ti", 1)


def test_the_scorers_accuracy_is_what_the_models_figures_say() -> None:
    rows = json.loads((embedded_folder() / "figures.json").read_text())["rows"]
    found = {one.check: one for one in scorer_accuracy(open_image_encoder("mini"))}
    assert set(found) == {"background", "colour", "accessory", "count", "order", "both"}
    assert to_json(found["order"].renders) == rows["true renders"]["relation"]
    assert to_json(found["colour"].reconstructions) == rows["reconstructions"]["first_colour"]


@pytest.fixture
def subjects(tmp_path: Path) -> dict[str, tuple[str, ...]]:
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
def candidates(subjects: dict[str, tuple[str, ...]]) -> Candidates:
    def make(*methods: str, norm: float = 3.0) -> list[Candidate]:
        rng = torch.Generator().manual_seed(0)
        return [
            Candidate(
                method,
                subject,
                subject,
                files,
                TokenVectors("<x>", (norm * torch.randn(1, 32, generator=rng) / 32**0.5,)),
                method,
            )
            for method in methods
            for subject, files in subjects.items()
        ]

    return make


@pytest.fixture
def encoders(dinov2: ImageEncoder, clip: ImageTextEncoder) -> tuple[ImageEncoder, PromptFit]:
    return dinov2, PromptFit(clip)


PROMPTS = PromptSet(
    "two",
    lambda word, _thing: (
        Prompt(f"a red {{}}, a {word}", "one"),
        Prompt("a {} and a {other}", "two"),
    ),
)


def test_every_method_is_scored_on_the_same_cells_and_the_result_round_trips(
    sd15: TextToImage,
    candidates: Candidates,
    encoders: tuple[ImageEncoder, PromptFit],
    tmp_path: Path,
) -> None:
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
    sd15: TextToImage,
    candidates: Candidates,
    encoders: tuple[ImageEncoder, PromptFit],
    tmp_path: Path,
) -> None:
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
    sd15: TextToImage,
    candidates: Candidates,
    encoders: tuple[ImageEncoder, PromptFit],
    tmp_path: Path,
) -> None:
    result = evaluate(sd15, candidates("dti")[:1], PROMPTS, (0,), *encoders, tmp_path, steps=2)
    assert [one.group for one in result.images] == ["one"]


def test_baselines_are_the_class_word_and_each_token_at_the_vocabularys_mean_norm(
    sd15: TextToImage, candidates: Candidates
) -> None:
    found = with_baselines(candidates("ti"), sd15)
    assert [(one.method, one.subject) for one in found] == [
        (method, subject)
        for method in ("ti", "ti-rescaled", CLASS_WORD)
        for subject in ("cat", "dog")
    ]
    mean = summarize_norms(sd15.towers[0].token_table).mean
    assert isinstance(found[2].learned, TokenVectors)
    assert norms(found[2].learned.vectors[0]).item() == pytest.approx(mean)
    assert found[4].learned is None
    at_mean = [replace(one, method="dti", learned=found[2].learned) for one in candidates("dti")]
    assert {one.method for one in with_baselines(at_mean, sd15)} == {"dti", CLASS_WORD}


def test_a_subject_has_the_same_references_throughout(
    sd15: TextToImage,
    candidates: Candidates,
    encoders: tuple[ImageEncoder, PromptFit],
    tmp_path: Path,
) -> None:
    first, second, *_ = candidates("dti", "ti")
    other = replace(first, references=second.references, run="runs/other")
    with pytest.raises(EvaluationError, match=r"cat has other reference images in runs/other"):
        evaluate(sd15, [first, other], PROMPTS, (0,), *encoders, tmp_path, steps=2)
    with pytest.raises(EvaluationError, match="no run was given"):
        evaluate(sd15, [], PROMPTS, (0,), *encoders, tmp_path)


class Reading:
    """A reader that sees one picture in all: a penguin to the left of a car, in the snow."""

    name = "stub"

    def embed(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return torch.eye(4)[:1].expand(len(images), -1)

    def embed_places(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return torch.eye(4)[:2].expand(len(images), -1, -1)

    def read(self, images: Sequence[Image.Image]) -> list[dict[str, str]]:
        answers = {"first": "penguin", "second": "car", "axis": "row", "background": "snow"}
        return [answers] * len(images)

    def subject_of(self, images: Sequence[Image.Image]) -> str:
        return "duck"

    def accuracy(self) -> dict[str, tuple[Share, Share]]:
        return {}


def test_the_class_word_is_asked_for_the_thing_that_it_names(
    sd15: TextToImage, candidates: Candidates, tmp_path: Path
) -> None:
    duck = replace(candidates("ti")[0], subject="duck", class_word="penguin")
    pair = Scene("snow", Item(SUBJECT), Item("car"), "row")
    asked: list[tuple[str, str]] = []

    def prompts_of(word: str, thing: str) -> tuple[Prompt, ...]:
        asked.append((word, thing))
        return (Prompt("a {} left of a car", "row", SceneTemplate(pair)),)

    reader, prompts = Reading(), PromptSet("pairs", prompts_of)
    found = evaluate(
        sd15,
        with_baselines([duck], sd15),
        prompts,
        (0,),
        reader,
        SceneChecks(reader),
        tmp_path,
        steps=1,
    )
    assert set(asked) == {("penguin", "duck")}  # so that all methods paint the same prompts
    checks = {score.method: score.checks for score in found.images}
    assert checks[CLASS_WORD] == dict.fromkeys(("background", "presence", "both", "order"), True)
    # The picture shows no duck, so there is no side that it could be on.
    assert checks["ti"] == {"background": True, "presence": False, "both": False}
    assert {score.method: score.text_score for score in found.images} == {
        "ti": 0.5,
        "ti-rescaled": 0.5,
        CLASS_WORD: 1.0,
    }


class Brightened:
    """A stand-in for another kind of result, such as a LoRA: it changes the model, not a token."""

    name = "brightened"

    def place(self, model: TextToImage) -> None:
        model.denoiser.conv_out.bias.data.add_(1.0)

    def as_placeholder(self, stem: str) -> "Brightened":
        return self  # its word is a word of the model's vocabulary

    def at_mean_norm(self, means: Sequence[float]) -> None:
        return None

    def at_multiple(self, means: Sequence[float], multiple: float) -> "Brightened":
        return self

    def inflation(self, means: Sequence[float]) -> float:
        return 1.0


def test_another_kind_of_learned_result_is_evaluated_as_token_vectors_are(
    fresh_sd15: TextToImage,
    candidates: Candidates,
    encoders: tuple[ImageEncoder, PromptFit],
    tmp_path: Path,
) -> None:
    plain, *_ = candidates("plain")
    bright = replace(plain, method="bright", learned=Brightened())
    both = with_baselines([bright], fresh_sd15)
    assert [candidate.method for candidate in both] == ["bright", CLASS_WORD]
    before = fresh_sd15.denoiser.conv_out.bias.clone()
    result = evaluate(fresh_sd15, both, PROMPTS, (0,), *encoders, tmp_path, steps=2)
    assert torch.equal(fresh_sd15.denoiser.conv_out.bias, before + 1.0)
    index = (tmp_path / "pictures" / "index.jsonl").read_text()
    assert "a red brightened, a cat" in index
    assert [image.method for image in result.images] == ["bright", CLASS_WORD]
