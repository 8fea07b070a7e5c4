import io
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dti_geom.errors import TrainingError
from dti_geom.models.noising import Noising
from dti_geom.models.pipelines import TextToImage
from dti_geom.models.pipelines.base import ZERO_PAD
from dti_geom.training.config import ConceptConfig, DataConfig
from dti_geom.training.data import ImageView, Samples, class_words, image_files, join, load_views


def concept(folder: Path, **options: Any) -> ConceptConfig:
    return ConceptConfig("<x>", str(folder), "dog", **options)


def views(folder: Path, resolution: int = 64, **options: Any) -> list[ImageView]:
    return load_views(concept(folder), DataConfig(**options), resolution, seed=0)


def test_images_come_sorted_by_name_and_other_files_are_left_alone(
    images: Path, picture: Callable[[int], Image.Image]
) -> None:
    (images / "notes.txt").write_text("not an image")
    (images / ".hidden.png").write_bytes(b"")
    picture(9).save(images / "10.PNG")
    assert [path.name for path in image_files(concept(images))] == [
        "0.png",
        "1.png",
        "10.PNG",
        "2.png",
    ]


def test_the_short_side_is_resized_and_the_centre_cut_out(tmp_path: Path) -> None:
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste("white", (100, 0, 200, 100))
    wide.save(tmp_path / "wide.png")
    (view,) = views(tmp_path, 50)
    assert view.pixels.shape == (3, 50, 50)
    assert view.pixels[:, :, 3:-3].min() > 0.9
    assert view.view.original == (100, 300)
    assert view.view.corner == (0, 50)


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    upright = Image.new("RGB", (40, 80), "black")
    upright.paste("white", (0, 0, 40, 40))  # white above
    turned = upright.rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn right to show"
    turned.save(tmp_path / "0.png", exif=exif)
    upright.save(tmp_path / "1.png")
    first, second = views(tmp_path, 40)
    torch.testing.assert_close(first.pixels, second.pixels)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "0.png")
    (view,) = views(tmp_path)
    assert view.pixels.min() == 1


def test_every_broken_image_is_named(images: Path, picture: Callable[[int], Image.Image]) -> None:
    buffer = io.BytesIO()
    picture(0).save(buffer, "PNG")
    (images / "cut.png").write_bytes(buffer.getvalue()[:2000])
    (images / "text.jpg").write_text("no image")
    with pytest.raises(TrainingError, match=r"2 images do not open: .*cut\.png.*text\.jpg"):
        views(images)


def test_further_crops_are_seeded_inside_and_different(images: Path) -> None:
    first, second = (views(images, crops=4, flip=True) for _ in range(2))
    assert len(first) == 3 * 4 * 2
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(first, second, strict=True))
    assert len({view.view.corner for view in first if view.path.name == "0.png"}) > 2
    assert torch.equal(first[1].pixels, first[0].pixels.flip(-1))


def test_a_mirrored_view_is_where_its_corner_says_in_the_mirrored_image(tmp_path: Path) -> None:
    """Every column has a value of its own, so a view shows where it was cut."""
    columns = np.tile(np.arange(80, dtype=np.uint8), (64, 1))
    Image.fromarray(columns).convert("RGB").save(tmp_path / "0.png")
    found = views(tmp_path, crops=6, flip=True)
    lefts = set()
    for plain, mirrored in zip(found[::2], found[1::2], strict=True):
        side = (64, 80) if plain is found[0] else (72, 90)  # as resized
        whole = Image.open(tmp_path / "0.png").resize(side[::-1], Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(whole, np.float32)).permute(2, 0, 1) / 127.5 - 1
        for view, image in ((plain, pixels), (mirrored, pixels.flip(-1))):
            top, left = view.view.corner
            cut = image[:, top : top + 64, left : left + 64]
            torch.testing.assert_close(view.pixels, cut)
        lefts.add((plain.view.corner[1], mirrored.view.corner[1]))
    assert (8, 8) in lefts
    assert any(left != right for left, right in lefts)


def test_masks_and_captions_belong_to_their_image(images: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(3):
        (images / f"{number}.txt").write_text(f"a {{}} number {number}\n")
        Image.fromarray(np.full((64, 80), 255 if number == 1 else 0, np.uint8)).save(
            masks / f"{number}.png"
        )
    found = views(images, captions=True, masks=str(masks))
    assert [view.prompt for view in found] == ["a {} number 0", "a {} number 1", "a {} number 2"]
    masked = [view.mask for view in found if view.mask is not None]
    assert [float(mask.mean()) for mask in masked] == [0, 1, 0]
    (images / "1.txt").unlink()
    with pytest.raises(TrainingError, match=r"no caption 1\.txt"):
        views(images, captions=True)
    (masks / "2.png").unlink()
    with pytest.raises(TrainingError, match="no mask"):
        views(images, masks=str(masks))


def test_an_empty_folder_a_missing_one_and_a_dataset_root_each_say_what_to_do(
    tmp_path: Path, images: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="holds no image"):
        image_files(concept(tmp_path / "empty"))
    with pytest.raises(TrainingError, match="is not a folder"):
        image_files(concept(tmp_path / "nowhere"))
    with pytest.raises(TrainingError, match="--subject: empty, images"):
        image_files(concept(tmp_path))
    with pytest.raises(TrainingError, match="There are: empty, images"):
        image_files(concept(tmp_path, subject="dog"))
    assert len(image_files(concept(tmp_path, subject="images"))) == 3


def test_the_class_of_a_subject_is_read_from_the_datasets_own_file(tmp_path: Path) -> None:
    (tmp_path / "prompts_and_classes.txt").write_text(
        "Classes\n\nsubject_name,class\nduck_toy,toy\ncat2, cat\n"
    )
    assert class_words(tmp_path) == {"duck_toy": "toy", "cat2": "cat"}
    assert class_words(tmp_path / "elsewhere") == {}


Build = Callable[..., tuple[Samples, Noising]]


@pytest.fixture
def samples(tiny: Callable[[], TextToImage], images: Path) -> Build:
    def build(
        seed: int = 0,
        *,
        zero_pad: bool = False,
        templates: Any = ("a {}", "one {}"),
        strata: int | None = None,
        **options: Any,
    ) -> tuple[Samples, Noising]:
        model = tiny()
        model.place_zero_pad()
        model.place("<x>", [torch.ones(1, 32)])
        stream = Samples(
            model,
            views(images, **options),
            token="<x>",
            templates=templates,
            seed=seed,
            random_side=64 if options.get("random_crops") else None,
            zero_pad=zero_pad,
            strata=strata,
        )
        return stream, model.noising

    return build


@pytest.mark.parametrize(("random_crops", "strata"), [(False, None), (True, None), (False, 4)])
def test_a_sample_is_the_same_wherever_it_is_drawn(
    samples: Build, random_crops: bool, strata: int | None
) -> None:
    stream, noising = samples(random_crops=random_crops, zero_pad=True, strata=strata)
    together = stream.draw(range(8), noising)
    alone = [stream.draw([number], noising) for number in range(8)]
    for part in ("x", "noise", "times", "prompts", "views"):
        whole = getattr(together, part)
        parts = [getattr(one, part) for one in alone]
        assert (
            whole == sum(parts, ())
            if isinstance(whole, tuple)
            else torch.equal(whole, torch.cat(parts))
        )


def test_stratified_times_lie_one_in_each_part_and_are_uniform_at_each_place(
    samples: Build,
) -> None:
    stream, noising = samples(strata=4)
    times = stream.draw(range(4 * 300), noising).times.view(300, 4).float()
    assert torch.equal((times / 250).long().sort(dim=1).values, torch.arange(4).expand(300, 4))
    means = times.mean(dim=0)
    assert (means - 499.5).abs().max() < 50  # 3 standard errors of 300 uniform draws: 50


def test_every_pass_shows_every_view_once(samples: Build) -> None:
    stream, _ = samples()
    for epoch in range(5):
        assert sorted(stream._row(3 * epoch + place) for place in range(3)) == [0, 1, 2]
    orders = {tuple(stream._row(3 * epoch + place) for place in range(3)) for epoch in range(20)}
    assert len(orders) > 1


def test_noise_is_standard_normal_and_differs_between_samples_and_seeds(samples: Build) -> None:
    stream, noising = samples()
    batch = stream.draw(range(64), noising)
    assert abs(batch.noise.mean()) < 0.03  # 4 standard errors of 64·4·64 draws: 0.031
    assert abs(batch.noise.std() - 1) < 0.03
    other = samples(seed=1)[0].draw(range(64), noising)
    correlation = torch.corrcoef(torch.stack([batch.noise.flatten(), other.noise.flatten()]))[0, 1]
    assert abs(correlation) < 0.04
    assert {"a <x>", "one <x>"} == set(batch.prompts)


def test_latents_are_drawn_from_their_distribution_again_for_every_sample(samples: Build) -> None:
    stream, noising = samples()
    rows = torch.tensor([stream._row(number) for number in range(30)])
    batch = stream.draw(range(30), noising)
    assert stream.encoded is not None
    latents = stream.encoded.latents
    assert latents.std is not None
    z = (batch.x - latents.mean[rows]) / latents.std[rows]
    assert abs(z.mean()) < 0.05
    assert abs(z.std() - 1) < 0.05


def test_random_crops_lie_anywhere_in_the_image_and_are_what_is_encoded(
    samples: Build, tmp_path: Path
) -> None:
    """Every image has a mask that grows with the column, so a cut shows where it is from."""
    columns = np.tile(np.arange(80, dtype=np.uint8), (64, 1))
    for number in range(3):
        Image.fromarray(columns).save(tmp_path / f"{number}.png")
    stream, noising = samples(random_crops=True, flip=True, masks=str(tmp_path))
    batch = stream.draw(range(60), noising)
    assert {view.corner[0] for view in batch.views} == {0}
    assert {view.corner[1] for view in batch.views} == set(range(17))
    assert {(view.original, view.size) for view in batch.views} == {((64, 80), (64, 64))}
    assert batch.mask is not None
    for number, view in enumerate(batch.views):
        left, whole = view.corner[1], stream.whole[stream._row(number)]
        values = (batch.mask[number, 0] * 255).mean(dim=0)  # of each column of the latent
        column = torch.arange(left, left + 64).view(8, 8).float().mean(dim=1)
        mirror = whole.mask is not None and bool(whole.mask[0, 0, 0] > 0)
        torch.testing.assert_close(values, 79 - column if mirror else column, atol=0.1, rtol=0)
        pixels = whole.pixels[:, :, left : left + 64]
        expected = stream.model.encode_images(pixels[None])
        assert expected.std is not None
        assert (batch.x[number] - expected.mean[0]).abs().max() < 6 * expected.std.max()


def test_random_crops_have_no_fixed_crops_beside_them() -> None:
    with pytest.raises(TrainingError, match="crops is 3; expected 1"):
        DataConfig(random_crops=True, crops=3)


def test_zero_vectors_before_a_prompt_are_exponential_in_number(samples: Build) -> None:
    """⌊clip(Exp(mean 2), 0, 15)⌋: k with e^(−k/2)·(1 − e^(−1/2)), and 15 with what is left."""
    stream, _ = samples(zero_pad=True, templates=["{}"])
    stream.room = dict.fromkeys(stream.room, 99)
    draws = 4000
    counts = torch.zeros(17)
    for number in range(draws):
        generator = torch.Generator().manual_seed(number)
        counts[stream._prompt(0, generator).count(ZERO_PAD)] += 1
    shares = torch.tensor([math.exp(-k / 2) for k in range(16)] + [0.0])
    expected = shares - torch.cat([shares[1:], shares[-1:]])
    expected[15] = shares[15]
    assert counts[16] == 0
    errors = (counts / draws - expected).abs()
    assert (errors < 4 * (expected * (1 - expected) / draws).sqrt() + 1e-3).all()


def test_a_run_without_zero_vectors_draws_what_it_drew_before(samples: Build) -> None:
    plain, noising = samples()
    padded, _ = samples(zero_pad=True)
    first, second = plain.draw(range(8), noising), padded.draw(range(8), noising)
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.noise, second.noise)
    stripped = [prompt.replace(ZERO_PAD, "").strip() for prompt in second.prompts]
    assert list(first.prompts) == stripped
    assert first.prompts != second.prompts


def test_zero_vectors_never_push_the_token_out_of_the_prompt(samples: Build) -> None:
    """The tokenizer reads 77 tokens. Of this prompt the begin, 70 words and the token are 72."""
    stream, noising = samples(zero_pad=True, templates=["a " * 70 + "{} cat"])
    assert set(stream.room.values()) == {4}
    (tower,) = stream.model.towers
    counts = set()
    for prompt in stream.draw(range(200), noising).prompts:
        ids = tower.tokenizer(prompt, truncation=True, max_length=77).input_ids
        assert tower.learned_ids()[-1] in ids
        counts.add(prompt.count(ZERO_PAD))
    assert counts == {0, 1, 2, 3, 4}


def test_a_prompt_whose_token_is_cut_off_is_refused(samples: Build) -> None:
    with pytest.raises(TrainingError, match="stops reading 2 tokens before the end of <x>"):
        samples(templates=["a " * 76 + "{}"])


def test_joined_batches_keep_their_order_and_a_missing_mask_counts_everywhere(
    samples: Build,
) -> None:
    stream, noising = samples()
    first, second = stream.draw(range(2), noising), stream.draw(range(2, 5), noising)
    masked = replace(second, mask=torch.zeros(3, 1, 8, 8))
    both = join([first, masked])
    assert torch.equal(both.x, torch.cat([first.x, second.x]))
    assert both.prompts == first.prompts + second.prompts
    assert both.mask is not None
    assert both.mask.flatten(1).mean(dim=1).tolist() == [1, 1, 0, 0, 0]


def test_pictures_that_nothing_reads_are_named_with_the_remedy(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "phone.HEIC").write_bytes(b"a picture")
    monkeypatch.setattr("dti_geom.images.find_spec", lambda name: None)
    with pytest.raises(
        TrainingError, match=r"holds phone\.HEIC, .* pip install 'dti-geom\[heic\]'"
    ):
        image_files(concept(images))


def test_other_files_among_the_pictures_are_named_and_text_is_not(
    images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("raw.CR2", "film.mp4", "notes.txt", "list.csv", ".hidden.xyz"):
        (images / name).write_bytes(b"something")
    os.mkfifo(images / "pipe.png")
    views = load_views(concept(images), DataConfig(), 64, seed=0)
    assert len(views) == 3
    assert f"ignored in {images}: film.mp4, pipe.png, raw.CR2 (" in caplog.text
