"""A text-to-image model as training, painting and evaluation use it.

A family is a subclass of `TextToImage` in a file of its own. It answers what differs between
families: how images become latents, how prompts become conditioning, how the denoiser is called.
Prompts are encoded by the pipeline's own `encode_prompt` in training and in generation, so a
learned token means the same in both.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dti_geom.errors import DoesNotApply, ModelFilesError, UnknownToken
from dti_geom.models.adapters import AdapterLayers, Scaled, combined
from dti_geom.models.downloads import FLOAT32_PARTS
from dti_geom.models.encoders.base import Tap
from dti_geom.models.encoders.unread import leave_out_unread
from dti_geom.models.noising import Diffusion, Flow, Noising
from dti_geom.models.pipelines.frozen import keep_no_inputs
from dti_geom.models.pipelines.reward import reward_guided
from dti_geom.models.profiles import NO_PROFILE, Profile
from dti_geom.models.templates import TEMPLATES
from dti_geom.models.transfer import sent
from dti_geom.models.vocabulary import Vocabulary

if TYPE_CHECKING:
    from PIL.Image import Image

ZERO_PAD = "<zero-pad>"  # reserved for a zero vector, which may stand before a prompt

Conditioning = dict[str, Tensor]  # what the denoiser reads beside the noisy latents, batch first


@dataclass(frozen=True)
class TrainingDefaults:
    """What a family's tokens are trained with where a run does not say.

    Rates are per update at a batch of 4. They are the rates of the launchers of Kim et al. (2026)
    times their batch size and accumulation, which their option --scale_lr multiplies in.
    """

    resolution: int | None = None  # largest side in pixels; None: what the model was trained at
    steps: int = 400  # updates
    direction_rate: float = 0.04  # radians, on the sphere
    vector_rate: float = 0.02  # of AdamW on free vectors
    kappa: float = 1e-4  # strength of the prior
    weight_decay: float = 1e-2  # of AdamW

    def at_gain(self, gain: float, *, keep_decay: bool = False) -> "TrainingDefaults":
        """Return the same training of a model whose tables are multiplied by `gain`.

        A free vector moves by the same share of its norm, and decays as fast, at rate·gain and
        decay/gain. A direction has no unit, so its rate stays. keep_decay: leave the decay as it
        is, so that a vector decays `gain` times as fast.
        """
        return replace(
            self,
            vector_rate=self.vector_rate * gain,
            weight_decay=self.weight_decay / (1 if keep_decay else gain),
        )


@dataclass(frozen=True)
class View:
    """Where the pixels of a training image came from; all numbers in pixels."""

    original: tuple[int, int]  # height, width of the file
    corner: tuple[int, int]  # top, left of the crop, after resizing
    size: tuple[int, int]  # height, width of the crop


@dataclass(frozen=True)
class Latents:
    """Encoded images, as the distribution they are drawn from."""

    mean: Tensor  # (n, c, h, w), in the denoiser's units
    std: Tensor | None  # the same shape; None for a deterministic autoencoder

    def __getitem__(self, rows: Any) -> "Latents":
        """Return the latents of some of the images."""
        return Latents(self.mean[rows], None if self.std is None else self.std[rows])


@dataclass
class Tower:
    """A text encoder of a pipeline, with learned tokens beside its vocabulary."""

    name: str
    tokenizer: Any
    module: nn.Module
    # Whether the spaces before ZERO_PAD are not read; otherwise it stands right before a word.
    zero_pad_takes_spaces: bool = True
    learned: dict[str, Tensor] = field(default_factory=dict)  # token → (n, d)
    _ids: dict[str, list[int]] = field(default_factory=dict)
    _sent_ids: tuple[list[int], Tensor] | None = None  # the learned ids, and where they were needed

    def __post_init__(self) -> None:
        """Hook the module's token lookup."""
        self._reserve_zero_pad()
        # Tables may have rows behind the tokenizer's last token. Learned tokens take their numbers
        # there, and neither these nor the rows are words.
        (first_added,) = self._ids[ZERO_PAD]
        self.vocabulary = Vocabulary(self.tokenizer, min(len(self.token_table), first_added))
        for lookup in self.lookups():
            lookup.register_forward_pre_hook(self._hide_learned)
            lookup.register_forward_hook(self._insert_learned)

    @property
    def token_table(self) -> Tensor:
        """(V, d): the vocabulary's rows, frozen."""
        lookup: Any = self.module.get_input_embeddings()  # type: ignore[operator]
        table: Tensor = lookup.weight.detach()
        return table

    def lookups(self) -> list[nn.Module]:
        """Return the modules that look tokens up in the table: of T5 two share it."""
        table = self.module.get_input_embeddings()  # type: ignore[operator]
        embeddings = (part for part in self.module.modules() if isinstance(part, nn.Embedding))
        return [part for part in embeddings if part.weight is table.weight]

    def place(self, token: str, vectors: Tensor) -> None:
        """Let `token` stand for (n, d) vectors.

        A token of several vectors is written <x> and read as <x> <x>_1 … Raises UnknownToken for a
        word of the model, or a token that stands for another number of vectors.
        """
        if token not in self._ids:
            self._ids[token] = [self._new_id(name) for name in names_of(token, len(vectors))]
        if len(self._ids[token]) != len(vectors):
            raise UnknownToken(
                f"{token} stands for {len(self._ids[token])} vectors here already; "
                f"{len(vectors)} were given. Choose another token."
            )
        self.learned[token] = vectors

    def place_zero_pad(self) -> None:
        """Let ZERO_PAD stand for a zero vector."""
        table = self.token_table
        self.learned[ZERO_PAD] = torch.zeros(1, table.shape[1], device=table.device)

    def place_of_end(self, prompt: str, token: str) -> int:
        """Return how many tokens of a prompt end with its last `token`; 0 if it has none."""
        ids: list[int] = self.tokenizer(prompt)["input_ids"]
        learned = self._ids.get(token, [])
        return max((place for place, row in enumerate(ids, 1) if row in learned), default=0)

    def _reserve_zero_pad(self) -> None:
        from tokenizers import AddedToken

        # Its id is below those of learned tokens: SDXL pools at a prompt's largest id. Spaces
        # before it are not read: those of SANA's instruction would be a token of their own.
        pad = AddedToken(ZERO_PAD, lstrip=self.zero_pad_takes_spaces, normalized=False)
        self.tokenizer.add_tokens(pad)
        self._ids[ZERO_PAD] = [self.tokenizer.convert_tokens_to_ids(ZERO_PAD)]

    def _new_id(self, name: str) -> int:
        if self.vocabulary.is_word(name) or not self.tokenizer.add_tokens(name):
            raise UnknownToken(
                f"{name} is a word of this model already. "
                f"Choose a token it does not know, like <{name.strip('<>')}-1>."
            )
        return int(self.tokenizer.convert_tokens_to_ids(name))

    def learned_ids(self) -> list[int]:
        """Return the ids of the learned tokens, in the order of their vectors."""
        ids: list[int] = []
        for token in self.learned:
            ids += self._ids[token]
        return ids

    def _learned_ids(self, device: torch.device) -> Tensor:
        ids = self.learned_ids()
        if self._sent_ids is None or self._sent_ids[0] != ids or self._sent_ids[1].device != device:
            self._sent_ids = ids, sent(torch.tensor(ids), device)
        return self._sent_ids[1]

    def _hide_learned(self, _lookup: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Look up row 0 for learned tokens, which have no row; keep their ids for the next hook."""
        (ids,) = inputs
        self._seen = ids
        if not self.learned:
            return inputs
        return (torch.where(torch.isin(ids, self._learned_ids(ids.device)), 0, ids),)

    def _insert_learned(self, lookup: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not self.learned:
            return output
        match = self._seen[..., None] == self._learned_ids(self._seen.device)
        rows = torch.cat([vectors.to(output.device) for vectors in self.learned.values()])
        rows = rows * getattr(lookup, "embed_scale", 1.0)  # Gemma multiplies its rows by √d
        # A product, not an index: its backward sums in a fixed order on every device.
        inserted = match.to(rows.dtype) @ rows
        return torch.where(match.any(-1, keepdim=True), inserted.to(output.dtype), output)


class TextToImage:
    """A pipeline with frozen parameters, and learned tokens beside its token tables.

    Image autoencoders stay in float32; everything else is in the dtype asked for. A family sets the
    class attributes, must define `encode_text` and `predict`, and replaces other hooks as it needs.
    """

    # Name of the component that predicts noise or velocity.
    denoiser_name = "unet"
    # By text encoder, which states the denoiser reads; those left out give their output.
    taps: ClassVar[Mapping[str, Tap]] = {}
    # Whether nothing but these states is read: the blocks behind them are then left out. Not so
    # where a pooled state comes from the output.
    reads_taps_alone: ClassVar[bool] = False
    # Parts whose states overflow float16: they get bfloat16 where that is asked for.
    bfloat16_parts: ClassVar[tuple[str, ...]] = ()
    # Whether a prompt begins after a space, so that ZERO_PAD takes it; not so behind a line break.
    zero_pad_takes_spaces: ClassVar[bool] = True
    # Whether the sampler asks the denoiser for the answers without and with the prompt at once, in
    # this order.
    unprompted_first: ClassVar[bool] = False
    guidance: float = 7.5
    sampling_steps: int = 50
    training: TrainingDefaults = TrainingDefaults()
    # Whether prompts follow the pipeline's instruction, for families that have one.
    instruction: bool | None = None
    # Of the Hub repository that the model was opened from.
    commit: str | None = None

    def __init__(self, pipeline: Any, name: str, profile: Profile = NO_PROFILE) -> None:
        """Freeze a pipeline of this family's diffusers class.

        profile: its guidance and sampling steps, where given, replace the family's.
        """
        self.pipeline, self.name, self.profile = pipeline, name, profile
        if profile.guidance is not None:
            self.guidance = profile.guidance
        if profile.sampling_steps is not None:
            self.sampling_steps = profile.sampling_steps
        pipeline.set_progress_bar_config(disable=True)
        self.vae: Any = pipeline.vae.eval().requires_grad_(False)
        self.denoiser: Any = getattr(pipeline, self.denoiser_name).eval().requires_grad_(False)
        keep_no_inputs(self.denoiser)
        self.towers = tuple(
            Tower(
                part,
                getattr(pipeline, part.replace("text_encoder", "tokenizer")),
                module.eval().requires_grad_(False),
                self.zero_pad_takes_spaces,
            )
            for part, module in sorted(pipeline.components.items())
            if part.startswith("text_encoder") and module is not None
        )
        if self.reads_taps_alone:
            for tower in self.towers:
                leave_out_unread(tower.module, self.taps.get(tower.name, Tap()))
        self.adapter: AdapterLayers | None = None  # in the denoiser now
        self.adapters: dict[str, tuple[Scaled, ...]] = {}  # by learned token
        self.low_memory = False  # `spend_memory` sets it
        self._home: torch.device | None = None  # of parts that are away
        self.noising: Noising = self.noising_at(self.resolution)
        _choose_attention(self)
        if self.device.type == "cuda":
            lay_channels_last(self)

    def __repr__(self) -> str:
        """Return name, family, text encoders, number type and device on one line."""
        towers = ", ".join(tower.name for tower in self.towers)
        return f"<{type(self).__name__} {self.name}: {towers}, {self.dtype} on {self.device}>"

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes."""
        return self._home or next(iter(self.denoiser.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in."""
        return next(iter(self.denoiser.parameters())).dtype  # type: ignore[no-any-return]

    @property
    def flow(self) -> bool:
        """Whether the model is trained by flow matching."""
        return isinstance(self.noising, Flow)

    def templates(self, learn: str = "object") -> tuple[str, ...]:
        """Return training prompts, {} for the token.

        learn: what the token stands for, `object` or `style`. For objects a model may have its own.
        """
        own = self.profile.templates() if learn == "object" else None
        return own or TEMPLATES[learn]

    def place(self, token: str, vectors: Sequence[Tensor]) -> None:
        """Let `token` stand for vectors, (n, d) for each tower in order.

        Gradients flow back into them. Raises UnknownToken for a word of the model.
        """
        for tower, rows in zip(self.towers, vectors, strict=True):
            tower.place(token, rows)

    def place_zero_pad(self) -> None:
        """Let ZERO_PAD stand for a zero vector in every tower, for `padded`."""
        for tower in self.towers:
            tower.place_zero_pad()

    def padded(self, prompt: str, count: int) -> str:
        """Return the prompt after `count` zero vectors, the first behind the begin token.

        The prompt's own tokens stay what they are. Call `place_zero_pad` before.
        """
        return f"{ZERO_PAD * count} {prompt}" if count else prompt

    def room_before(self, prompt: str, token: str) -> int:
        """Return how many more tokens may come before a prompt until its `token` is cut off.

        Below 0, it is cut off already.
        """
        # As it stands behind a zero vector: at its very start a prompt may have other tokens.
        behind = self.spelled(self.padded(prompt, 1))
        return 1 + min(
            self.prompt_tokens(tower) - tower.place_of_end(behind, token) for tower in self.towers
        )

    def spelled(self, prompt: str) -> str:
        """Return the prompt with every token of several vectors spelled out: <x> <x>_1 …"""
        for token, vectors in self.towers[0].learned.items():
            prompt = prompt.replace(token, " ".join(names_of(token, len(vectors))))
        return prompt

    def forget(self) -> None:
        """Remove every learned token and adapter, as in a model just opened.

        Rounding of the token lookup depends on how many there are.
        """
        for tower in self.towers:
            tower.learned.clear()
        self.adapters.clear()
        self.take_adapter_out()

    def put_adapter_in(self, adapter: AdapterLayers) -> None:
        """Let the denoiser compute with an adapter from now on, in place of the one before."""
        self.take_adapter_out()
        self.adapter = adapter

    def take_adapter_out(self) -> None:
        """Let the denoiser compute as it was opened."""
        if self.adapter is not None:
            self.adapter.remove()
            self.adapter = None

    def place_adapters(self, token: str, adapters: Sequence[Scaled]) -> None:
        """Paint prompts that name `token` with these adapters from now on, each at its scale."""
        self.adapters.pop(token, None)
        if used := tuple((adapter, scale) for adapter, scale in adapters if scale):
            self.adapters[token] = used

    def follow_instruction(self, follow: bool | None) -> None:
        """Put the pipeline's instruction before prompts from now on, or leave it out.

        None changes nothing. Raises DoesNotApply for a family without an instruction.
        """
        if follow is None:
            return
        if self.instruction is None:
            raise DoesNotApply(
                f"{self.name} puts no instruction before its prompts, as SANA does. "
                "Leave the option out."
            )
        self.instruction = follow

    def unread_blocks(self, tower: Tower) -> int:
        """Return how many of a tower's last blocks are left out, since nothing reads them."""
        return self.taps.get(tower.name, Tap()).unread if self.reads_taps_alone else 0

    def free_vae(self) -> None:
        """Release the autoencoder's memory for good: no image can be encoded or painted after."""
        self.vae = self.pipeline.vae = None

    def rest_vae(self) -> None:
        """Move the autoencoder off the GPU until it is needed again."""
        self.vae.to("cpu")

    @contextmanager
    def room_for_vae(self) -> Iterator[None]:
        """Keep the denoiser and the text encoders off the GPU inside, where memory is low."""
        parts = [self.denoiser, *(tower.module for tower in self.towers)] if self.low_memory else []
        self._home = self.device
        try:
            for part in parts:
                part.to("cpu")
            yield
        finally:
            if self.low_memory:
                self.rest_vae()
            for part in parts:
                part.to(self._home)
            self._home = None

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Latents:
        """Return the distribution of the latents of images, in the denoiser's units.

        pixels: (n, 3, h, w) in [−1, 1], encoded one by one: more at once takes memory and saves no
        time. The latents are on the denoiser's device.
        """
        means, stds = [], []
        for image in pixels.split(1):
            mean, std = self.autoencode(image)
            means.append(mean)
            stds += [] if std is None else [std]
        shift, scale = self.latent_statistics()
        mean = (self.arrange_latents(torch.cat(means)) - shift) * scale
        # A shift moves the mean alone.
        return Latents(mean, self.arrange_latents(torch.cat(stds)) * scale if stds else None)

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Return the images of latents in the denoiser's units: (n, 3, h, w), about [−1, 1].

        They are decoded one by one.
        """
        shift, scale = self.latent_statistics()
        own = self.restore_latents(latents.to(self.vae.dtype) / scale + shift)
        return torch.cat([self.autodecode(latent) for latent in own.split(1)])

    def encode_prompts(self, prompts: Sequence[str], views: Sequence[View]) -> Conditioning:
        """Return the conditioning of each prompt, differentiable in learned tokens.

        Equal prompts are encoded once.
        """
        unique = list(dict.fromkeys(prompts))
        order = torch.tensor([unique.index(prompt) for prompt in prompts])
        rows = sent(order, self.device)
        by_prompt = {}
        for name, value in self.encode_text(unique).items():
            # Lengths of prompts may stay on the CPU, which needs their numbers.
            here = rows if value.device == rows.device else order
            by_prompt[name] = value.index_select(0, here)
        return by_prompt | self.describe_views(views)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
        reward: float | None = None,
    ) -> "list[Image]":
        """Return one picture per prompt and seed, painted by the pipeline's own sampler.

        Picture i starts from the noise of seeds[i], independently of the others. size: pixels of a
        side. Latents are decoded in float32. Prompts are painted with the adapters of the tokens
        that they name. reward: r of `reward_guided`, for adapters; None paints with the adapter
        alone. Raises DoesNotApply for a reward in a family that it cannot guide.
        """
        if reward is not None and not self.unprompted_first:
            raise DoesNotApply(
                f"{self.name} does not ask its denoiser for the answers without and with the "
                "prompt at once, so reward guidance cannot tell them apart. Leave --reward out."
            )
        painted: dict[int, Any] = {}
        for adapters, rows in self._rows_by_adapters(prompts).items():
            with self._with_adapters(adapters):
                pictures = self._paint(
                    [prompts[row] for row in rows],
                    [seeds[row] for row in rows],
                    steps=steps,
                    guidance=guidance,
                    size=size,
                    reward=reward,
                )
            painted |= zip(rows, pictures, strict=True)
        return [painted[row] for row in range(len(prompts))]

    def _rows_by_adapters(self, prompts: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
        """Return which prompts name which tokens that have an adapter."""
        rows: dict[tuple[str, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            named = tuple(token for token in self.adapters if token in prompt)
            rows.setdefault(named, []).append(row)
        return rows

    @contextmanager
    def _with_adapters(self, tokens: tuple[str, ...]) -> Iterator[None]:
        """Put the adapters of tokens into the denoiser inside; equal ones count once."""
        if not tokens:
            yield
            return
        shared: dict[int, Scaled] = {}
        for token in tokens:  # tokens of one run share its adapter
            shared |= {id(adapter): (adapter, scale) for adapter, scale in self.adapters[token]}
        adapter = combined(list(shared.values()))
        self.put_adapter_in(AdapterLayers.holding(self.denoiser, adapter))
        try:
            yield
        finally:
            self.take_adapter_out()

    def _paint(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None,
        guidance: float | None,
        size: int | None,
        reward: float | None,
    ) -> "list[Image]":
        """Return the pictures of `generate`, with what is in the denoiser now."""
        side = size or self.resolution
        guidance = self.guidance if guidance is None else guidance
        at_once = 1 if self.low_memory else len(prompts)
        latents = []
        for first in range(0, len(prompts), at_once):
            batch = prompts[first : first + at_once]
            with self._guided(reward, guidance, len(batch)):
                result = self.pipeline(
                    prompt=[self.written(prompt) for prompt in batch],
                    num_inference_steps=steps or self.sampling_steps,
                    height=side,
                    width=side,
                    generator=[
                        torch.Generator().manual_seed(seed)
                        for seed in seeds[first : first + at_once]
                    ],
                    output_type="latent",
                    **self.call_options(guidance),
                )
            latents.append(result[0])  # the images; of a video pipeline the frames
        with self.room_for_vae():
            pixels = self.decode_generated(torch.cat(latents), side)
        return list(self.image_processor.postprocess(pixels, output_type="pil"))

    def _guided(
        self, reward: float | None, guidance: float, prompts: int
    ) -> AbstractContextManager[None]:
        """Give the reward guidance of prompts whose tokens have an adapter, if it is asked for."""
        if reward is None or self.adapter is None:
            return nullcontext()
        denoiser = getattr(self.pipeline, self.denoiser_name)
        return reward_guided(denoiser, self.adapter, reward, guidance=guidance, prompts=prompts)

    # Hooks: what a family must or may replace.

    @classmethod
    def part_dtypes(cls, dtype: torch.dtype) -> dict[str, torch.dtype]:
        """Return the dtype of each part by its name, and under "default" that of the others."""
        dtypes = dict.fromkeys(FLOAT32_PARTS, torch.float32) | {"default": dtype}
        if dtype == torch.float16:
            dtypes |= dict.fromkeys(cls.bfloat16_parts, torch.bfloat16)
        return dtypes

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return the text part of the conditioning, through the pipeline's `encode_prompt`."""
        raise NotImplementedError

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the denoiser's prediction of `noising.target`, in float32.

        noisy: (n, c, h, w). t: (n,), as `noising.draw_times` gives them.
        """
        raise NotImplementedError

    @property
    def resolution(self) -> int:
        """Pixels of a side that the model was trained at."""
        # Some pipelines name the size that their denoiser's configuration leaves out.
        size = getattr(self.denoiser.config, "sample_size", None)
        size = getattr(self.pipeline, "default_sample_size", None) if size is None else size
        if not isinstance(size, int):
            raise ModelFilesError(
                f"{self.name}: {self.denoiser_name}/config.json gives {size!r} as sample_size; "
                "expected the number of rows of its latents. Fetch the file again."
            )
        return size * int(self.pipeline.vae_scale_factor)

    @property
    def training_resolution(self) -> int:
        """Pixels of a side that tokens are trained at where a run does not say."""
        return min(self.resolution, self.training.resolution or self.resolution)

    @property
    def image_processor(self) -> Any:
        """What turns decoded pixels into pictures."""
        return self.pipeline.image_processor

    def noising_at(self, resolution: int) -> Noising:
        """Return the forward process for images of this many pixels a side."""
        return Diffusion(self.pipeline.scheduler.config)

    def autoencode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return mean and standard deviation of the autoencoder's own latents.

        The standard deviation is None for a deterministic autoencoder, or where the pipeline's
        training takes the mode.
        """
        encoded = self.vae.to(self.device).encode(pixels.to(self.device, self.vae.dtype))
        if hasattr(encoded, "latent_dist"):
            return encoded.latent_dist.mean, encoded.latent_dist.std
        return encoded.latent, None

    def autodecode(self, latents: Tensor) -> Tensor:
        """Return the images of the autoencoder's own latents."""
        images: Tensor = self.vae.to(self.device).decode(latents).sample
        return images

    def arrange_latents(self, latents: Tensor) -> Tensor:
        """Rearrange the autoencoder's latents for the denoiser, as in patches of 2×2."""
        return latents

    def restore_latents(self, latents: Tensor) -> Tensor:
        """Undo `arrange_latents`."""
        return latents

    def latent_statistics(self) -> tuple[Tensor | float, Tensor | float]:
        """Return shift and scale: the denoiser's latents are (arranged − shift) · scale.

        Numbers, or tensors that broadcast over (n, c, h, w): statistics of each channel.
        """
        config = self.vae.config
        return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor

    def decode_generated(self, latents: Tensor, size: int) -> Tensor:
        """Return the images of what the pipeline's sampler returns for output_type "latent".

        size: pixels of a side, for pipelines that return packed latents.
        """
        return self.decode_latents(latents)

    def describe_views(self, views: Sequence[View]) -> Conditioning:
        """Return the part of the conditioning that depends on sizes and crops."""
        return {}

    def written(self, prompt: str) -> str:
        """Return the prompt as the pipeline takes it.

        Pipelines with a loader for embeddings spell tokens of several vectors out themselves.
        """
        return prompt if hasattr(self.pipeline, "maybe_convert_prompt") else self.spelled(prompt)

    def recomputed_blocks(self) -> Iterable[nn.Module]:
        """Return blocks of the denoiser that low memory computes again one by one.

        None where the denoiser's own checkpointing does so.
        """
        return ()

    def prompt_tokens(self, tower: Tower) -> int:
        """Return how many tokens are read up to a prompt's last, its begin token among them."""
        return int(tower.tokenizer.model_max_length) - 1

    def call_options(self, guidance: float) -> dict[str, Any]:
        """Return the family's own arguments of the pipeline's call, guidance among them."""
        return {"guidance_scale": guidance}


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it has that: a loss needs the digits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def names_of(token: str, count: int) -> list[str]:
    """Return diffusers' names for the vectors of a token: <x>, <x>_1, <x>_2, …"""
    return [token, *(f"{token}_{number}" for number in range(1, count))]


def lay_channels_last(model: TextToImage) -> None:
    """Lay out the weights of convolutions as a GPU's tensor cores read them."""
    convolving = [model.vae, *([model.denoiser] if model.denoiser_name == "unet" else [])]
    for part in convolving:
        for weight in part.parameters():
            if weight.ndim == 4:  # an autoencoder of videos has Conv3d among them
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _choose_attention(model: TextToImage) -> None:
    """On a CPU the backward of fused attention in bfloat16 is slower than the plain products."""
    if model.device.type != "cpu" or model.dtype != torch.bfloat16:
        return
    from diffusers.models.attention_processor import AttnProcessor

    if hasattr(model.denoiser, "set_attn_processor") and model.denoiser_name == "unet":
        model.denoiser.set_attn_processor(AttnProcessor())
    for tower in model.towers:
        tower.module.set_attn_implementation("eager")  # type: ignore[operator]
