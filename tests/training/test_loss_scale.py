from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import TrainingDiverged
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.training import ConceptConfig, DataConfig, MethodConfig, RunConfig
from dti_geom.training.loss_scale import FIRST, LossScale
from dti_geom.training.trainer import Trainer

Folders = Callable[[str], Path]
SIDE = 64  # pixels of the tiny pipelines
LARGE = 512  # the more numbers a loss averages, the smaller are their gradients


def trainer_of(folder: Path, images: Path, dtype: torch.dtype, **changes: Any) -> Trainer:
    """A trainer of a free vector on a tiny pipeline."""
    fields: dict[str, Any] = {
        "model": str(folder),
        "concepts": (ConceptConfig("<x>", str(images), "dog"),),
        "method": MethodConfig("ti"),
        "data": DataConfig(resolution=SIDE),
        "steps": 3,
    }
    model = open_text_to_image(str(folder), dtype=dtype)
    return Trainer(model, RunConfig(**fields | changes))


def gradients_of(trainer: Trainer) -> list[Tensor]:
    """The gradients of the first update, tower by tower."""
    trainer._backward()
    gradients = []
    for parameter in trainer.concepts[0].trainable.parameters():
        assert parameter.grad is not None
        gradients.append(parameter.grad.flatten())
    return gradients


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_float16_gradients_point_where_those_of_float32_point(
    family: str, pipeline_folder: Folders, images: Path
) -> None:
    folder = pipeline_folder(family)
    half, full = (
        gradients_of(trainer_of(folder, images, dtype, data=DataConfig(resolution=LARGE)))
        for dtype in (torch.float16, torch.float32)
    )
    for found, expected in zip(half, full, strict=True):
        assert found.dtype == torch.float32
        cosine = torch.nn.functional.cosine_similarity(found, expected, dim=0)
        assert cosine > 0.9999
        assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.01)


def test_other_dtypes_have_no_scale() -> None:
    assert LossScale(torch.float16).value == FIRST
    assert LossScale(torch.float32).value == LossScale(torch.bfloat16).value == 1


def test_a_scale_is_undone_exactly_and_falls_where_gradients_overflow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scale = LossScale(torch.float16)
    gradient = torch.tensor([1.1, -2e-7])
    scaled = gradient * scale.value
    assert scale.undo([scaled, None])
    assert torch.equal(scaled, gradient)
    assert not caplog.messages
    assert not scale.undo([scaled, torch.tensor([float("inf")])])
    assert scale.value == FIRST / 2
    assert "overflowed" in caplog.text


def test_an_update_that_overflows_is_computed_again(
    sd15_pipeline: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, high = (trainer_of(sd15_pipeline, images, torch.float16) for _ in range(2))
    high.loss_scale.value = 2.0**40
    expected, found = list(plain.updates()), list(high.updates())
    assert high.loss_scale.value < 2.0**40
    assert len(found) == len(expected)
    assert "computed again" in caplog.text
    for first, second in zip(plain.learned(), high.learned(), strict=True):
        torch.testing.assert_close(second, first, atol=1e-4, rtol=1e-3)


def test_a_resumed_run_goes_on_at_its_scale(sd15_pipeline: Path, images: Path) -> None:
    whole, stopped, resumed = (trainer_of(sd15_pipeline, images, torch.float16) for _ in range(3))
    for trainer in (whole, stopped):
        trainer.loss_scale.value = 2.0**40
    list(whole.updates())
    next(stopped.updates())
    resumed.load_state(stopped.state())
    list(resumed.updates())
    assert resumed.loss_scale.value == whole.loss_scale.value
    (first,), (second,) = whole.learned(), resumed.learned()
    assert all(torch.equal(first[tower], second[tower]) for tower in first)


def test_a_model_that_overflows_by_itself_diverges_at_once(
    sd15_pipeline: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_of(sd15_pipeline, images, torch.float16)
    with torch.no_grad():
        trainer.model.denoiser.conv_out.weight.fill_(torch.inf)
    with pytest.raises(TrainingDiverged):
        list(trainer.updates())
    assert "overflowed" not in caplog.text


def test_gemma_is_never_opened_in_float16(pipeline_folder: Folders) -> None:
    model: TextToImage = open_text_to_image(str(pipeline_folder("sana")), dtype=torch.float16)
    assert model.dtype == torch.float16
    assert model.towers[0].token_table.dtype == torch.bfloat16
