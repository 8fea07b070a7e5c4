import base64
import dataclasses
import io
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from dti_geom.errors import DoesNotApply, DtiGeomError, UnknownToken
from dti_geom.files import from_json, to_json
from dti_geom.models import Vocabulary
from dti_geom.probes.painted import PaintedSwap, measure_painted, painted_swap


class Words(Vocabulary):
    """A vocabulary of a few whole words."""

    def rows(self, text: Any) -> Any:
        assert self.tokenizer is not None
        if text not in self.tokenizer:
            raise UnknownToken(text)
        return self.tokenizer[text]


@dataclasses.dataclass
class Tower:
    token_table: torch.Tensor
    vocabulary: Words
    name: str = "tower"


class _Painter:
    """Paints a vector as a picture of two greys: its angle, and its norm."""

    name = "painter"

    def __init__(self, table: Any, words: Any, towers: Any = 1) -> None:
        self.towers = tuple(Tower(table, Words(words, len(table))) for _ in range(towers))
        self.placed: dict[str, torch.Tensor] = {}
        self.seeds: list[list[int]] = []

    def place(self, token: Any, vectors: Any) -> None:
        assert len(vectors) == len(self.towers)
        self.placed[token] = vectors[0]

    def generate(self, prompts: Any, seeds: Any) -> Any:
        self.seeds.append(seeds)
        pictures = []
        for prompt in prompts:
            ((x, y),) = self.placed[prompt.removeprefix("a photo of a ")].tolist()
            picture = Image.new("L", (2, 1))
            picture.putpixel((0, 0), round(100 * math.atan2(y, x)))
            picture.putpixel((1, 0), round(10 * math.hypot(x, y)))
            pictures.append(picture)
        return pictures


Painter: Any = _Painter  # has only what painted_swap uses
TABLE = torch.tensor([[3.0, 4.0], [0.5, 0.0], [1.0, 0.0]])
WORDS = {"apple": [0], "ball": [1], "cat": [0, 1]}


def eye(pixel: Any, top: Any) -> Any:
    """An image encoder that looks at one pixel, as an angle."""

    def embed(images: Any) -> Any:
        angles = torch.tensor([image.getpixel((pixel, 0)) / top for image in images])
        return torch.stack([angles.cos(), angles.sin()], dim=-1)

    return embed


def test_an_eye_for_angles_sees_the_direction_donor_at_any_norm() -> None:
    found = painted_swap(
        Painter(TABLE, WORDS), eye(0, 100), [("apple", "ball")], stretches=(1.0, 4.0)
    )
    for one in found.pairs:
        assert one.direction == pytest.approx(1, abs=1e-6)
        assert one.magnitude == one.donors == pytest.approx(math.cos(0.93), abs=1e-6)
    assert [one.ratio for one in found.pairs] == pytest.approx([10, 2.5])
    assert [(one.wins.right, one.wins.total) for one in found.sums] == [(1, 1), (1, 1)]


def test_an_eye_for_norms_sees_the_magnitude_donor() -> None:
    found = painted_swap(Painter(TABLE, WORDS), eye(1, 50), [("apple", "ball")], stretches=(1.0,))
    (one,) = found.pairs
    assert one.magnitude == pytest.approx(1, abs=1e-6)
    assert one.direction == one.donors == pytest.approx(math.cos(1 - 0.1), abs=1e-6)
    assert found.sums[0].wins.right == 0


def test_all_pictures_of_a_pair_are_painted_from_each_seed() -> None:
    painter = Painter(TABLE, WORDS, towers=2)
    painted_swap(painter, eye(0, 100), [("apple", "ball")], seeds=(3, 5), stretches=(1.0,))
    assert painter.seeds == [[3] * 4, [5] * 4]


def test_pairs_are_drawn_from_things_of_one_token_short_with_long() -> None:
    found = painted_swap(
        Painter(TABLE, WORDS | {"frog": [2], "owl": [0]}), eye(0, 100), stretches=(1.0,)
    )
    assert [(one.first, one.second) for one in found.pairs] == [("ball", "apple"), ("frog", "owl")]


def test_words_that_cannot_be_swapped_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownToken, match="'cat' is not one token in tower"):
        painted_swap(Painter(TABLE, WORDS), eye(0, 100), [("apple", "cat")])
    monkeypatch.setattr("dti_geom.probes.painted.THINGS", "apple cat")
    with pytest.raises(DoesNotApply, match="has 1 of the THINGS"):
        painted_swap(Painter(TABLE, WORDS), eye(0, 100))


def test_the_result_keeps_its_pictures_through_json() -> None:
    found = painted_swap(Painter(TABLE, WORDS), eye(0, 100), [("apple", "ball")])
    assert from_json(PaintedSwap, to_json(found)) == found
    with Image.open(io.BytesIO(base64.b64decode(found.pairs[0].pictures[0]))) as picture:
        assert (picture.format, picture.size) == ("PNG", (2, 1))


def test_a_model_without_an_image_encoder_of_its_own_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = SimpleNamespace(image_encoder=None)
    monkeypatch.setattr("dti_geom.models.catalog.profile_of", lambda _: profile, raising=False)
    with pytest.raises(DtiGeomError, match="sd15 brings no image encoder"):
        measure_painted("sd15")


def test_a_model_is_opened_with_the_image_encoder_of_its_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[tuple[str, str]] = []

    def open_encoder(name: str, *, device: str) -> SimpleNamespace:
        opened.append((name, device))
        return SimpleNamespace(embed=lambda images: torch.ones(len(images), 2))

    def open_model(name: str, *, device: str) -> Any:
        opened.append((name, device))
        return Painter(TABLE, WORDS)

    profile = SimpleNamespace(image_encoder="its-own")
    monkeypatch.setattr("dti_geom.models.catalog.profile_of", lambda _: profile, raising=False)
    monkeypatch.setattr("dti_geom.models.image_encoders.open_image_encoder", open_encoder)
    monkeypatch.setattr("dti_geom.models.pipelines.open_text_to_image", open_model)
    pairs = [("apple", "ball"), ("ball", "apple")]
    result = measure_painted("painter", count=1, pairs=pairs, device="cpu")
    assert {name for name, _ in opened} == {"its-own", "painter"}
    assert {(pair.first, pair.second) for pair in result.pairs} == {("apple", "ball")}
