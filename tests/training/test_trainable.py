"""The loop trains, checkpoints and resumes whatever keeps to `Trainable`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dti_geom.errors import TrainingDiverged, TrainingError
from dti_geom.models.pipelines import TextToImage
from dti_geom.training import ConceptConfig, MethodConfig, PreviewConfig, RunConfig, Trainer
from dti_geom.training.run import resume, train
from dti_geom.training.trainable import Trainable, Values


class Shift:
    """A shift of the denoiser's first bias: neither a token nor vectors."""

    def __init__(self, model: TextToImage) -> None:
        self.weight = torch.zeros_like(model.denoiser.conv_in.bias).requires_grad_()
        self.optimizer = torch.optim.Adam([self.weight], lr=0.01)
        model.denoiser.conv_in.register_forward_hook(self._shifted)
        self.placed = self.weight.detach()

    def _shifted(self, _module: object, _inputs: object, output: Tensor) -> Tensor:
        return output + self.placed[:, None, None]

    def parameters(self) -> list[Tensor]:
        return [self.weight]

    def place(self, model: TextToImage, *, differentiable: bool) -> None:
        self.placed = self.weight if differentiable else self.weight.detach()

    def place_values(self, model: TextToImage, values: Values) -> None:
        self.placed = values["bias"]

    def penalty(self) -> Tensor | None:
        return 0.1 * self.weight.square().sum()

    def step(self, share: float) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def values(self) -> Values:
        return {"bias": self.weight.detach().clone()}

    def average(self, recent: Sequence[Values]) -> Values:
        return {"bias": torch.stack([values["bias"] for values in recent]).mean(dim=0)}

    def state(self) -> dict[str, Tensor]:
        moments = self.optimizer.state_dict()["state"].get(0, {})
        return {"weight": self.weight.detach(), **moments}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.weight.data.copy_(state["weight"])
        whole = self.optimizer.state_dict()
        whole["state"] = {0: {name: x.clone() for name, x in state.items() if name != "weight"}}
        self.optimizer.load_state_dict(whole)

    def save(self, folder: Path, values: Values, metadata: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(values, folder / "shift.safetensors", metadata=dict(metadata))

    def figures(self) -> list[Tensor]:
        return []

    def records(self, figures: Sequence[Tensor], *, nearest: bool) -> tuple[()]:
        return ()

    def results(self, values: Values) -> tuple[()]:
        return ()


def shift(model: TextToImage, concept: ConceptConfig, method: MethodConfig, seed: int) -> Trainable:
    # The prompts hold the token, so the model must know it.
    model.place(concept.token, [tower.token_table[:1] for tower in model.towers])
    return Shift(model)


Open = Callable[[], TextToImage]
Config = Callable[..., RunConfig]


def test_the_loop_trains_what_is_no_token(tiny: Open, config: Config) -> None:
    model = tiny()
    before = model.denoiser.conv_in.bias.clone()
    trainer = Trainer(model, config(), build=shift)
    records = list(trainer.updates())
    (values,) = trainer.learned()
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert all(record.vectors == () for record in records)
    assert values["bias"].any()
    assert torch.equal(model.denoiser.conv_in.bias, before)


def test_its_state_goes_out_and_in_without_changing_the_path(tiny: Open, config: Config) -> None:
    asked = config(method=MethodConfig(average_last=3))
    whole, stopped, resumed = (Trainer(tiny(), asked, build=shift) for _ in range(3))
    whole.run()
    updates = stopped.updates()
    for _ in range(4):
        next(updates)
    resumed.load_state({name: x.clone() for name, x in stopped.state().items()})
    resumed.run()
    assert torch.equal(resumed.learned()[0]["bias"], whole.learned()[0]["bias"])
    assert not torch.equal(whole.learned()[0]["bias"], whole.concepts[0].trainable.values()["bias"])


def test_a_run_keeps_previews_and_resumes_it(tiny: Open, config: Config, tmp_path: Path) -> None:
    preview = PreviewConfig(every=6, seeds=(0,), steps=1)
    asked = config(preview=preview)

    def stop(record: object, _total: int) -> None:
        if getattr(record, "step", 0) == 5:
            raise KeyboardInterrupt

    result = train(asked, tmp_path / "whole", model=tiny(), build=shift)
    with pytest.raises(KeyboardInterrupt):
        train(asked, tmp_path / "run", model=tiny(), build=shift, progress=stop)
    assert resume(tmp_path / "run", model=tiny(), build=shift).steps == 6
    learned = [load_file(tmp_path / name / "shift.safetensors") for name in ("whole", "run")]
    assert torch.equal(learned[0]["bias"], learned[1]["bias"])
    assert (tmp_path / "run" / "checkpoints" / "step-000004" / "shift.safetensors").exists()
    assert result.vectors == ()
    assert [picture.step for picture in result.previews] == [6]


def test_values_that_are_not_finite_stop_it(tiny: Open, config: Config) -> None:
    trainer = Trainer(tiny(), config(), build=shift)
    (weight,) = trainer.concepts[0].trainable.parameters()
    weight.data.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="loss of <x> is not finite at step 1"):
        next(trainer.updates())


def test_a_state_of_something_else_is_refused(tiny: Open, config: Config) -> None:
    other = Trainer(tiny(), config(), build=shift).state()
    with pytest.raises(TrainingError, match="checkpoint does not fit this run"):
        Trainer(tiny(), config()).load_state(other)
