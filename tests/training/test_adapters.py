from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from dti_geom.errors import TrainingDiverged, TrainingError, TrainingStopped
from dti_geom.evaluation import load_tokens
from dti_geom.models.pipelines import TextToImage
from dti_geom.training import (
    AdapterConfig,
    ConceptConfig,
    MethodConfig,
    PreviewConfig,
    RunConfig,
    Trainer,
)
from dti_geom.training.run import load_events, resume, train
from dti_geom.training.trainer import StepRecord, with_defaults

Open = Callable[[], TextToImage]
Config = Callable[..., RunConfig]
LORA, OFT = AdapterConfig(learning_rate=0.01), AdapterConfig("oft", learning_rate=0.01)
per_kind = pytest.mark.parametrize("adapter", [LORA, OFT], ids=["lora", "oft"])


def frozen_bytes(model: TextToImage) -> dict[str, bytes]:
    parts = model.pipeline.components.items()
    return {
        name: save(part.state_dict()) for name, part in parts if isinstance(part, torch.nn.Module)
    }


@per_kind
@pytest.mark.parametrize("method", ["dti", "ti", "fixed"])
def test_token_and_adapter_learn_as_asked_and_every_other_weight_keeps_its_bytes(
    tiny: Open, config: Config, adapter: AdapterConfig, method: str
) -> None:
    model = tiny()
    before = frozen_bytes(model)
    trainer = Trainer(model, config(adapter=adapter, method=MethodConfig(method)))
    records = list(trainer.updates())
    assert (records[-1].vectors[0].angle_to_start > 0) == (method != "fixed")
    norms = [record.adapter.norm for record in records if record.adapter]
    assert len(norms) == 6
    assert 0 < norms[0] < norms[-1]
    model.take_adapter_out()
    assert frozen_bytes(model) == before


@per_kind
def test_a_run_stopped_and_resumed_leaves_the_same_files_and_they_paint_its_preview(
    tiny: Open, config: Config, tmp_path: Path, adapter: AdapterConfig
) -> None:
    asked = config(
        adapter=replace(adapter, from_step=1),
        method=MethodConfig("dti", average_last=2, optimizer="adam"),
        preview=PreviewConfig(every=6, seeds=(0,), steps=1),
    )

    def stop(record: StepRecord, _total: int) -> None:
        if record.step == 3:
            raise KeyboardInterrupt

    whole, stopped, model = tmp_path / "whole", tmp_path / "stopped", tiny()
    train(asked, whole, model=model)
    with pytest.raises(KeyboardInterrupt):
        train(asked, stopped, model=tiny(), progress=stop)
    resume(stopped, model=tiny())
    kinds = (".safetensors", ".state", ".png")
    files = [path for path in sorted(whole.rglob("*")) if path.suffix in kinds]
    assert len(files) == (16 if adapter.kind == "lora" else 12)
    for path in files:
        assert path.read_bytes() == (stopped / path.relative_to(whole)).read_bytes(), path

    (preview,) = whole.glob("previews/*.png")
    shown = _pixels(preview)
    opened = tiny()
    load_tokens(opened, [whole])
    for painter in (model, opened):  # the model that was trained keeps what it learned
        (picture,) = painter.generate(["a photo of a <x>"], [0], steps=1, size=64)
        assert picture.tobytes() == shown
    load_tokens(opened, [whole], adapter_scale=0)
    (picture,) = opened.generate(["a photo of a <x>"], [0], steps=1, size=64)
    assert picture.tobytes() != shown


def _pixels(path: Path) -> bytes:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.tobytes()


def test_an_adapter_waits_for_its_step(tiny: Open, config: Config) -> None:
    trainer = Trainer(tiny(), config(adapter=replace(LORA, from_step=3)))
    norms = [record.adapter.norm for record in trainer.updates() if record.adapter]
    assert norms[:3] == [0, 0, 0]
    assert norms[3] > 0


def test_until_it_moves_the_token_learns_what_it_learns_alone(tiny: Open, config: Config) -> None:
    alone = Trainer(tiny(), config())
    beside = Trainer(tiny(), config(adapter=replace(LORA, from_step=5)))
    for trainer in (alone, beside):
        updates = trainer.updates()
        for _ in range(5):
            next(updates)
    assert torch.equal(alone.learned()[0]["text_encoder"], beside.learned()[0]["text_encoder"])


def test_its_rate_is_its_own_and_follows_the_schedule_of_the_run(
    tiny: Open, config: Config
) -> None:
    still = Trainer(tiny(), config(adapter=replace(LORA, learning_rate=0.0)))
    assert [record.adapter.norm for record in still.updates() if record.adapter] == [0] * 6
    warm = Trainer(tiny(), config(adapter=LORA, method=MethodConfig(warmup=4)))
    next(warm.updates())
    assert warm.adapter is not None
    assert [group["lr"] for group in warm.adapter.optimizer.param_groups] == [0.01 / 4]


def test_several_tokens_share_one_adapter(
    tiny: Open, config: Config, images: Path, tmp_path: Path
) -> None:
    concepts = tuple(ConceptConfig(f"<{name}>", str(images), "dog") for name in "xy")
    train(config(concepts=concepts, adapter=LORA, steps=2), tmp_path / "run", model=tiny())
    model = tiny()
    assert load_tokens(model, [tmp_path / "run"]) == ("<x>", "<y>")
    assert model.adapters["<x>"][0][0] is model.adapters["<y>"][0][0]
    model.generate(["a <x> and a <y>"], [0], steps=1, size=64)


def test_a_run_without_an_adapter_after_one_with_it_is_as_on_a_new_model(
    tiny: Open, config: Config
) -> None:
    model = tiny()
    train(config(adapter=LORA), model=model)
    next(Trainer(model, config(adapter=LORA)).updates())  # and one that never ended
    again, fresh = Trainer(model, config()), Trainer(tiny(), config())
    for trainer in (again, fresh):
        trainer.run()
    assert torch.equal(again.learned()[0]["text_encoder"], fresh.learned()[0]["text_encoder"])
    assert not model.adapters


def test_defaults_are_those_of_the_official_runs(tiny: Open, config: Config) -> None:
    asked = config(adapter=AdapterConfig(), steps=None)
    filled = with_defaults(asked, tiny())
    assert filled.steps == 250
    assert filled.adapter == AdapterConfig(
        "lora", 4, 4.0, None, ("to_q", "to_k", "to_v"), 5e-5, 1e-2, 0
    )
    oft = with_defaults(replace(asked, adapter=AdapterConfig("oft")), tiny())
    assert (oft.steps, oft.adapter and oft.adapter.block_size) == (150, 4)


def test_an_adapter_that_runs_away_stops_the_run(tiny: Open, config: Config) -> None:
    trainer = Trainer(tiny(), config(adapter=replace(LORA, learning_rate=1e30)))
    with pytest.raises(TrainingDiverged, match="is not finite"):
        trainer.run()


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        ({"kind": "lokr"}, "lora or oft"),
        ({"block_size": 4}, "a lora has none"),
        ({"kind": "oft", "rank": 4}, "a oft has none"),
        ({"rank": 0}, "1 or more"),
        ({"alpha": 0.0}, "above 0"),
        ({"targets": ()}, "such as to_q"),
        ({"learning_rate": -1.0}, "0 or more"),
    ],
)
def test_a_setting_that_no_adapter_has_is_refused(options: dict[str, object], finding: str) -> None:
    with pytest.raises(TrainingError, match=finding):
        AdapterConfig(**options)  # type: ignore[arg-type]


def test_a_run_in_which_nothing_would_learn_is_refused(tiny: Open, config: Config) -> None:
    fixed = MethodConfig("fixed")
    for adapter in (None, replace(LORA, from_step=2)):
        with pytest.raises(TrainingError, match="an adapter must learn from the first update"):
            Trainer(tiny(), config(method=fixed, adapter=adapter))
    with pytest.raises(TrainingError, match="from_step is 6"):
        config(adapter=replace(LORA, from_step=6))
    with pytest.raises(TrainingError, match="learning_rate has no effect on method 'fixed'"):
        Trainer(tiny(), config(method=MethodConfig("fixed", learning_rate=0.1), adapter=LORA))


def test_another_adapters_state_is_refused(tiny: Open, config: Config) -> None:
    state = Trainer(tiny(), config(adapter=LORA)).state()
    with pytest.raises(TrainingError, match="checkpoint does not fit this run"):
        Trainer(tiny(), config(adapter=OFT)).load_state(state)


def test_overwriting_a_run_removes_its_adapter(tiny: Open, config: Config, tmp_path: Path) -> None:
    train(config(adapter=LORA, steps=1), tmp_path, model=tiny())
    assert all(event.adapter is not None for event in load_events(tmp_path))
    with pytest.raises(TrainingStopped):
        train(
            config(steps=2),
            tmp_path,
            model=tiny(),
            overwrite=True,
            progress=lambda *_: _interrupt(),
        )
    assert not (tmp_path / "pytorch_lora_weights.safetensors").exists()
    assert not (tmp_path / "bundle.safetensors").exists()


def _interrupt() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGTERM)
