"""The training loop.

It moves trainables and yields a record of each update. Files, pictures and progress bars are made
by whoever reads the records.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

import torch
from torch import Tensor

from dti_geom.errors import TrainingDiverged, TrainingError
from dti_geom.models.pipelines import TextToImage
from dti_geom.models.transfer import fetched
from dti_geom.training.adapters import STEPS, AdapterTraining, shape_of
from dti_geom.training.checks import refuse_fixed_alone
from dti_geom.training.config import ConceptConfig, DataConfig, RunConfig
from dti_geom.training.data import Batch, Samples, join, load_views
from dti_geom.training.loss_scale import LossScale
from dti_geom.training.methods.base import decide
from dti_geom.training.methods.registry import method_named
from dti_geom.training.objectives.registry import OBJECTIVES, objectives_of
from dti_geom.training.old_states import renamed
from dti_geom.training.peak_memory import peak_memory
from dti_geom.training.processes import Processes
from dti_geom.training.schedules import learning_rate_share
from dti_geom.training.token_vectors import TokenVectors, with_prefix
from dti_geom.training.trainable import AdapterRecord, Build, Trainable, Values, VectorRecord

PREVIEW_STEPS = 25  # of the sampler at most, where a run does not say
CLASS_TEMPLATES = ("a photo of a {}",)  # {} for the class word
PRIOR_SEED = 1_000_003  # added to a run's seed, so that class images get noise of their own
NEAREST_TIMES = 20  # how often in a run the nearest words are looked up


@dataclass(frozen=True)
class StepRecord:
    """One update."""

    step: int  # counted from 1
    losses: dict[str, float]  # data loss of each token, mean over the whole batch
    learning_rate: float
    vectors: tuple[VectorRecord, ...]
    seconds: float
    peak_memory: int  # bytes in this run: of the process, or of the GPU's allocator
    adapter: AdapterRecord | None = None
    # Of each token, the mean of every term of its loss, by the term's name; empty for a single one.
    terms: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Concept:
    """A concept during training."""

    config: ConceptConfig
    trainable: Trainable
    samples: Samples


@dataclass(frozen=True)
class Figures:
    """What an update did, as float32 tensors on the CPU."""

    losses: Tensor  # (terms, concepts)
    gradients: list[Tensor]
    learned: list[list[Tensor]]  # by concept, its parameters after the step
    described: list[list[Tensor]]  # by trainable, what its records need

    @classmethod
    def read(
        cls,
        losses: Tensor,
        gradients: list[Tensor],
        learned: list[list[Tensor]],
        described: list[list[Tensor]],
    ) -> "Figures":
        """Copy all from where the model computes, in one copy."""
        tensors = iter(fetched([losses, *gradients, *chain(*learned), *chain(*described)]))

        def take(like: list[Tensor]) -> list[Tensor]:
            return list(islice(tensors, len(like)))

        return cls(
            losses=next(tensors),
            gradients=take(gradients),
            learned=[take(part) for part in learned],
            described=[take(part) for part in described],
        )


class Trainer:
    """A model, the concepts it learns, and everything the next step depends on."""

    def __init__(
        self,
        model: TextToImage,
        config: RunConfig,
        processes: Processes | None = None,
        *,
        build: Build = TokenVectors.build,
        class_images: Sequence[str] = (),
    ) -> None:
        """Load and encode the images. `config` gets the values that it left open.

        build: makes the trainable of each concept. class_images: for prior preservation, a folder
        of images of each concept's class.
        """
        model.follow_instruction(config.data.instruction)
        self.model, self.config = model, with_defaults(config, model)
        self.settings = decide(method_named(config.method.name), self.config.method)
        self.processes = processes or Processes()
        data = self.config.data
        resolution = data.resolution or model.training_resolution
        self.noising = model.noising_at(resolution)
        if data.times is not None:
            self.noising = self.noising.with_times(data.times)
        if data.zero_pad:
            model.place_zero_pad()
        model.take_adapter_out()
        self.concepts: list[Concept] = []
        for concept in config.concepts:
            model.place_adapters(concept.token, ())
            trainable = build(model, concept, self.config.method, config.seed)
            trainable.place(model, differentiable=False)
            views = load_views(concept, data, resolution, config.seed)
            samples = Samples(
                model,
                views,
                token=concept.token,
                templates=data.templates or model.templates(data.learn),
                seed=config.seed,
                word=concept.init,
                random_side=resolution if data.random_crops else None,
                zero_pad=data.zero_pad,
                strata=self._samples_of_update() if data.stratified else None,
            )
            self.concepts.append(Concept(concept, trainable, samples))
        self.priors = [
            self._prior(concept, folder)
            for concept, folder in zip(config.concepts, class_images, strict=False)
        ]
        self.adapter: AdapterTraining | None = None
        if config.adapter is not None:
            self.adapter = AdapterTraining(model, config.adapter, config.seed)
        if config.compile:
            # The pipeline keeps its own: previews have other shapes, which would be compiled too.
            model.denoiser = torch.compile(model.denoiser)
        self.loss_scale = LossScale(model.dtype)
        self.step = 0
        self.terms: tuple[str, ...] = ()  # of the loss, from the first update on
        self._ahead: tuple[int, Batch] | None = None  # the next micro-batch and its number
        # What each trainable had learned after the last updates, as many as are averaged.
        self._recent: list[list[Values]] = []

    @property
    def trainables(self) -> list[Trainable]:
        """What learns: each concept's, then the adapter."""
        own = [concept.trainable for concept in self.concepts]
        return own if self.adapter is None else [*own, self.adapter]

    def run(self, listen: Callable[[StepRecord], None] = lambda record: None) -> None:
        """Make the updates that are left and call `listen` after each. Raises TrainingDiverged."""
        for record in self.updates():
            listen(record)

    def updates(self) -> Iterator[StepRecord]:
        """Make the updates that are left. Raises TrainingDiverged."""
        total = self.config.steps or 0
        while self.step < total:
            started = time.perf_counter()
            losses = self._backward()
            share = learning_rate_share(self.settings, self.step, total)
            figures = self._move(losses, share)
            self.step += 1
            self._keep_recent()
            yield self._record(figures, share, time.perf_counter() - started)

    def learned(self) -> list[Values]:
        """Return what every one of `trainables` has learned, float32 on the CPU.

        With `average_last`, the average over the last updates.
        """
        return [
            trainable.average([values[number] for values in self._recent])
            if self._recent
            else trainable.values()
            for number, trainable in enumerate(self.trainables)
        ]

    def hand_adapter_over(self, learned: Sequence[Values]) -> None:
        """Leave the adapter to the tokens: the model paints them with it, and all else without.

        learned: from `learned`.
        """
        if self.adapter is None:
            return
        self.model.take_adapter_out()
        adapter = self.adapter.adapter(learned[-1])
        for concept in self.concepts:
            self.model.place_adapters(concept.config.token, [(adapter, 1.0)])

    def state(self) -> dict[str, Tensor]:
        """Return everything a resumed run needs, as tensors on the CPU."""
        state = {
            "step": torch.tensor(self.step),
            "loss_scale": torch.tensor(self.loss_scale.value),
        }
        for number, trainable in enumerate(self.trainables):
            for name, value in trainable.state().items():
                state[f"{number}/{name}"] = value.detach().cpu()
            recent = [values[number] for values in self._recent]
            for part in recent[0] if recent else ():
                stacked = torch.stack([values[part] for values in recent])
                state[f"recent/{number}/{part}"] = stacked
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned: the run then ends as if it had not stopped.

        States of version 0.1.0 work too. Raises TrainingError for the state of another
        configuration or program version.
        """
        state = renamed(state, [tower.name for tower in self.model.towers])
        try:
            self.step = int(state["step"])
            # States of version 0.1.0 have none.
            self.loss_scale.value = float(state.get("loss_scale", self.loss_scale.value))
            recent = []
            for number, trainable in enumerate(self.trainables):
                trainable.load_state(with_prefix(state, f"{number}/"))
                recent.append(_unstacked(with_prefix(state, f"recent/{number}/")))
            self._recent = [list(values) for values in zip(*recent, strict=True)]
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"the checkpoint does not fit this run ({error}). It was written for another "
                "configuration or by another version. Train again with --overwrite."
            ) from error

    def _backward(self) -> Tensor:
        """Compute the gradients of one update; again at another scale where float16 overflows.

        Returns the mean of each term of each concept's data loss, (terms, concepts), where the
        model computes.
        """
        while True:
            losses = self._scaled_backward()
            gradients = [parameter.grad for parameter in self._parameters()]
            # No scale helps a loss that is not finite itself. Without a scale nothing is read here,
            # so a GPU need not be waited for.
            unscaled = self.loss_scale.value == 1
            if unscaled or not _is_finite(losses) or self.loss_scale.undo(gradients):
                return losses
            for parameter in self._parameters():
                parameter.grad = None

    def _scaled_backward(self) -> Tensor:
        """Compute the gradients of the scaled loss, over its micro-batches and processes."""
        accumulate = self.config.accumulate
        found: list[Tensor] = []
        for micro in range(accumulate):
            for trainable in self.trainables:
                trainable.place(self.model, differentiable=True)
            losses = self._losses(self._batch(self.step * accumulate + micro))
            penalties = [trainable.penalty() for trainable in self.trainables]
            terms = [losses.sum(), *(term for term in penalties if term is not None)]
            # Every concept's own mean, summed: each gets the gradient it would get alone.
            (torch.stack(terms).sum() / accumulate * self.loss_scale.value).backward()
            found.append(losses.detach() / accumulate)
            self._draw_ahead(self.step * accumulate + micro + 1)
        for trainable in self.trainables:  # the graph is freed; the model must not keep it
            trainable.place(self.model, differentiable=False)
        self.processes.average([parameter.grad for parameter in self._parameters()])
        sums = torch.stack(found).sum(dim=0)
        self.processes.average([sums])
        return sums

    def _move(self, losses: Tensor, share: float) -> "Figures":
        """Step every trainable, and read what that did: the only wait for a GPU in an update.

        Raises TrainingDiverged and puts the parameters back if anything is not finite.
        """
        parameters = self._parameters()
        before = [parameter.detach().clone() for parameter in parameters]
        learned = [concept.trainable.parameters() for concept in self.concepts]
        gradients = [x.grad for x in chain(*learned) if x.grad is not None]
        for trainable in self.trainables:
            trainable.step(share)
        # An adapter's millions of numbers stay where they are: its norms show what is not finite.
        described = [trainable.figures() for trainable in self.trainables]
        figures = Figures.read(losses, gradients, learned, described)
        try:
            self._refuse_non_finite(figures)
        except TrainingDiverged:
            with torch.no_grad():
                for parameter, value in zip(parameters, before, strict=True):
                    parameter.copy_(value)
            raise
        return figures

    def _samples_of_update(self) -> int:
        """Return how many samples of a concept an update has, in all passes and processes."""
        return self.config.batch_size * self.config.accumulate * self.processes.count

    def _batch(self, number: int) -> Batch:
        """Return a micro-batch by its number in the run."""
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead is not None and ahead[0] == number else self._draw(number)

    def _draw_ahead(self, number: int) -> None:
        """Draw the next micro-batch on the processor, while a GPU still computes this one."""
        if number < (self.config.steps or 0) * self.config.accumulate:
            self._ahead = number, self._draw(number)

    def _draw(self, number: int) -> Batch:
        """Draw the samples of a micro-batch, those of all concepts together."""
        # Samples are numbered through the run, so that accumulation and processes share them out.
        first = (number * self.processes.count + self.processes.index) * self.config.batch_size
        numbers = range(first, first + self.config.batch_size)
        batch = join([concept.samples.draw(numbers, self.noising) for concept in self.concepts])
        if not self.priors:
            return batch
        prior = join([samples.draw(numbers, self.noising) for samples in self.priors])
        return replace(batch, prior=prior)

    def _prior(self, concept: ConceptConfig, folder: str) -> Samples:
        """Return samples of a concept's class, under its word, without captions and masks."""
        data = self.config.data
        resolution = data.resolution or self.model.training_resolution
        plain = DataConfig(crops=data.crops, flip=data.flip)
        views = load_views(replace(concept, images=folder, subject=None), plain, resolution, 0)
        return Samples(
            self.model,
            views,
            token=concept.init,
            templates=CLASS_TEMPLATES,
            seed=self.config.seed + PRIOR_SEED,
            word=concept.init,
        )

    def _losses(self, batch: Batch) -> Tensor:
        """Return the mean over each concept's samples of each objective's terms.

        (terms, concepts); their names are in `self.terms`.
        """
        losses: dict[str, Tensor] = {}
        for name in self.config.objective.names or ():
            named = OBJECTIVES[name].compute(
                self.model, batch, min_snr=self.config.min_snr, options=self.config.objective
            )
            losses |= named
        self.terms = tuple(losses)
        per_sample = torch.stack(list(losses.values()))
        return per_sample.view(len(losses), len(self.concepts), -1).mean(dim=2)

    def _parameters(self) -> list[Tensor]:
        parameters: list[Tensor] = []
        for trainable in self.trainables:
            parameters += trainable.parameters()
        return parameters

    def _refuse_non_finite(self, figures: "Figures") -> None:
        """Raise TrainingDiverged for a loss, a gradient or a parameter that is not finite."""
        tokens = [concept.config.token for concept in self.concepts]
        bad = [
            token
            for token, loss in zip(tokens, figures.losses.sum(dim=0), strict=True)
            if not _is_finite(loss)
        ]
        if bad or not all(map(_is_finite, figures.gradients)):
            cause = f"the loss of {', '.join(bad)}" if bad else "a gradient"
            raise TrainingDiverged(
                f"{cause} is not finite at step {self.step + 1}; the vectors of step {self.step} "
                "are kept. Try a lower learning rate, or --dtype float32."
            )
        for token, parameters in zip(tokens, figures.learned, strict=True):
            if not all(map(_is_finite, parameters)):
                raise TrainingDiverged(
                    f"what {token} learned is not finite after step {self.step + 1}; the vectors "
                    f"of step {self.step} are kept. Try a lower learning rate."
                )
        if self.adapter is not None and not all(map(_is_finite, figures.described[-1])):
            raise TrainingDiverged(
                f"what the adapter learned is not finite after step {self.step + 1}; that of step "
                f"{self.step} is kept. Try a lower --adapter-rate."
            )

    def _keep_recent(self) -> None:
        count = self.settings.average_last
        if count:
            self._recent.append([trainable.values() for trainable in self.trainables])
            del self._recent[:-count]

    def _record(self, figures: "Figures", share: float, seconds: float) -> StepRecord:
        total = self.config.steps or 1
        every = max(1, total // NEAREST_TIMES)
        nearest = self.step in (1, total) or self.step % every == 0
        vectors: list[VectorRecord] = []
        for trainable, described in zip(self.trainables, figures.described, strict=True):
            vectors += trainable.records(described, nearest=nearest)
        adapter = None
        if self.adapter is not None:
            adapter = self.adapter.record(figures.described[-1])
        tokens = [concept.config.token for concept in self.concepts]
        terms = {
            token: dict(zip(self.terms, values, strict=True))
            for token, values in zip(tokens, figures.losses.T.tolist(), strict=True)
        }
        return StepRecord(
            step=self.step,
            losses=dict(zip(tokens, figures.losses.sum(dim=0).tolist(), strict=True)),
            learning_rate=share * self.settings.learning_rate,
            vectors=tuple(vectors),
            seconds=seconds,
            peak_memory=peak_memory(self.model.device),
            adapter=adapter,
            terms=terms if len(self.terms) > 1 else {},
        )


def with_defaults(config: RunConfig, model: TextToImage) -> RunConfig:
    """Return the configuration with the values it left open, from the model and the method."""
    data = config.data
    settings = decide(method_named(config.method.name), config.method, model.training)
    on_sphere = settings.method.optimizer == "sphere"
    method = replace(
        config.method,
        learning_rate=settings.learning_rate,
        magnitude=settings.magnitude,
        kappa=settings.kappa if on_sphere else None,
        weight_decay=None if on_sphere else settings.weight_decay,
        beta=settings.beta,
        optimizer=settings.optimizer,
        momentum=settings.momentum,
        schedule=settings.schedule,
        warmup=settings.warmup,
        average_last=settings.average_last,
    )
    own = settings.method.objectives
    names = objectives_of(config, own, token_learns=settings.method.learns)
    adapter, steps = config.adapter, model.training.steps
    refuse_fixed_alone(config, settings.method)
    if adapter is not None:
        shape, steps = shape_of(adapter), STEPS[adapter.kind]
        fields = ("rank", "alpha") if adapter.kind == "lora" else ("block_size",)
        adapter = replace(adapter, **{name: getattr(shape, name) for name in fields})
    preview_steps = config.preview.steps or min(PREVIEW_STEPS, model.sampling_steps)
    return replace(
        config,
        preview=replace(config.preview, steps=preview_steps),
        adapter=adapter,
        objective=replace(config.objective, names=names),
        steps=config.steps or steps,
        dtype=str(model.dtype).removeprefix("torch."),
        method=method,
        data=replace(
            data,
            resolution=data.resolution or model.training_resolution,
            templates=data.templates or model.templates(data.learn),
            instruction=model.instruction,
            times=data.times or model.noising.times,
        ),
    )


def _is_finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def _unstacked(stacked: Mapping[str, Tensor]) -> list[Values]:
    """Return one entry per update from {part: (updates, …)}."""
    updates = len(next(iter(stacked.values()))) if stacked else 0
    return [{part: values[update] for part, values in stacked.items()} for update in range(updates)]
