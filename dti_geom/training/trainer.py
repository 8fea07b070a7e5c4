"""The loop. It moves vectors and tells its listener; files, pictures and progress bars are the listener's business."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import TrainingDiverged
from dti_geom.models.pipelines import TextToImage
from dti_geom.training.config import ConceptConfig, MethodConfig, RunConfig
from dti_geom.training.data import Samples, join, load_views
from dti_geom.training.methods import LearnedVectors, method_named
from dti_geom.training.objectives import denoising_losses
from dti_geom.training.processes import Processes
from dti_geom.training.starts import learned_vectors


@dataclass(frozen=True)
class VectorRecord:
    """One vector after a step; geometry in embedding units and radians."""

    token: str
    tower: str
    index: int  # among the token's vectors
    norm: float
    angle_to_start: float
    cosine_to_prior: float
    gradient_norm: float  # of the loss, in the parameters that are held
    nearest: tuple[str, ...] = ()  # words by direction, nearest first; looked up now and then


@dataclass(frozen=True)
class StepRecord:
    """One update."""

    step: int  # counted from 1
    losses: dict[str, float]  # data loss of each token, mean over the whole batch
    learning_rate: float
    vectors: tuple[VectorRecord, ...]
    seconds: float
    peak_memory: int  # bytes: of the process, or of the GPU's allocator


@dataclass
class Concept:
    """A concept while it learns."""

    config: ConceptConfig
    learned: list[LearnedVectors]  # one for each tower
    samples: Samples


class Trainer:
    """A model, the concepts it is taught, and everything the next step depends on."""

    def __init__(
        self, model: TextToImage, config: RunConfig, processes: Processes | None = None
    ) -> None:
        """Loads and encodes the images; `config` gets the model's defaults where it left them open."""
        self.model, self.config = model, with_defaults(config, model)
        self.processes = processes or Processes()
        data = self.config.data
        self.concepts = []
        for concept in config.concepts:
            learned = learned_vectors(model, concept, self.config.method, config.seed)
            model.place(concept.token, [one.vectors().detach() for one in learned])
            views = load_views(concept, data, data.resolution or model.resolution, config.seed)
            samples = Samples(
                model, views, concept.token, data.templates or model.templates, config.seed
            )
            self.concepts.append(Concept(concept, learned, samples))
        if config.compile:
            model.denoiser.compile()
        self.step = 0
        self._recent: list[
            list[Tensor]
        ] = []  # the vectors of the last updates, as far as they are averaged

    def run(self, listen: Callable[[StepRecord], None] = lambda record: None) -> None:
        """Make the updates that are left, telling `listen` of each. Raises TrainingDiverged."""
        for record in self.updates():
            listen(record)

    def updates(self) -> Iterator[StepRecord]:
        """The updates that are left."""
        total = self.config.steps or 0
        while self.step < total:
            started = time.perf_counter()
            losses = self._backward()
            self._refuse_non_finite(losses)
            share = learning_rate_share(self.config.method, self.step, total)
            gradients = [
                [one.gradient_norms().tolist() for one in concept.learned]
                for concept in self.concepts
            ]
            for one in self._all_learned():
                one.step(share)
                if not bool(one.held.isfinite().all()):
                    raise TrainingDiverged(
                        f"the vectors are not finite after step {self.step + 1}; the last checkpoint is kept. "
                        "Try a lower learning rate."
                    )
            self.step += 1
            self._keep_recent()
            yield self._record(losses, share, gradients, time.perf_counter() - started)

    def _backward(self) -> dict[str, float]:
        """Gradients of one update's mean loss, over all its micro-batches and processes; the mean losses."""
        config, processes = self.config, self.processes
        micro_batches = config.accumulate * processes.count
        sums = torch.zeros(len(self.concepts), device=self.model.device)
        for micro in range(config.accumulate):
            place = (
                self.step * micro_batches + micro * processes.count + processes.index
            ) * config.batch_size
            numbers = range(place, place + config.batch_size)
            for concept in self.concepts:
                self.model.place(concept.config.token, [one.vectors() for one in concept.learned])
            batch = join(
                [concept.samples.draw(numbers, self.model.noising) for concept in self.concepts]
            )
            losses = (
                denoising_losses(self.model, batch, config.min_snr)
                .view(len(self.concepts), -1)
                .mean(dim=1)
            )
            pulls = [one.pull() for one in self._all_learned() if one.method.pull]
            # Every concept's own mean, summed: each gets the gradient it would get alone.
            (torch.stack([losses.sum(), *pulls]).sum() / config.accumulate).backward()
            sums += losses.detach() / config.accumulate
        for (
            concept
        ) in self.concepts:  # the graph is gone; nobody shall reach into it through the model
            self.model.place(
                concept.config.token, [one.vectors().detach() for one in concept.learned]
            )
        processes.average(
            [parameter.grad for one in self._all_learned() for parameter in one.parameters()]
        )
        processes.average([sums])
        return dict(
            zip((concept.config.token for concept in self.concepts), sums.tolist(), strict=True)
        )

    def _all_learned(self) -> list[LearnedVectors]:
        return [one for concept in self.concepts for one in concept.learned]

    def _refuse_non_finite(self, losses: dict[str, float]) -> None:
        """Stop before the vectors are spoiled."""
        bad = [token for token, loss in losses.items() if not math.isfinite(loss)]
        if not bad:
            gradients = [
                parameter.grad for one in self._all_learned() for parameter in one.parameters()
            ]
            if all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients):
                return
        cause = f"the loss of {', '.join(bad)}" if bad else "a gradient"
        raise TrainingDiverged(
            f"{cause} is not finite at step {self.step + 1}; the vectors of step {self.step} are kept. "
            "Try a lower learning rate, or --dtype float32."
        )

    def vectors(self) -> dict[str, list[Tensor]]:
        """Every token's (n, d) vectors in each tower, float32 on the CPU; the average of the last updates, if asked."""
        last = self._recent[-self.config.method.average_last :] if self._recent else []
        result: dict[str, list[Tensor]] = {}
        number = 0
        for concept in self.concepts:
            result[concept.config.token] = []
            for one in concept.learned:
                recent = [kept[number] for kept in last]
                result[concept.config.token].append(
                    average(recent) if recent else one.vectors().detach().cpu().clone()
                )
                number += 1
        return result

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as tensors."""
        state = {"step": torch.tensor(self.step)}
        for number, one in enumerate(self._all_learned()):
            state |= {
                f"{number}/{name}": value.detach().cpu() for name, value in one.state().items()
            }
            if self._recent:
                state[f"{number}/recent"] = torch.stack([kept[number] for kept in self._recent])
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`, to the same vectors as if there had been no stop."""
        self.step = int(state["step"])
        every = self._all_learned()
        for number, one in enumerate(every):
            prefix = f"{number}/"
            one.load_state(
                {
                    key.removeprefix(prefix): value
                    for key, value in state.items()
                    if key.startswith(prefix)
                }
            )
        recent = [
            state[f"{number}/recent"] for number in range(len(every)) if f"{number}/recent" in state
        ]
        self._recent = [list(kept) for kept in zip(*recent, strict=True)]

    def _keep_recent(self) -> None:
        count = self.config.method.average_last
        if count:
            self._recent.append(
                [one.vectors().detach().cpu().clone() for one in self._all_learned()]
            )
            del self._recent[:-count]

    def _record(
        self,
        losses: dict[str, float],
        share: float,
        gradients: list[list[list[float]]],
        seconds: float,
    ) -> StepRecord:
        vectors = tuple(
            record
            for concept, of_concept in zip(self.concepts, gradients, strict=True)
            for tower, one, of_tower in zip(
                self.model.towers, concept.learned, of_concept, strict=True
            )
            for record in describe(concept.config.token, tower.name, one, of_tower)
        )
        rate = share * (self.config.method.learning_rate or 0.0)
        return StepRecord(self.step, losses, rate, vectors, seconds, peak_memory(self.model.device))


def describe(
    token: str, tower: str, learned: LearnedVectors, gradients: Sequence[float]
) -> list[VectorRecord]:
    """The geometry of a token's vectors in one tower."""
    vectors = learned.vectors().detach()
    directions = geometry.normalize(vectors)
    norms = geometry.norms(vectors).tolist()
    angles = geometry.angle(directions, geometry.normalize(learned.start)).tolist()
    cosines = (directions * learned.prior).sum(dim=-1).tolist()
    return [
        VectorRecord(token, tower, index, *figures)
        for index, figures in enumerate(zip(norms, angles, cosines, gradients, strict=True))
    ]


def average(recent: Sequence[Tensor]) -> Tensor:
    """(n, d): Fréchet mean of the directions on the sphere, at the mean norm."""
    stacked = torch.stack(list(recent))
    norms = geometry.norms(stacked).mean(dim=0)
    directions = geometry.normalize(stacked)
    return norms[:, None] * torch.stack(
        [geometry.frechet_mean(directions[:, row]) for row in range(stacked.shape[1])]
    )


def learning_rate_share(method: MethodConfig, step: int, total: int) -> float:
    """The schedule's factor for update `step` (from 0) of `total`: linear rise, then constant, or a fall toward 0."""
    if step < method.warmup:
        return (step + 1) / method.warmup
    if method.schedule == "constant":
        return 1.0
    done = (step - method.warmup) / max(1, total - method.warmup)
    return 1 - done if method.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2


def with_defaults(config: RunConfig, model: TextToImage) -> RunConfig:
    """The configuration with every open choice of the model and the method filled in."""
    method = method_named(config.method.name)
    rate = model.direction_rate if method.learning_rate is None else method.learning_rate
    return replace(
        config,
        steps=config.steps or model.training_steps,
        dtype=str(model.dtype).removeprefix("torch."),
        method=replace(
            config.method,
            learning_rate=rate
            if config.method.learning_rate is None
            else config.method.learning_rate,
            magnitude=config.method.magnitude or method.magnitude,
        ),
        data=replace(config.data, resolution=config.data.resolution or model.resolution),
    )


def peak_memory(device: torch.device) -> int:
    """Bytes: the most this process has held, or the most the GPU's allocator has."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
