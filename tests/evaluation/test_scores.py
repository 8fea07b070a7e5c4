from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.prompts import SUBJECT, Prompt
from dti_geom.evaluation.scores import (
    ImageScore,
    LeftOut,
    PromptFit,
    References,
    SceneChecks,
    Shot,
    open_image,
    read_references,
    score_shots,
)
from dti_geom.mini.ceilings import Ceiling, ConceptCeiling, Likeness
from dti_geom.mini.concepts import concept_files, load_concepts
from dti_geom.mini.prompts import SceneTemplate
from dti_geom.mini.recipe.concept_pictures import REFERENCE_BACKGROUNDS
from dti_geom.mini.scenes import Item, Scene
from dti_geom.mini.scorer import ScorerEncoder
from dti_geom.models.catalog import embedded_folder
from dti_geom.models.image_encoders import ImageEncoder, ImageTextEncoder, open_image_encoder
from dti_geom.statistics import Share

CONCEPTS = embedded_folder() / "concepts"


@pytest.fixture(scope="module")
def scorer() -> ScorerEncoder:
    encoder = open_image_encoder("mini")
    assert isinstance(encoder, ScorerEncoder)
    return encoder


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    """Every shipped reference picture, with the prompt that tells its background."""
    return [
        Shot(
            path,
            "dti",
            concept.name,
            Prompt(
                f"a {{}} on {background}",
                "background",
                SceneTemplate(Scene(background, Item(SUBJECT))),
            ),
            seed,
            concept.initialiser,
            thing=concept.item.thing,
        )
        for concept in load_concepts(CONCEPTS)
        for seed, (path, background) in enumerate(
            zip(concept_files(CONCEPTS, concept), REFERENCE_BACKGROUNDS, strict=True)
        )
    ]


def opened(path: Path) -> Image.Image:
    image = open_image(path)
    assert not isinstance(image, LeftOut)
    return image


def mean_text(shots: list[Shot], scorer: ScorerEncoder) -> float:
    images = [opened(shot.path) for shot in shots]
    scores = [score for score, _ in SceneChecks(scorer).score(images, shots)]
    return fmean(score for score in scores if score is not None)


@pytest.mark.parametrize("name", ["mini", "dinov2"])
def test_a_real_image_against_itself_scores_1(
    shots: list[Shot], name: str, scorer: ScorerEncoder, dinov2: ImageEncoder
) -> None:
    encoder = scorer if name == "mini" else dinov2
    shot = shots[0]
    references, left_out = read_references([shot.path], encoder)
    scores, _ = score_shots([shot], {shot.subject: references}, encoder, SceneChecks(scorer))
    assert scores[0].subject_score == pytest.approx(1, abs=1e-6)
    assert left_out == []


def test_the_subject_score_is_the_mean_cosine_to_all_references(
    shots: list[Shot], scorer: ScorerEncoder
) -> None:
    own = [shot for shot in shots if shot.subject == shots[0].subject]
    references, _ = read_references([shot.path for shot in own], scorer)
    scores, _ = score_shots(own, {own[0].subject: references}, scorer, SceneChecks(scorer))
    features = scorer.embed([opened(shot.path) for shot in own])
    assert [one.subject_score for one in scores] == pytest.approx(
        (features @ features.T).mean(dim=0).tolist()
    )
    assert references.thing == own[0].thing


def test_true_captions_hold_and_permuted_ones_score_at_chance(
    shots: list[Shot], scorer: ScorerEncoder
) -> None:
    assert mean_text(shots, scorer) > 0.95
    rng = np.random.default_rng(0)
    permuted = [
        replace(shot, prompt=shots[other].prompt, thing=shots[other].thing)
        for _ in range(4)
        for shot, other in zip(shots, rng.permutation(len(shots)), strict=True)
    ]
    things = Counter(shot.thing for shot in shots)
    same_thing = sum((count / len(shots)) ** 2 for count in things.values())
    chance = fmean((same_thing, 1 / len(REFERENCE_BACKGROUNDS)))
    assert mean_text(permuted, scorer) == pytest.approx(
        chance, abs=3 * (chance * (1 - chance) / len(permuted)) ** 0.5
    )


def test_a_missing_or_broken_picture_is_left_out_and_never_counted_as_0(
    shots: list[Shot], scorer: ScorerEncoder, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    torn = [replace(shots[0], path=tmp_path / name) for name in ("missing.png", "broken.png")]
    references, _ = read_references([shots[0].path], scorer)
    held = {shots[0].subject: references}
    alone, _ = score_shots(shots[:1], held, scorer, SceneChecks(scorer))
    scores, left_out = score_shots([torn[0], shots[0], torn[1]], held, scorer, SceneChecks(scorer))
    assert scores == alone
    assert [one.file for one in left_out] == [str(shot.path) for shot in torn]
    assert left_out[0].reason == "it is missing"
    assert left_out[1].reason


def test_broken_references_are_left_out_too_until_none_is_left(
    shots: list[Shot], scorer: ScorerEncoder, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    whole, _ = read_references([shots[0].path], scorer)
    references, left_out = read_references([tmp_path / "broken.png", shots[0].path], scorer)
    torch.testing.assert_close(references.features, whole.features)
    assert len(left_out) == 1
    with pytest.raises(EvaluationError, match="none of 1 reference images opens"):
        read_references([tmp_path / "broken.png"], scorer)


def test_images_are_turned_as_their_camera_says_and_laid_on_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert opened(tmp_path / "turned.jpg").size == (2, 4)
    assert opened(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_an_image_text_encoder_reads_the_class_word_not_the_token(
    shots: list[Shot], clip: ImageTextEncoder
) -> None:
    shot = Shot(
        **{
            **vars(shots[0]),
            "class_word": "cat",
            "prompt": Prompt("a {} on a {other}", "x"),
            "other_word": "dog",
        }
    )
    images = [opened(shot.path)]
    ((value, checks),) = PromptFit(clip).score(images, [shot])
    assert value == clip.score(images, ["a cat on a dog"]).item()
    assert checks == {}


def test_a_prompt_without_a_scene_cannot_be_checked(
    shots: list[Shot], scorer: ScorerEncoder
) -> None:
    shot = Shot(**{**vars(shots[0]), "prompt": Prompt("a {} on Mars", "x")})
    with pytest.raises(EvaluationError, match="name an image–text encoder"):
        SceneChecks(scorer).score([opened(shot.path)], [shot])


class TwoPlaces:
    """A reader that finds a car in the first place and the subject in the second."""

    name = "stub"

    def embed(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return torch.eye(4)[:1].expand(len(images), -1)

    def embed_places(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return torch.eye(4)[:2].expand(len(images), -1, -1)

    def read(self, images: Sequence[Image.Image]) -> list[dict[str, str]]:
        answers = {"first": "car", "second": "fox", "axis": "row", "background": "snow"}
        return [answers] * len(images)

    def subject_of(self, images: Sequence[Image.Image]) -> str:
        return "fox"

    def accuracy(self) -> dict[str, tuple[Share, Share]]:
        return {}


def shown(shot: Shot, scene: Scene, *blind: str, text: str = "a {} here") -> Shot:
    """The shot with another scene, of a subject whose `blind` checks cannot decide."""
    names = ("background", "object", "presence", "both", "order")
    checks = {}
    for name in names:
        share = Share.of(2 if name in blind else 10, 10)
        checks[name] = Ceiling(Share.of(10, 10), share)
    return replace(
        shot,
        prompt=Prompt(text, "x", SceneTemplate(scene)),
        thing="fox",
        other_thing="car",
        ceiling=ConceptCeiling("fox", checks, Likeness(0.9, 0.7, 0.1)),
    )


PAIR = Scene("snow", Item("car"), Item(SUBJECT), "row")
ALONE = Scene("snow", Item(SUBJECT))


def score_by(reader: TwoPlaces, shot: Shot) -> tuple[list[ImageScore], list[LeftOut]]:
    # The subject looks as the second place does.
    references = {shot.subject: References(torch.eye(4)[1:2], "fox")}
    return score_shots([shot], references, reader, SceneChecks(reader))


def test_the_subject_of_a_pair_is_the_place_that_is_more_like_it(shots: list[Shot]) -> None:
    (pair,), _ = score_by(TwoPlaces(), shown(shots[0], PAIR))
    (alone,), _ = score_by(TwoPlaces(), shown(shots[0], ALONE))
    assert (pair.subject_score, alone.subject_score) == (1.0, 0.0)
    assert pair.subject_ceiling == alone.subject_ceiling == 0.7


def test_a_check_that_cannot_decide_is_read_and_not_counted(shots: list[Shot]) -> None:
    wrong = Scene("snow", Item("owl"), Item(SUBJECT), "row")  # the reader sees a car there
    (sees,), _ = score_by(TwoPlaces(), shown(shots[0], wrong))
    (blind,), _ = score_by(TwoPlaces(), shown(shots[0], wrong, "both"))
    assert sees.checks == blind.checks
    assert sees.checks["both"] is False
    assert (sees.undecided, blind.undecided) == ((), ("both",))
    assert "both" not in blind.decided
    assert sees.text_score == pytest.approx(2 / 3)  # background and order
    assert blind.text_score == 1.0
    assert sees.text_ceiling == blind.text_ceiling == 1.0


def test_a_second_subject_that_cannot_be_seen_counts_where_it_is_shown(shots: list[Shot]) -> None:
    blind = shown(shots[0], PAIR, "both").ceiling
    for text, undecided in (("a {} and a {other}", ("both",)), ("a {} and a car", ())):
        shot = replace(shown(shots[0], PAIR, text=text), other_ceiling=blind)
        (found,), _ = score_by(TwoPlaces(), shot)
        assert found.undecided == undecided


def test_a_picture_that_no_check_can_decide_about_is_left_out_with_its_reason(
    shots: list[Shot],
) -> None:
    scores, (left_out,) = score_by(TwoPlaces(), shown(shots[0], ALONE, "background", "object"))
    assert scores == []
    assert "background, object" in left_out.reason


def test_without_ceilings_every_check_counts_and_the_class_word_has_none_of_checks(
    shots: list[Shot],
) -> None:
    own = replace(shown(shots[0], ALONE), ceiling=None)
    (found,), _ = score_by(TwoPlaces(), own)
    assert (found.subject_ceiling, found.text_ceiling, found.undecided) == (None, None, ())
    (word,), _ = score_by(TwoPlaces(), replace(shown(shots[0], ALONE), baseline=True))
    assert (word.subject_ceiling, word.text_ceiling) == (0.7, None)


def test_masked_references_are_white_outside_their_masks(
    tmp_path: Path, dinov2: ImageEncoder
) -> None:
    image, mask = Image.new("RGB", (24, 20), (200, 30, 30)), Image.new("L", (24, 20), 0)
    mask.paste(255, (0, 0, 12, 20))
    image.save(tmp_path / "0.png")
    with pytest.raises(EvaluationError, match="it is missing"):
        read_references([tmp_path / "0.png"], dinov2, masked=True)
    (tmp_path / "masks").mkdir()
    mask.save(tmp_path / "masks" / "0.png")
    found, _ = read_references([tmp_path / "0.png"], dinov2, masked=True)
    half = image.copy()
    half.paste((255, 255, 255), (12, 0, 24, 20))
    torch.testing.assert_close(found.features, dinov2.embed([half]))
    whole, _ = read_references([tmp_path / "0.png"], dinov2)
    assert not torch.equal(found.features, whole.features)
    Image.new("L", (8, 8)).save(tmp_path / "masks" / "0.png")
    with pytest.raises(EvaluationError, match=r"its mask has \(8, 8\) pixels"):
        read_references([tmp_path / "0.png"], dinov2, masked=True)
