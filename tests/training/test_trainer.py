import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from dti_geom.errors import DoesNotApply, TrainingDiverged
from dti_geom.geometry import frechet_mean, normalize, norms
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.models.pipelines.base import ZERO_PAD
from dti_geom.training import METHODS, ConceptConfig, DataConfig, MethodConfig, RunConfig
from dti_geom.training.config import ObjectiveConfig
from dti_geom.training.data import Batch
from dti_geom.training.token_vectors import average_vectors
from dti_geom.training.trainer import Figures, StepRecord, Trainer

LEARNING = [name for name, method in METHODS.items() if method.learns]


def trained(model: TextToImage, config: RunConfig) -> tuple[Trainer, list[StepRecord]]:
    trainer = Trainer(model, config)
    records = list(trainer.updates())
    return trainer, records


def only(trainer: Trainer) -> Tensor:
    (values,) = trainer.learned()
    return torch.cat(list(values.values()))


@pytest.mark.parametrize("method", LEARNING)
def test_every_other_weight_keeps_its_bytes_and_the_token_moves(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig], method: str
) -> None:
    model = tiny()
    parts = {
        name: part
        for name, part in model.pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }
    before = {name: save(part.state_dict()) for name, part in parts.items()}
    trainer, records = trained(model, config(method=MethodConfig(method)))
    assert set(before) == {"unet", "text_encoder", "vae"}
    assert before == {name: save(part.state_dict()) for name, part in parts.items()}
    assert records[-1].vectors[0].angle_to_start > 0
    assert only(trainer).dtype == torch.float32


def test_dti_keeps_its_norm_at_every_step_and_ti_does_not(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    _, records = trained(tiny(), config())
    assert (
        len({record.vectors[0].norm for record in records}) <= 3
    )  # within the last digits of float32
    _, records = trained(tiny(), config(method=MethodConfig("ti")))
    assert len({round(record.vectors[0].norm, 4) for record in records}) == len(records)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    first, second, other = (only(trained(tiny(), config(seed=seed))[0]) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("method", "stratified"), [("dti", False), ("ti", False), ("ti", True)])
def test_accumulating_is_a_larger_batch_with_as_many_updates(
    tiny: Callable[[], TextToImage],
    config: Callable[..., RunConfig],
    method: str,
    stratified: bool,
) -> None:
    data = DataConfig(resolution=64, stratified=stratified)
    asked = config(batch_size=4, method=MethodConfig(method), data=data)
    large, large_records = trained(tiny(), asked)
    small, small_records = trained(tiny(), replace(asked, batch_size=2, accumulate=2))
    assert len(large_records) == len(small_records) == 6
    torch.testing.assert_close(only(small), only(large), atol=1e-4, rtol=0)
    for one, other in zip(small_records, large_records, strict=True):
        assert one.losses["<x>"] == pytest.approx(other.losses["<x>"], rel=1e-3)


def test_concepts_that_share_batches_learn_what_they_learn_alone(
    tiny: Callable[[], TextToImage],
    config: Callable[..., RunConfig],
    images: Path,
    tmp_path: Path,
    picture: Callable[[int], Image.Image],
) -> None:
    (tmp_path / "others").mkdir()
    for number in range(2):
        picture(10 + number).save(tmp_path / "others" / f"{number}.png")
    first, second = (
        ConceptConfig("<x>", str(images), "dog"),
        ConceptConfig("<y>", str(tmp_path / "others"), "cat"),
    )
    together, records = trained(tiny(), config(concepts=(first, second)))
    for concept in (first, second):
        alone, alone_records = trained(tiny(), config(concepts=(concept,)))
        (values,) = alone.learned()
        beside = together.learned()[(first, second).index(concept)]
        for tower, vectors in values.items():
            torch.testing.assert_close(beside[tower], vectors, atol=1e-4, rtol=0)
        assert records[0].losses[concept.token] == pytest.approx(
            alone_records[0].losses[concept.token], rel=1e-4
        )


FRESH = DataConfig(resolution=64, random_crops=True, flip=True, zero_pad=True)


@pytest.mark.parametrize("data", [DataConfig(resolution=64), FRESH], ids=["fixed", "fresh"])
def test_a_run_taken_up_from_its_state_ends_on_the_same_bytes(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig], data: DataConfig
) -> None:
    method = MethodConfig("dti", optimizer="adam", average_last=3, schedule="cosine")
    asked = config(method=method, data=data)
    whole, _ = trained(tiny(), asked)
    stopped = Trainer(tiny(), asked)
    updates = stopped.updates()
    for _ in range(4):
        next(updates)
    resumed = Trainer(tiny(), asked)
    resumed.load_state(stopped.state())
    assert [record.step for record in resumed.updates()] == [5, 6]
    assert torch.equal(only(resumed), only(whole))
    assert save(resumed.state()) == save(whole.state())


def test_fresh_crops_and_zero_vectors_reach_the_denoiser_and_the_text_encoder(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    trainer = Trainer(tiny(), config(data=FRESH, batch_size=8))
    batch = trainer._batch(0)
    assert len({view.corner for view in batch.views}) > 1
    assert any(prompt.startswith(ZERO_PAD) for prompt in batch.prompts)
    (tower,) = trainer.model.towers
    assert tower.learned[ZERO_PAD].abs().max() == 0
    trainer.run()
    assert tower.learned[ZERO_PAD].abs().max() == 0


def test_times_are_the_models_own_or_those_asked_for(
    sana_pipeline: Path, tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    sana = open_text_to_image(str(sana_pipeline), dtype=torch.float32)
    for asked, times in ((None, "uniform"), ("logit-normal", "logit-normal")):
        data = DataConfig(resolution=64, times=asked)
        trainer = Trainer(sana, config(data=data, concept={"vectors": 3}))  # "dog" is in pieces
        assert trainer.config.data.times == trainer.noising.times == times
    assert Trainer(tiny(), config()).config.data.times is None
    with pytest.raises(DoesNotApply, match="belongs to flow models"):
        Trainer(tiny(), config(data=DataConfig(resolution=64, times="uniform")))


def test_every_batch_is_drawn_once_and_before_the_results_of_the_last_are_read(
    tiny: Callable[[], TextToImage],
    config: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(tiny(), config(steps=2, accumulate=2))
    draw, move, seen = trainer._draw, trainer._move, list[Any]()

    def drawn(number: int) -> Batch:
        seen.append(number)
        return draw(number)

    def moved(losses: Tensor, share: float) -> Figures:
        seen.append("read")
        return move(losses, share)

    monkeypatch.setattr(trainer, "_draw", drawn)
    monkeypatch.setattr(trainer, "_move", moved)
    assert len(list(trainer.updates())) == 2
    assert seen == [0, 1, 2, "read", 3, "read"]


def test_compiling_leaves_the_pipeline_as_it_is_for_previews(
    tiny: Callable[[], TextToImage],
    config: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[torch.nn.Module] = []

    def compile_nothing(module: torch.nn.Module) -> torch.nn.Module:
        compiled.append(module)
        return torch.nn.Sequential(module)

    monkeypatch.setattr(torch, "compile", compile_nothing)
    model = tiny()
    painting = model.pipeline.unet
    Trainer(model, config(compile=True))
    assert compiled == [painting]
    assert model.pipeline.unet is painting
    assert model.denoiser is not painting


def test_average_last_is_the_frechet_mean_at_the_mean_norm(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    trainer = Trainer(tiny(), config(method=MethodConfig("ti", average_last=3)))
    trainable = trainer.concepts[0].trainable
    seen = [torch.cat(list(trainable.values().values())) for _ in trainer.updates()]
    last = torch.stack(seen[-3:])[:, 0]
    expected = norms(last).mean() * frechet_mean(normalize(last))
    torch.testing.assert_close(only(trainer)[0], expected.to(torch.float32))


def test_the_average_of_equal_vectors_is_that_vector() -> None:
    one = torch.randn(2, 8)
    torch.testing.assert_close(average_vectors([one, one.clone(), one.clone()]), one)


def test_a_run_decides_whether_prompts_follow_sanas_instruction(
    sana_pipeline: Path, config: Callable[..., RunConfig], images: Path
) -> None:
    losses = []
    for asked in (None, True, False):
        data = DataConfig(resolution=64, instruction=asked)
        concept = ConceptConfig("<x>", str(images), "e")
        model = open_text_to_image(str(sana_pipeline), dtype=torch.float32)
        trainer = Trainer(model, config(concepts=(concept,), data=data, steps=1))
        assert trainer.config.data.instruction is (asked is not False)
        (record,) = trainer.updates()
        losses.append(record.losses["<x>"])
    assert losses[0] == losses[1]
    assert losses[1] != pytest.approx(losses[2], rel=1e-4)


def test_an_instruction_is_refused_where_there_is_none(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    with pytest.raises(DoesNotApply, match="no instruction"):
        Trainer(tiny(), config(data=DataConfig(resolution=64, instruction=False)))


def test_the_terms_of_a_loss_are_recorded_apart_and_add_up_to_it(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    both = ObjectiveConfig(("denoising", "context"))
    _, (record, *_) = trained(tiny(), config(objective=both, accumulate=2))
    _, (alone, *_) = trained(tiny(), config(accumulate=2))
    terms = record.terms["<x>"]
    assert set(terms) == {"denoising", "context"}
    assert terms["denoising"] == alone.losses["<x>"]
    assert terms["context"] > 0
    assert record.losses["<x>"] == pytest.approx(sum(terms.values()), rel=1e-6)
    assert alone.terms == {}  # it has one term, which is its loss


def test_in_bfloat16_the_vectors_stay_float32(
    sd15_pipeline: Path, config: Callable[..., RunConfig]
) -> None:
    model = open_text_to_image(str(sd15_pipeline), dtype=torch.bfloat16)
    trainer, records = trained(model, config())
    assert model.denoiser.dtype == model.towers[0].module.dtype == torch.bfloat16
    assert only(trainer).dtype == torch.float32
    # A path that had passed through bfloat16 would end on values bfloat16 can hold.
    assert not torch.equal(only(trainer), only(trainer).bfloat16().float())
    assert all(math.isfinite(record.losses["<x>"]) for record in records)


def test_a_loss_that_is_not_finite_stops_before_the_vectors_are_spoiled(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    model = tiny()
    trainer = Trainer(model, config())
    updates = trainer.updates()
    next(updates)
    kept = only(trainer)
    with torch.no_grad():
        model.denoiser.conv_in.weight.fill_(float("nan"))
    with pytest.raises(
        TrainingDiverged,
        match="loss of <x> is not finite at step 2; the vectors of step 1 are kept",
    ):
        next(updates)
    assert torch.equal(only(trainer), kept)


def test_the_schedule_scales_the_steps(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    _, records = trained(
        tiny(), config(method=MethodConfig("dti", 0.1, schedule="linear", kappa=0.0))
    )
    assert [record.learning_rate for record in records] == pytest.approx(
        [0.1 * (1 - step / 6) for step in range(6)]
    )
    assert records[0].vectors[0].angle_to_start == pytest.approx(math.atan(0.1), rel=1e-3)


def test_a_mask_of_zeros_leaves_a_token_where_it_is(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig], images: Path, tmp_path: Path
) -> None:
    from PIL import Image

    (tmp_path / "masks").mkdir()
    for number in range(3):
        Image.new("L", (80, 64), 0).save(tmp_path / "masks" / f"{number}.png")
    asked = config(
        data=DataConfig(resolution=64, masks=str(tmp_path / "masks")), method=MethodConfig("dti")
    )
    _, records = trained(tiny(), asked)
    assert all(record.vectors[0].angle_to_start < 1e-6 for record in records)


def test_open_choices_are_filled_in_from_model_and_method(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    asked = Trainer(tiny(), replace(config(), steps=None, data=DataConfig())).config
    assert (
        asked.steps,
        asked.data.resolution,
        asked.method.learning_rate,
        asked.method.magnitude,
    ) == (
        400,
        64,
        0.04,
        "mean",
    )


def test_vectors_that_outgrow_float32_stop_the_run(
    tiny: Callable[[], TextToImage],
    config: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(tiny(), config())
    trainable = trainer.concepts[0].trainable
    (parameter,) = trainable.parameters()
    spoil = partial(parameter.data.fill_, float("inf"))
    monkeypatch.setattr(trainable, "step", lambda _share: spoil())
    with pytest.raises(TrainingDiverged, match="<x> learned is not finite after step 1"):
        next(trainer.updates())
