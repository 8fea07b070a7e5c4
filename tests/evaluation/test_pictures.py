import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dti_geom.errors import EvaluationError
from dti_geom.evaluation import load_tokens, paint_pictures, save_sheet
from dti_geom.evaluation.pictures import Picture, Pictures
from dti_geom.files import from_json, to_json
from dti_geom.files.adapters import Adapter, AdapterShape
from dti_geom.models.adapters import AdapterLayers
from dti_geom.models.catalog import profile_of
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.models.pipelines.sana import Sana
from dti_geom.models.pipelines.stable_diffusion import StableDiffusion
from dti_geom.models.pipelines.stable_diffusion_xl import StableDiffusionXL

Place = Callable[..., list[Tensor]]

FAST: dict[str, Any] = {"steps": 2, "size": 64}


def pixels(folder: Path, picture: Picture) -> NDArray[np.int_]:
    return np.asarray(Image.open(folder / picture.file)).astype(int)


def by_name(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_prompts_tokens_and_seeds_are_painted_in_that_order(
    sd15: TextToImage, place: Place, tmp_path: Path
) -> None:
    place(sd15, "<x>"), place(sd15, "<y>", seed=1)
    result = paint_pictures(
        sd15, ["a {}", "a dog"], [0, 5], tmp_path, tokens=["<x>", "<y>"], **FAST
    )
    asked = [(one.prompt, one.token, one.seed) for one in result.pictures]
    assert asked == [
        (prompt, token, seed)
        for prompt, token in (("a <x>", "<x>"), ("a <y>", "<y>"), ("a dog", None))
        for seed in (0, 5)
    ]
    assert len(by_name(tmp_path)) == result.painted == 6
    assert from_json(Pictures, to_json(result)) == result


def test_a_picture_does_not_depend_on_its_batch(
    family: TextToImage, place: Place, tmp_path: Path
) -> None:
    place(family)
    options: dict[str, Any] = {"tokens": ["<x>"], **FAST}
    apart = paint_pictures(family, ["a {}", "a dog"], [3], tmp_path / "1", batch_size=1, **options)
    together = paint_pictures(
        family, ["a {}", "a dog"], [3], tmp_path / "2", batch_size=2, **options
    )
    assert apart.pictures == together.pictures
    for one in apart.pictures:
        assert abs(pixels(tmp_path / "1", one) - pixels(tmp_path / "2", one)).max() <= 1
    assert len(set(by_name(tmp_path / "1").values())) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_embedded_model_paints_the_same_in_every_batch_to_the_stated_tolerance(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = open_text_to_image("mini", dtype=dtype)
    apart = paint_pictures(
        model, ["a photo of a fox"], [0, 1], tmp_path / "1", batch_size=1, steps=2
    )
    paint_pictures(model, ["a photo of a fox"], [0, 1], tmp_path / "2", batch_size=2, steps=2)
    for one in apart.pictures:
        assert abs(pixels(tmp_path / "1", one) - pixels(tmp_path / "2", one)).max() <= 2


def test_a_stopped_call_goes_on_and_ends_with_the_same_folder(
    sd15: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (["a dog", "a cat"], [0, 1])
    whole = paint_pictures(sd15, *arguments, tmp_path / "whole", batch_size=1, **FAST)
    paint, calls = sd15.generate, []

    def stops(*given: Any, **options: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return paint(*given, **options)

    monkeypatch.setattr(sd15, "generate", stops)
    with pytest.raises(KeyboardInterrupt):
        paint_pictures(sd15, *arguments, tmp_path / "stopped", batch_size=1, **FAST)
    assert len(by_name(tmp_path / "stopped")) == 2
    with open(tmp_path / "stopped" / "index.jsonl", "a") as index:
        index.write('{"file": "torn')
    went_on = paint_pictures(sd15, *arguments, tmp_path / "stopped", batch_size=1, **FAST)
    assert (went_on.painted, went_on.pictures) == (2, whole.pictures)
    assert by_name(tmp_path / "stopped") == by_name(tmp_path / "whole")
    assert (tmp_path / "stopped" / "index.jsonl").read_text() == (
        tmp_path / "whole" / "index.jsonl"
    ).read_text()


def test_what_decides_a_picture_decides_its_name(
    fresh_sd15: TextToImage, sdxl: TextToImage, place: Place, tmp_path: Path
) -> None:
    sd15 = fresh_sd15

    def name(model: TextToImage = sd15, prompt: str = "a {}", seed: int = 0, **options: Any) -> str:
        result = paint_pictures(model, [prompt], [seed], tmp_path, tokens=["<x>"], **FAST | options)
        return result.pictures[0].file

    place(sd15)
    first = name()
    names = [
        first,
        name(prompt="the {}"),
        name(prompt="a dog"),
        name(seed=1),
        name(steps=3),
        name(guidance=2.0),
        name(size=32),
    ]
    place(sd15, seed=1)
    names.append(name())
    place(sd15)
    sd15.pipeline.scheduler = type(sd15.pipeline.scheduler).from_config(
        sd15.pipeline.scheduler.config, beta_end=0.02
    )
    names.append(name())
    sd15.denoiser.conv_in.weight.data.mul_(1.5)
    names.append(name())
    place(sdxl)
    names.append(name(sdxl))
    assert len(set(names)) == len(names)


def test_a_token_of_another_name_and_the_same_vectors_has_the_same_picture(
    fresh_sd15: TextToImage, place: Place, tmp_path: Path
) -> None:
    sd15 = fresh_sd15
    place(sd15, "<x>"), place(sd15, "<y>"), place(sd15, "ab", seed=2)  # "ab" may stand in a hash
    result = paint_pictures(sd15, ["a {}"], [0], tmp_path, tokens=["<x>", "<y>"], **FAST)
    assert result.pictures[0].file == result.pictures[1].file
    assert result.painted == 1
    assert len((tmp_path / "index.jsonl").read_text().splitlines()) == 2


def test_the_index_has_a_line_for_every_picture_of_the_folder(
    sd15: TextToImage, tmp_path: Path
) -> None:
    paint_pictures(sd15, ["a dog"], [0], tmp_path, **FAST)
    result = paint_pictures(sd15, ["a dog"], [0, 1], tmp_path, guidance=3, **FAST)
    lines = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    assert {line["file"] for line in lines} == {path.name for path in tmp_path.glob("*.png")}
    assert lines[-1] == {
        "file": result.pictures[1].file,
        "prompt": "a dog",
        "seed": 1,
        "token": None,
        "settings": {
            "steps": 2,
            "guidance": 3.0,
            "size": 64,
            "dtype": "float32",
            "reward": None,
        },
        "model": sd15.name,
    }
    (tmp_path / result.pictures[0].file).unlink()
    (tmp_path / lines[0]["file"]).unlink()
    again = paint_pictures(sd15, ["a dog"], [1], tmp_path, guidance=3, **FAST)
    assert again.painted == 0
    assert len((tmp_path / "index.jsonl").read_text().splitlines()) == 1


def test_a_foreign_index_is_left_alone(sd15: TextToImage, tmp_path: Path) -> None:
    (tmp_path / "index.jsonl").write_text('{"mine": 1}\n')
    with pytest.raises(EvaluationError, match="line 1: not a line of an index of pictures"):
        paint_pictures(sd15, ["a dog"], [0], tmp_path, **FAST)
    assert (tmp_path / "index.jsonl").read_text() == '{"mine": 1}\n'


@pytest.mark.parametrize(
    ("prompts", "seeds", "options", "message"),
    [
        ([], [0], {}, "no prompt was given"),
        (["a dog"], [], {}, "no seed was given"),
        (["a {}"], [0], {}, "no token was given"),
        (["a <my-dog>"], [0], {}, "names <my-dog>, which is no token here"),
        (["a dog"], [0], {"size": 60}, "size is 60; .* Try 56"),
        (["a dog"], [0], {"steps": 0}, "steps is 0"),
    ],
)
def test_what_cannot_be_painted_is_refused_before_anything_is_written(
    sd15: TextToImage,
    tmp_path: Path,
    prompts: list[str],
    seeds: list[int],
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(EvaluationError, match=message):
        paint_pictures(sd15, prompts, seeds, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_progress_counts_what_is_still_to_be_painted(sd15: TextToImage, tmp_path: Path) -> None:
    seen = []
    paint_pictures(sd15, ["a dog"], [0], tmp_path, **FAST)
    paint_pictures(
        sd15,
        ["a dog"],
        range(4),
        tmp_path,
        batch_size=2,
        progress=lambda *told: seen.append(told[1:]),
        **FAST,
    )
    assert seen == [(0, 3), (2, 3), (3, 3)]


def test_the_sheet_shows_every_picture_in_its_row_and_column(
    sd15: TextToImage, tmp_path: Path
) -> None:
    result = paint_pictures(sd15, ["a dog", "a cat"], [0, 1, 2], tmp_path, **FAST)
    sheet = np.asarray(Image.open(save_sheet(result, tmp_path))).astype(int)
    for number, one in enumerate(result.pictures):
        row, column = divmod(number, 3)
        y, x = 4 + 18 + row * (18 + 96 + 8) + 18, 4 + column * 100
        shown = sheet[y : y + 96, x : x + 96]
        enlarged = Image.open(tmp_path / one.file).resize((96, 96), Image.Resampling.LANCZOS)
        assert (shown == np.asarray(enlarged)).all()


def test_the_docs_tell_the_settings_that_models_paint_with() -> None:
    told = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    kinds: dict[str, Any] = {
        "Stable Diffusion": StableDiffusion,
        "SDXL": StableDiffusionXL,
        "SANA": Sana,
        "`mini`": profile_of("mini"),
    }
    for name, kind in kinds.items():
        steps = "steps at guidance" if kind is StableDiffusion else "at"
        assert f"{name} in {kind.sampling_steps} {steps} {kind.guidance:g}" in told


def test_the_trainers_preview_is_painted_again_to_the_last_pixel(
    sd15_pipeline: Path, tmp_path: Path
) -> None:
    from dti_geom.evaluation.learned import token_files
    from dti_geom.evaluation.previews import read_preview
    from dti_geom.models.catalog import embedded_folder
    from dti_geom.training import ConceptConfig, PreviewConfig, RunConfig, train

    images = str(embedded_folder() / "concepts" / "green-fox")
    preview = PreviewConfig(1, ("a {}", "the {} in red"), (3, 4), steps=2, guidance=2.0)
    config = RunConfig(
        str(sd15_pipeline), (ConceptConfig("<x>", images, "cat"),), preview=preview, steps=1
    )
    trained = train(config, tmp_path / "run")
    told = read_preview(token_files([tmp_path / "run"])[0])
    assert (told.model, told.seeds, told.steps, told.guidance) == (
        str(sd15_pipeline),
        (3, 4),
        2,
        2.0,
    )
    model = open_text_to_image(told.model, dtype=getattr(torch, told.dtype))
    load_tokens(model, [tmp_path / "run"])
    again = paint_pictures(
        model,
        told.prompts,
        told.seeds,
        tmp_path,
        steps=told.steps,
        guidance=told.guidance,
        size=told.size,
    )
    last = [one for one in trained.previews if one.step == 1]
    assert [(one.prompt, one.seed) for one in last] == [
        (one.prompt, one.seed) for one in again.pictures
    ]
    for before, after in zip(last, again.pictures, strict=True):
        kept = np.asarray(Image.open(tmp_path / "run" / before.file))
        assert (kept == np.asarray(Image.open(tmp_path / after.file))).all()


def test_a_file_that_remembers_no_preview_says_so(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from dti_geom.evaluation.learned import token_files
    from dti_geom.evaluation.previews import read_preview

    save_file({"<x>": torch.ones(32)}, tmp_path / "x.safetensors")
    with pytest.raises(EvaluationError, match="does not say how it was previewed"):
        read_preview(*token_files([tmp_path / "x.safetensors"]))


def test_an_adapter_its_scale_and_the_reward_name_the_file_and_no_adapter_refuses_a_reward(
    sd15: TextToImage, place: Place, tmp_path: Path
) -> None:
    place(sd15)
    layers = AdapterLayers(sd15.denoiser, AdapterShape())
    # Not constant: a normalised input sums to 0.
    weights = {
        name: torch.linspace(-1, 1, x.numel()).view_as(x) for name, x in layers.parameters.items()
    }
    layers.remove()
    adapter = Adapter("unet", AdapterShape(), weights)

    def painted(**options: Any) -> tuple[str, bytes]:
        asked = FAST | {"guidance": 3.0, **options}
        result = paint_pictures(sd15, ["a {}"], [0], tmp_path, tokens=["<x>"], **asked)
        (picture,) = result.pictures
        return picture.file, (tmp_path / picture.file).read_bytes()

    plain = painted()
    with pytest.raises(EvaluationError, match="no token here has one"):
        painted(reward=1.0)
    sd15.place_adapters("<x>", [(adapter, 1.0)])
    whole, led = painted(), painted(reward=1.5)
    sd15.place_adapters("<x>", [(adapter, 0.5)])
    half = painted()
    sd15.place_adapters("<x>", ())
    assert painted() == plain
    assert len({file for file, _ in (plain, whole, led, half)}) == 4
    assert len({data for _, data in (plain, whole, led, half)}) == 4
