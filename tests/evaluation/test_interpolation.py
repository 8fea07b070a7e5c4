import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import EvaluationError
from dti_geom.evaluation import interpolate, paint_pictures, save_film, save_grid
from dti_geom.evaluation.interpolation import (
    PATHS,
    Interpolation,
    TokenPath,
    _adapters_between,
    with_thumbnails,
)
from dti_geom.files import from_json, to_json
from dti_geom.files.adapters import Adapter, AdapterShape
from dti_geom.models.pipelines import TextToImage

Place = Callable[..., list[Tensor]]

FAST: dict[str, Any] = {"steps": 1, "size": 64}


class Colours:
    """An image encoder: the mean colour, as a direction."""

    name = "colours"

    def embed(self, images: "Sequence[Image.Image]") -> Tensor:
        means = torch.tensor(
            np.stack([np.asarray(image, np.float32).mean(axis=(0, 1)) for image in images])
        )
        return geometry.normalize(means + 1)


def between(model: TextToImage, ends: list[str], folder: Path, **options: Any) -> Interpolation:
    return interpolate(
        model, ends, folder, **{"points": 5, "encoder": Colours(), **FAST, **options}
    )


def paths_of(result: Interpolation, method: str) -> list[TokenPath]:
    return [path for path in result.paths if path.method == method]


def test_learned_ends_give_the_pictures_that_the_tokens_give_alone(
    family: TextToImage, place: Place, tmp_path: Path
) -> None:
    place(family, "<a>"), place(family, "<b>", norm=2.0, seed=1)
    result = between(family, ["<a>", "<b>"], tmp_path, points=3, seeds=[0, 1], prompt="red {}")
    alone = paint_pictures(family, ["red {}"], [0, 1], tmp_path, tokens=["<a>", "<b>"], **FAST)
    assert alone.painted == 0  # the hash of the vectors is the same, hence the file
    files = {(one.token, one.seed): one.file for one in alone.pictures}
    for path in result.paths:
        for strip in path.strips:
            assert (strip.files[0], strip.files[-1]) == (
                files["<a>", strip.seed],
                files["<b>", strip.seed],
            )
    # A file's name says little of what is in it: paint the ends again.
    fresh = paint_pictures(
        family, ["red {}"], [0], tmp_path / "fresh", tokens=["<a>", "<b>"], **FAST
    )
    for one in fresh.pictures:
        kept, again = (
            np.asarray(Image.open(place / one.file)).astype(int)
            for place in (tmp_path, tmp_path / "fresh")
        )
        assert abs(kept - again).max() <= 1


def test_a_word_at_an_end_gives_the_picture_of_the_word(sd15: TextToImage, tmp_path: Path) -> None:
    result = between(sd15, ["cat", "dog"], tmp_path, points=2, methods=["slerp"])
    words = paint_pictures(
        sd15, ["a photo of a cat", "a photo of a dog"], [0], tmp_path / "words", **FAST
    )
    for file, word in zip(result.paths[0].strips[0].files, words.pictures, strict=True):
        end, alone = (
            np.asarray(Image.open(tmp_path / file)),
            np.asarray(Image.open(tmp_path / "words" / word.file)),
        )
        assert abs(end.astype(int) - alone.astype(int)).max() <= 1


def test_between_tokens_of_one_norm_slerp_is_even_and_lerp_dips_to_the_cosine_of_half_the_angle(
    sd15: TextToImage, place: Place, tmp_path: Path
) -> None:
    unit = geometry.normalize(torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(0)))
    sd15.place("<a>", [0.4 * unit[0]])
    sd15.place("<b>", [0.4 * unit[1]])
    result = between(sd15, ["<a>", "<b>"], tmp_path, points=9)
    angle = math.acos(float((unit[0] * unit[1]).sum()))
    (slerp,), (lerp,), (nlerp,) = (
        paths_of(result, method)[0].vectors for method in ("slerp", "lerp", "nlerp")
    )
    assert slerp.norms == pytest.approx([0.4] * 9, rel=1e-6)
    assert slerp.speeds == pytest.approx([angle] * 8, rel=1e-5)
    assert lerp.norms[4] == pytest.approx(0.4 * math.cos(angle / 2), rel=1e-5)
    assert nlerp.norms == pytest.approx([0.4] * 9, rel=1e-6)
    assert nlerp.speeds == pytest.approx(lerp.speeds, rel=1e-5)
    assert max(lerp.speeds) > 1.1 * min(lerp.speeds)
    assert slerp.angle == pytest.approx(angle, rel=1e-6)


def test_between_tokens_of_unlike_norms_slerp_turns_evenly_and_lerp_is_ruled_by_the_longer(
    sd15: TextToImage, place: Place, tmp_path: Path
) -> None:
    place(sd15, "<a>", norm=0.4), place(sd15, "<b>", norm=4.0, seed=1)
    result = between(sd15, ["<a>", "<b>"], tmp_path)
    (slerp,), (lerp,) = (paths_of(result, method)[0].vectors for method in ("slerp", "lerp"))
    straight = np.linspace(slerp.norms[0], slerp.norms[-1], 5)
    assert slerp.norms == pytest.approx(straight, rel=1e-6)
    assert max(slerp.speeds) == pytest.approx(min(slerp.speeds), rel=1e-5)
    assert lerp.speeds[0] > 3 * lerp.speeds[-1]


@pytest.mark.parametrize("method", PATHS)
def test_a_square_has_its_tokens_at_the_corners_and_its_edges_are_paths(
    method: str, sd15: TextToImage, place: Place, tmp_path: Path
) -> None:
    names = ["<a>", "<b>", "<c>", "<d>"]
    for seed, name in enumerate(names):
        place(sd15, name, seed=seed, norm=0.4 + seed)
    square = between(sd15, names, tmp_path, points=3, methods=[method])
    alone = paint_pictures(sd15, ["a photo of a {}"], [0], tmp_path, tokens=names, **FAST)
    assert alone.painted == 0
    assert [path.row for path in square.paths] == [0, 0.5, 1]
    corners = [square.paths[row].strips[0].files[column] for row in (0, 2) for column in (0, 2)]
    assert corners == [one.file for one in alone.pictures]
    top = between(sd15, names[:2], tmp_path, points=3, methods=[method])
    left = between(sd15, [names[0], names[2]], tmp_path, points=3, methods=[method])
    assert square.paths[0].strips[0].files == top.paths[0].strips[0].files
    assert tuple(path.strips[0].files[0] for path in square.paths) == left.paths[0].strips[0].files


def test_every_vector_of_every_tower_has_its_own_path(
    sdxl: TextToImage, place: Place, tmp_path: Path
) -> None:
    ends = [
        place(sdxl, name, count=2, seed=seed) for seed, name in enumerate(["<two-a>", "<two-b>"])
    ]
    result = between(sdxl, ["<two-a>", "<two-b>"], tmp_path, points=3)
    found = {(one.tower, one.index): one for one in result.paths[0].vectors}
    assert list(found) == [
        (tower, index) for tower in ("text_encoder", "text_encoder_2") for index in (0, 1)
    ]
    for tower, name in enumerate(("text_encoder", "text_encoder_2")):
        for index in (0, 1):
            norms = [float(end[tower][index].norm()) for end in ends]
            assert (found[name, index].norms[0], found[name, index].norms[-1]) == pytest.approx(
                norms, rel=1e-6
            )


def test_the_ends_of_a_path_between_words_are_nearest_to_themselves(
    sd15: TextToImage, tmp_path: Path
) -> None:
    result = between(sd15, ["cat", "dog"], tmp_path, methods=["slerp"])
    nearest = result.paths[0].vectors[0].nearest
    assert (nearest[0][0], nearest[-1][0]) == ("cat", "dog")
    assert all(len(words) == 3 for words in nearest)


def test_steps_and_likeness_are_angles_between_the_features_of_the_pictures(
    sd15: TextToImage, place: Place, tmp_path: Path
) -> None:
    place(sd15, "<a>"), place(sd15, "<b>", seed=1, norm=3)
    result = between(sd15, ["<a>", "<b>"], tmp_path, methods=["slerp", "lerp"], seeds=[0, 1])
    features = {}
    for path in result.paths:
        for strip in path.strips:
            pictures = [Image.open(tmp_path / file) for file in strip.files]
            rows = features[path.method, strip.seed] = Colours().embed(pictures).double()
            steps = torch.acos((rows[:-1] * rows[1:]).sum(-1).clamp(-1, 1))
            assert strip.steps == pytest.approx(steps.tolist(), abs=1e-3)
            assert strip.unevenness == pytest.approx(max(strip.steps) / np.mean(strip.steps))
    apart = [
        geometry.angle(features["slerp", seed][1:-1], features["lerp", seed][1:-1]).mean().item()
        for seed in (0, 1)
    ]
    (likeness,) = result.likenesses
    assert likeness.methods == ("slerp", "lerp")
    assert likeness.distance == pytest.approx(np.mean(apart), rel=1e-4)
    all_steps: list[float] = []
    for path in result.paths:
        for strip in path.strips:
            all_steps += strip.steps
    assert likeness.step == pytest.approx(np.mean(all_steps), rel=1e-6)


def test_without_an_encoder_nothing_is_said_of_likeness(sd15: TextToImage, tmp_path: Path) -> None:
    result = between(sd15, ["cat", "dog"], tmp_path, points=2, encoder=None)
    assert (result.encoder, result.likenesses) == (None, ())
    assert {(strip.steps, strip.unevenness) for path in result.paths for strip in path.strips} == {
        ((), None)
    }


def test_a_path_from_a_token_to_itself_does_not_move(
    sd15: TextToImage, place: Place, tmp_path: Path
) -> None:
    place(sd15)
    result = between(sd15, ["<x>", "<x>"], tmp_path, points=3, methods=["slerp"])
    (strip,) = result.paths[0].strips
    assert len(set(strip.files)) == 1
    assert strip.unevenness is None
    assert result.paths[0].vectors[0].speeds == pytest.approx([0, 0], abs=1e-6)


def test_the_result_round_trips_with_and_without_its_pictures(
    sd15: TextToImage, tmp_path: Path
) -> None:
    result = between(sd15, ["cat", "dog"], tmp_path, points=3)
    shown = with_thumbnails(result, tmp_path)
    assert from_json(Interpolation, to_json(shown)) == shown
    assert set(shown.thumbnails) == {
        file for path in result.paths for strip in path.strips for file in strip.files
    }
    assert replace(shown, thumbnails={}) == result


def test_the_grid_and_the_film_hold_every_strip(sd15: TextToImage, tmp_path: Path) -> None:
    result = between(sd15, ["cat", "dog"], tmp_path, seeds=[0, 1], methods=["slerp", "lerp"])
    save_grid(result, tmp_path, tmp_path / "grid.png")
    save_film(result, tmp_path, tmp_path / "film.webp")
    with Image.open(tmp_path / "grid.png") as grid, Image.open(tmp_path / "film.webp") as film:
        assert grid.size == (4 + 5 * 100, 4 + 18 + 4 * (18 + 96 + 8))
        assert film.size == (4 + 2 * 100, 4 + 2 * (18 + 96 + 8))


@pytest.mark.parametrize(
    ("ends", "options", "message"),
    [
        (["cat"], {}, "1 tokens were given"),
        (["cat", "dog", "red"], {}, "3 tokens were given"),
        (
            ["cat", "dog"],
            {"methods": ["cubic"]},
            "no method called 'cubic'. Known: slerp, lerp, nlerp",
        ),
        (["cat", "dog"], {"points": 1}, "points is 1"),
        (["cat", "dog"], {"prompt": "a cat"}, r"has no \{\} for the points"),
        (
            ["cat", "zebra"],
            {},
            "different numbers of vectors in text_encoder .cat has 1, zebra has 5",
        ),
    ],
)
def test_what_is_no_path_is_refused(
    sd15: TextToImage, tmp_path: Path, ends: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        between(sd15, ends, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_each_corners_adapter_counts_with_its_share_and_a_shared_one_stays_whole() -> None:
    first, second = (Adapter("unet", AdapterShape(rank=rank), {}) for rank in (1, 2))
    ends = [((first, 1.0),), ((second, 0.5),)]
    assert _adapters_between(ends, 0.25, row=0.0) == ((first, 0.75), (second, 0.125))
    assert _adapters_between([ends[0], ()], 0.25, row=0.0) == ((first, 0.75),)
    shared = ((first, 0.7),)
    for t in (0.0, 0.1, 5 / 30, 1.0):  # a sixth of 0.7 and the rest are not 0.7
        assert _adapters_between([shared, shared], t, row=0.0) == shared
        assert _adapters_between([shared] * 4, t, row=0.3) == shared
    corners = [(), (), ((first, 1.0),), ((second, 1.0),)]
    assert _adapters_between(corners, 0.25, row=0.5) == ((first, 0.375), (second, 0.125))
