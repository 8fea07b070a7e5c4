"""What a run will cost, estimated without its weights.

The model is built on the meta device from its configuration, and the objectives of the run go
through it forward and backward, as in training: see `dti_geom.models.metering` for what is counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dti_geom.errors import DtiGeomError, first_line
from dti_geom.models.adapters import AdapterLayers
from dti_geom.models.catalog import find_source, profile_of, variant_of
from dti_geom.models.downloads import NeededFile, plan_download
from dti_geom.models.metering import Meter, metered
from dti_geom.models.pipelines import TextToImage, View, default_dtype
from dti_geom.models.pipelines.blueprint import meta_model
from dti_geom.models.pipelines.memory import MEMORY, spend_memory
from dti_geom.training.adapters import shape_of
from dti_geom.training.checks import init_rows
from dti_geom.training.config import ConceptConfig, RunConfig
from dti_geom.training.data import Batch, image_files, located
from dti_geom.training.methods.registry import method_named
from dti_geom.training.objectives.registry import OBJECTIVES
from dti_geom.training.trainer import with_defaults

GIB = 2**30
# Left free on a card: the CUDA context and the workspaces of its libraries, and a share of what is
# in use for the allocator's gaps.
RESERVE = 1 * GIB
GAPS = 0.05
CARDS = (8, 12, 16, 24, 40, 48, 80)  # GiB


@dataclass(frozen=True)
class PartWeights:
    """The weights of one part of a pipeline."""

    name: str
    dtype: str
    parameters: int
    bytes: int


@dataclass(frozen=True)
class MemoryEstimate:
    """The most memory in use in each phase of a run, in bytes, and a training step by part."""

    memory: str  # fast or low
    weights: int  # of denoiser and text encoders
    activations: int  # kept for the backward pass
    working: int  # at the peak of a step, beyond these
    latents: int  # of the images, and what learns with its optimiser
    training: int  # the four together, and the autoencoder where samples are cut anew
    loading: int  # all parts on the device
    encoding: int  # of the images
    painting: int  # of the previews; 0 without previews
    flops: int  # floating-point operations of an update
    picture_flops: int  # of a picture by the pipeline's own sampler, guided, at its own size
    sampler_flops: int  # of one step of it

    @property
    def peak(self) -> int:
        """The largest of the phases."""
        return max(self.training, self.loading, self.encoding, self.painting)

    @property
    def needed(self) -> int:
        """The memory of a card that the run fits."""
        return round(self.peak * (1 + GAPS)) + RESERVE


@dataclass(frozen=True)
class Card:
    """A common size of a card, and how a run fits it."""

    gib: int
    memory: str | None  # the fastest setting that fits; None: neither does


@dataclass(frozen=True)
class Estimate:
    """What a run will cost, and its configuration with every default filled in."""

    config: RunConfig
    files: tuple[NeededFile, ...]  # that the model is opened from
    bytes: int  # of all of them
    bytes_to_download: int
    parts: tuple[PartWeights, ...]
    trainable: int  # numbers that learn
    images: int
    memory: tuple[MemoryEstimate, ...]  # fast, low
    sampling_steps: int  # the pipeline's own
    side: int  # pixels of a picture
    cards: tuple[Card, ...]


def estimate_run(config: RunConfig) -> Estimate:
    """Estimate memory and operations of a run from configuration files and the list of images.

    Raises UnknownModel, ModelFilesError, TrainingError, UnknownToken.
    """
    config = located(config)
    model = _without_weights(config)
    config = with_defaults(config, model)
    layers = _put_adapter_in(model, config)
    download = plan_download(config.model, config.dtype or "float32")
    memory = tuple(estimate_memory(model, config, memory) for memory in MEMORY)
    widths = sum(tower.token_table.shape[1] for tower in model.towers)
    vectors = sum(vector_count(model, concept) for concept in config.concepts)
    return Estimate(
        config=config,
        files=download.files,
        bytes=download.bytes,
        bytes_to_download=download.bytes - download.cached_bytes,
        parts=tuple(_weights(model)),
        trainable=(vectors * widths if method_named(config.method.name).learns else 0)
        + sum(parameter.numel() for parameter in layers),
        images=sum(len(image_files(concept)) for concept in config.concepts),
        memory=memory,
        sampling_steps=model.sampling_steps,
        side=model.resolution,
        cards=tuple(Card(gib, _fitting(memory, gib * GIB)) for gib in CARDS),
    )


def _put_adapter_in(model: TextToImage, config: RunConfig) -> list[Tensor]:
    """Put the adapter of a run into a model without numbers; returns what learns in it."""
    if config.adapter is None:
        return []
    layers = AdapterLayers(model.denoiser, shape_of(config.adapter))
    model.put_adapter_in(layers)
    return [parameter.requires_grad_() for parameter in layers.parameters.values()]


def _fitting(memory: Sequence[MemoryEstimate], available: int) -> str | None:
    """Return the first setting that fits, or None."""
    return next((part.memory for part in memory if part.needed <= available), None)


def choose_memory(config: RunConfig) -> RunConfig:
    """Return the configuration with `auto` memory replaced by what fits the device, and the reason.

    On a GPU the fastest setting that fits what is free there, by its estimate; elsewhere fast.
    """
    if config.memory != "auto":
        return config
    device = torch.device(config.device)
    if device.type != "cuda":
        return replace(config, memory="fast", memory_reason=f"there is no card on {device.type}")
    # What this process has reserved already, such as an open model, counts as free.
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        model = _without_weights(config)
        filled = with_defaults(config, model)
        _put_adapter_in(model, filled)
        needs: list[str] = []
        for memory in MEMORY:
            needed = estimate_memory(model, filled, memory).needed
            needs.append(f"{memory} needs about {in_gib(needed)}")
            if needed <= free:
                break
        else:
            needs.append("which may not be enough: try a smaller --batch-size or --resolution")
    except DtiGeomError as error:
        memory, needs = "low", [f"the need could not be estimated ({first_line(error)})"]
    reason = f"{in_gib(free)} are free on {config.device}; {', '.join(needs)}"
    return replace(config, memory=memory, memory_reason=reason)


def in_gib(size: int) -> str:
    """Return a number of bytes in GiB, as text."""
    return f"{size / GIB:.1f} GiB"


def vector_count(model: TextToImage, concept: ConceptConfig) -> int:
    """Return how many vectors a concept's token has in each tower."""
    if concept.vectors is not None:
        return concept.vectors
    if concept.start in ("mean", "random"):
        return 1
    return max(len(init_rows(tower.vocabulary, concept, model.name)) for tower in model.towers)


def estimate_memory(model: TextToImage, config: RunConfig, memory: str) -> MemoryEstimate:
    """Return the estimate with fast or low memory.

    model: on the meta device. config: with its defaults filled in.
    """
    side = config.data.resolution or model.training_resolution
    low = memory == "low"
    total = sum(part.bytes for part in _weights(model))
    vae = sum(part.bytes for part in _weights(model) if part.name == "vae")
    resident = total - vae
    spend_memory(model, "fast")  # parts without numbers cannot leave their device
    with torch.no_grad(), metered() as encoding:
        latents = model.encode_images(torch.empty(1, 3, side, side)).mean
    with torch.no_grad(), metered() as decoding:
        model.decode_latents(latents)
    spend_memory(model, memory)
    learned = _place(model, config)
    if model.adapter is not None:
        learned += model.adapter.parameters.values()
    batch = _batch(model, config, latents)
    # SANA reads its instruction before the first step, and keeps it.
    model.encode_prompts(batch.prompts[:1], batch.views[:1])
    step, activations = _step(model, config, batch)
    kept = _kept(config, latents, learned)
    pictures = 1 if low else len(config.preview.prompts) * len(config.preview.seeds)
    sampling = _sampling(model, batch, pictures)
    # Samples that are cut anew are encoded in each update, with everything on the device.
    anew = config.data.random_crops
    with_vae = vae if low else total
    picture, sampler = _picture_flops(model, config)
    painting = max(resident + sampling.peak, with_vae + decoding.peak)
    return MemoryEstimate(
        memory=memory,
        weights=resident,
        activations=activations,
        working=step.peak - activations,
        latents=kept,
        training=resident + (vae if anew else 0) + step.peak + kept,
        loading=total,
        encoding=(total if anew else with_vae) + encoding.peak + kept,
        painting=painting + kept if config.preview.every else 0,
        flops=step.flops * config.accumulate,
        picture_flops=picture,
        sampler_flops=sampler,
    )


def _without_weights(config: RunConfig) -> TextToImage:
    dtype = getattr(torch, config.dtype) if config.dtype else default_dtype(config.device)
    model = meta_model(find_source(config.model), dtype, profile_of(config.model))
    variant = variant_of(config.model)
    model.training = model.training.at_gain(variant.gain, keep_decay=variant.keep_decay)
    model.follow_instruction(config.data.instruction)
    return model


def _weights(model: TextToImage) -> Iterator[PartWeights]:
    """Yield the parts of a pipeline that have weights."""
    for name, part in model.pipeline.components.items():
        if isinstance(part, nn.Module):
            parameters = list(part.parameters())
            yield PartWeights(
                name=name,
                dtype=str(parameters[0].dtype).removeprefix("torch."),
                parameters=sum(parameter.numel() for parameter in parameters),
                bytes=sum(tensor.nbytes for tensor in [*parameters, *part.buffers()]),
            )


def _kept(config: RunConfig, latents: Tensor, learned: Sequence[Tensor]) -> int:
    """Return the bytes of all latents and of what learns, with its optimiser; all float32.

    latents: (1, c, h, w).
    """
    images = sum(len(image_files(concept)) for concept in config.concepts)
    views = images * config.data.crops * (2 if config.data.flip else 1)
    if _reads_classes(config):
        views += config.objective.prior_count * len(config.concepts)
    # Mean and deviation of each view; gradient and two moments beside what learns.
    return 2 * views * latents.numel() * 4 + 4 * sum(rows.numel() for rows in learned) * 4


def _place(model: TextToImage, config: RunConfig) -> list[Tensor]:
    """Place tokens without numbers, and return what learns."""
    learned: list[Tensor] = []
    for concept in config.concepts:
        count = vector_count(model, concept)
        widths = [tower.token_table.shape[1] for tower in model.towers]
        rows = [torch.empty(count, width, device=model.device) for width in widths]
        model.place(concept.token, [row.requires_grad_() for row in rows])
        learned += rows
    return learned


def _batch(model: TextToImage, config: RunConfig, latents: Tensor) -> Batch:
    """Return a batch without numbers. latents: (1, c, h, w)."""
    templates = config.data.templates or model.templates(config.data.learn)
    prompts: list[str] = []
    tokens: list[str] = []
    words: list[str] = []
    for concept in config.concepts:
        for number in range(config.batch_size):
            template = templates[number % len(templates)]
            prompts.append(template.replace("{}", concept.token))
            tokens.append(concept.token)
            words.append(concept.init)
    x = latents.expand(len(prompts), -1, -1, -1).contiguous()
    side = config.data.resolution or model.training_resolution
    noising = model.noising_at(side)
    times = noising.draw_times([torch.Generator()] * len(prompts))
    batch = Batch(
        x=x,
        noise=torch.empty_like(x),
        times=times.to(x.device),
        prompts=tuple(prompts),
        views=(View((side, side), (0, 0), (side, side)),) * len(prompts),
        mask=None if config.data.masks is None else x[:, :1],
        noising=noising,
        tokens=tuple(tokens),
        words=tuple(words),
    )
    if _reads_classes(config):
        batch = replace(batch, prior=replace(batch, prompts=batch.class_prompts, mask=None))
    return batch


def _reads_classes(config: RunConfig) -> bool:
    return any(OBJECTIVES[name].prior for name in config.objective.names or ())


def _step(model: TextToImage, config: RunConfig, batch: Batch) -> tuple[Meter, int]:
    """Return the meter of forward and backward pass, and the bytes kept between the two.

    Objectives on text alone are left out: they read where tokens stand, which nothing here says.
    """
    with metered() as meter:
        losses: list[Tensor] = []
        for name in config.objective.names or ():
            compute = OBJECTIVES[name].compute
            if not (OBJECTIVES[name].of_images or OBJECTIVES[name].prior):
                continue
            losses += compute(
                model, batch, min_snr=config.min_snr, options=config.objective
            ).values()
        loss = torch.stack(losses).sum()
        kept = meter.live
        loss.backward()
    return meter, kept


def _picture_flops(model: TextToImage, config: RunConfig) -> tuple[int, int]:
    """Return the operations of a picture and of a step of its sampler.

    A picture encodes its prompts once, takes every step and is decoded.
    """
    side = model.resolution
    with torch.no_grad():
        latents = model.encode_images(torch.empty(1, 3, side, side)).mean
        drawn = replace(config, data=replace(config.data, resolution=side), batch_size=2)
        batch = _batch(model, drawn, latents)
        with metered() as text:
            conditioning = model.encode_prompts(batch.prompts[:2], batch.views[:2])
        with metered() as step:
            model.predict(batch.x[:2], batch.times[:2], conditioning)
        with metered() as decoding:
            model.decode_latents(latents)
    picture = text.flops + model.sampling_steps * step.flops + decoding.flops
    return picture, step.flops


def _sampling(model: TextToImage, batch: Batch, pictures: int) -> Meter:
    """Return the meter of one step of the sampler, with and without the prompt at once."""
    rows = [0] * (2 * pictures)
    with torch.no_grad(), metered() as meter:
        conditioning = model.encode_prompts(
            [batch.prompts[row] for row in rows], [batch.views[row] for row in rows]
        )
        model.predict(batch.x[rows], batch.times[rows], conditioning)
    return meter
