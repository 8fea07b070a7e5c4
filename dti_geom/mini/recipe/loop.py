"""The training loop of every stage: resumable, seeded and logged.

The generator of a step is seeded by the step's number. So a run that was stopped and resumed takes
the same steps as a run that never stopped.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LOG_EVERY = 50
SAVE_EVERY_SECONDS = 120.0


@dataclass(frozen=True)
class Schedule:
    """Factor of the learning rate: a short rise, a plateau, a linear fall to 2 %."""

    steps: int
    warmup: int = 100
    fall_from: float = 0.5  # share of the steps

    def factor(self, step: int) -> float:
        """Return the factor of step 0 … steps − 1, in (0, 1]."""
        share = step / self.steps
        fall = 1.0 if share < self.fall_from else max(0.02, (1 - share) / (1 - self.fall_from))
        return min(1.0, (step + 1) / self.warmup) * fall


class Ema:
    """An exponential moving average of parameters. Samples and shipped weights are the average."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float = 0.998) -> None:
        """Start from the parameters as they are."""
        self.parameters = list(parameters)
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the parameters."""
        # Early in training the average forgets faster, or it would remember the random start.
        keep = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            self.average, [parameter.detach() for parameter in self.parameters], 1 - keep
        )

    def __enter__(self) -> "Ema":
        """Put the average into the model, until the block ends."""
        self._exchange()
        return self

    def __exit__(self, *error: object) -> None:
        """Put the training parameters back."""
        self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for parameter, average in zip(self.parameters, self.average, strict=True):
            trained = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(trained)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of a step, on the CPU so that every device sees the same draws."""
    # A factor larger than any number of steps, so that no two runs share a step's draws.
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


@dataclass
class Training:
    """A stage in progress: its networks, its optimisers, and a folder for log and checkpoint."""

    folder: Path
    modules: dict[str, nn.Module]
    optimisers: list[torch.optim.Optimizer]
    schedule: Schedule
    seed: int
    ema: Ema | None = None
    clip: float = 1.0
    progress: float = 0.0  # share of the steps taken

    def __post_init__(self) -> None:
        """Make the folder, and note the full learning rates."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._base_rates = [group["lr"] for group in self._groups()]

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    @property
    def checkpoint(self) -> Path:
        """The file that holds the state of an unfinished stage."""
        return self.folder / "checkpoint.pt"

    def run(
        self,
        losses: Callable[[torch.Generator], dict[str, Tensor]],
        watch: Callable[[int], None] | None = None,
        watch_every: int = 0,
    ) -> None:
        """Take the remaining steps.

        losses: draws a batch with the given generator; returns named scalars, "loss" among them.
        watch: called every `watch_every` steps and at the end, to draw a grid of samples.
        """
        step = self._resume()
        started = saved = time.monotonic()
        sums: dict[str, float] = {}
        counted = 0
        while step < self.schedule.steps:
            for name, value in self._step(step, losses).items():
                sums[name] = sums.get(name, 0.0) + value
            step += 1
            counted += 1
            if step % LOG_EVERY == 0 or step == self.schedule.steps:
                means = {name: round(total / counted, 5) for name, total in sums.items()}
                self._log({"step": step, "seconds": round(time.monotonic() - started, 1), **means})
                sums, counted = {}, 0
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                self._save(step)
                saved = time.monotonic()
            if watch and watch_every and (step % watch_every == 0 or step == self.schedule.steps):
                watch(step)
        self._save(step)

    def _step(
        self, step: int, losses: Callable[[torch.Generator], dict[str, Tensor]]
    ) -> dict[str, float]:
        self.progress = step / self.schedule.steps
        factor = self.schedule.factor(step)
        for group, base in zip(self._groups(), self._base_rates, strict=True):
            group["lr"] = base * factor
        named = losses(step_generator(self.seed, step))
        named["loss"].backward()
        for module in self.modules.values():
            torch.nn.utils.clip_grad_norm_(module.parameters(), self.clip)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(step)
        return {name: float(value.detach()) for name, value in named.items()}

    def _log(self, entry: dict[str, float]) -> None:
        line = json.dumps(entry)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(line + "\n")
        print(self.folder.name, line, flush=True)

    def _save(self, step: int) -> None:
        state = {
            "step": step,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "ema": self.ema.average if self.ema else None,
        }
        # Written beside and renamed: a run that is killed while it saves keeps its last checkpoint.
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _resume(self) -> int:
        if not self.checkpoint.exists():
            return 0
        state = torch.load(self.checkpoint, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        if self.ema:
            for average, saved in zip(self.ema.average, state["ema"], strict=True):
                average.copy_(saved)
        return int(state["step"])
