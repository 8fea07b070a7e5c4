"""An adapter of the denoiser, learning beside the tokens of a run: a trainable."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dti_geom.files.adapters import Adapter, AdapterShape, write_adapter
from dti_geom.models.adapters import AdapterLayers
from dti_geom.models.pipelines import TextToImage
from dti_geom.training.config import AdapterConfig
from dti_geom.training.trainable import AdapterRecord, Values

STEPS = {"lora": 250, "oft": 150}  # updates of the official SDXL runs of Kim et al. (2026)


class AdapterTraining:
    """A LoRA or an OFT with its own AdamW; a `Trainable`."""

    def __init__(self, model: TextToImage, config: AdapterConfig, seed: int) -> None:
        """Put a new adapter into the model's denoiser, which still answers as before.

        Raises TrainingError for layers that the denoiser does not have.
        """
        self.config, self.part, self.shape = config, model.denoiser_name, shape_of(config)
        self.layers = AdapterLayers(model.denoiser, self.shape)
        self.layers.start(seed)
        model.put_adapter_in(self.layers)
        self.own = dict(self.layers.parameters)
        self.updates = 0
        self.gradient_norm = torch.zeros((), device=model.device)
        self.optimizer = torch.optim.AdamW(
            self.own.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def parameters(self) -> list[Tensor]:
        """Return what learns, layer by layer."""
        return list(self.own.values())

    def place(self, model: TextToImage, *, differentiable: bool) -> None:
        """Let the denoiser's layers read the parameters themselves."""
        self.layers.put(self.own)
        learns = differentiable and self.updates >= self.config.from_step
        for parameter in self.own.values():
            parameter.requires_grad_(learns)

    def place_values(self, model: TextToImage, values: Values) -> None:
        """Let the denoiser's layers read these values."""
        self.layers.put(values)

    def penalty(self) -> Tensor | None:
        """Return None: decay is AdamW's."""
        return None

    def step(self, share: float) -> None:
        """Move along the gradients at `share` of the learning rate, and clear them."""
        gradients = [x.grad.norm() for x in self.own.values() if x.grad is not None]
        if gradients:
            self.gradient_norm = torch.stack(gradients).norm()
            for group in self.optimizer.param_groups:
                group["lr"] = share * self.config.learning_rate
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.updates += 1

    def values(self) -> Values:
        """Return the weights, float32 on the CPU."""
        return {name: weight.detach().cpu().clone() for name, weight in self.own.items()}

    def average(self, recent: Sequence[Values]) -> Values:
        """Return the mean of every number."""
        names = recent[0]
        return {name: torch.stack([values[name] for values in recent]).mean(0) for name in names}

    def state(self) -> dict[str, Tensor]:
        """Return weights, moments and the number of updates."""
        state = {f"weight/{name}": weight.detach() for name, weight in self.own.items()}
        moments = self.optimizer.state_dict()["state"]
        for number, name in enumerate(self.own):
            for moment, value in moments.get(number, {}).items():
                state[f"{moment}/{name}"] = value
        return state | {"updates": torch.tensor(self.updates)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned, bit for bit. Raises KeyError for another's state."""
        self.updates = int(state["updates"])
        whole = self.optimizer.state_dict()
        for number, (name, parameter) in enumerate(self.own.items()):
            with torch.no_grad():
                parameter.copy_(state[f"weight/{name}"])
            for moment in ("step", "exp_avg", "exp_avg_sq"):
                if f"{moment}/{name}" in state:
                    moments = whole["state"].setdefault(number, {})
                    moments[moment] = state[f"{moment}/{name}"].clone()
        self.optimizer.load_state_dict(whole)

    def adapter(self, values: Values, metadata: Mapping[str, str] = {}) -> Adapter:
        """Return these values as files hold them."""
        return Adapter(self.part, self.shape, values, metadata)

    def save(self, folder: Path, values: Values, metadata: Mapping[str, str]) -> None:
        """Write the values in the layout of diffusers (LoRA) or peft (OFT)."""
        write_adapter(folder, self.adapter(values, metadata), overwrite=True)

    def figures(self) -> list[Tensor]:
        """Return the norm of the change, and that of the last gradient."""
        return [self.layers.update_norm(), self.gradient_norm]

    def records(self, figures: Sequence[Tensor], *, nearest: bool) -> tuple[()]:
        """Return nothing: an adapter has no vectors. See `record`."""
        return ()

    def record(self, figures: Sequence[Tensor]) -> AdapterRecord:
        """Describe the adapter after a step."""
        norm, gradient = figures
        return AdapterRecord(float(norm), float(gradient))

    def results(self, values: Values) -> tuple[()]:
        """Return nothing: an adapter has no vectors."""
        return ()


def shape_of(config: AdapterConfig) -> AdapterShape:
    """Return the shape that a configuration asks for."""
    rank = config.rank or AdapterShape.rank
    return AdapterShape(
        kind=config.kind,
        targets=config.targets,
        rank=rank,
        alpha=float(config.alpha or rank),
        block_size=config.block_size or AdapterShape.block_size,
    )
