"""Text-to-image models: one adapter per pipeline class, behind one small interface.

An adapter answers what differs between families: how an image becomes latents, how prompts become conditioning, how
the denoiser is asked. Prompts are encoded by the pipeline's own `encode_prompt` in training and in generation, so a
learned token means the same in both. Adding a family is one subclass and its entry in `ADAPTERS`.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dti_geom.errors import ModelFilesError, UnknownToken
from dti_geom.models.catalog import check_device, embedded_folder, find_source
from dti_geom.models.encoders import import_transformers, quiet
from dti_geom.models.noising import Diffusion, Flow, Noising
from dti_geom.models.sources import Folder, read_json
from dti_geom.models.vocabulary import Vocabulary

if TYPE_CHECKING:
    from PIL.Image import Image

Conditioning = dict[str, Tensor]  # what the denoiser is told beside the noisy latents, batch first

# Ways of naming a subject; {} stands for the token. Used where a model brings no templates of its own.
TEMPLATES = (
    "a photo of a {}",
    "a photo of one {}",
    "a photo of the {}",
    "a photo of my {}",
    "a picture of a {}",
    "an image of a {}",
    "a close-up photo of a {}",
    "a cropped photo of a {}",
    "a good photo of a {}",
    "a bright photo of a {}",
    "a dark photo of a {}",
    "a rendering of a {}",
)


@dataclass(frozen=True)
class View:
    """Where the pixels of one training image came from; all numbers in pixels."""

    original: tuple[int, int]  # height, width of the file
    corner: tuple[int, int]  # top, left of the crop, after resizing
    size: tuple[int, int]  # height, width of the crop


@dataclass(frozen=True)
class Latents:
    """Encoded images, as the distribution they are drawn from."""

    mean: Tensor  # (n, c, h, w), in the denoiser's units
    std: Tensor | None  # the same shape; None for a deterministic autoencoder

    def __getitem__(self, rows: Any) -> "Latents":
        """The same for some of the images."""
        return Latents(self.mean[rows], None if self.std is None else self.std[rows])


@dataclass
class Tower:
    """One text encoder of a pipeline, and the learned tokens it knows beside its vocabulary."""

    name: str
    tokenizer: Any
    module: nn.Module
    learned: dict[str, Tensor] = field(default_factory=dict)  # token → (n, d)
    _ids: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Hook the module's token lookup."""
        self.vocabulary = Vocabulary(self.tokenizer, len(self.token_table))
        lookup = self.module.get_input_embeddings()  # type: ignore[operator]
        lookup.register_forward_pre_hook(self._hide_learned)
        lookup.register_forward_hook(self._insert_learned)

    @property
    def token_table(self) -> Tensor:
        """(V, d): the vocabulary's rows, frozen."""
        return self.module.get_input_embeddings().weight.detach()  # type: ignore[operator]

    def place(self, token: str, vectors: Tensor) -> None:
        """Let `token` stand for these (n, d) vectors; a token of several is written <x> and read as <x> <x>_1 …"""
        if token not in self._ids:
            self._ids[token] = [self._new_id(name) for name in names_of(token, len(vectors))]
        if len(self._ids[token]) != len(vectors):
            raise UnknownToken(
                f"{token} stands for {len(self._ids[token])} vectors here already; {len(vectors)} were given. "
                "Choose another token."
            )
        self.learned[token] = vectors

    def _new_id(self, name: str) -> int:
        if self._is_word(name) or not self.tokenizer.add_tokens(name):
            raise UnknownToken(
                f"{name} is a word of this model already. Choose a token it does not know, like <{name.strip('<>')}-1>."
            )
        return int(self.tokenizer.convert_tokens_to_ids(name))

    def _is_word(self, name: str) -> bool:
        try:
            return len(self.vocabulary.rows(name)) == 1
        except UnknownToken:
            return False

    def _learned_ids(self, device: torch.device) -> Tensor:
        return torch.tensor(
            [row for token in self.learned for row in self._ids[token]], device=device
        )

    def _hide_learned(self, _lookup: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Learned tokens have no row in the table: look up row 0, and keep the ids for `_insert_learned`."""
        (ids,) = inputs
        self._seen = ids
        return (
            (torch.where(torch.isin(ids, self._learned_ids(ids.device)), 0, ids),)
            if self.learned
            else inputs
        )

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
    """A pipeline with every parameter frozen, and learned tokens beside its token tables.

    Image autoencoders stay in float32, everything else is in the dtype asked for.
    """

    denoiser_name = "unet"
    guidance = 7.5
    sampling_steps = 50
    training_steps = 400
    direction_rate = (
        0.04  # of Directional Textual Inversion, at batch 4 (Kim et al., Table of settings)
    )
    templates = TEMPLATES

    def __init__(self, pipeline: Any, name: str) -> None:
        """pipeline: of the diffusers class this adapter is for."""
        self.pipeline, self.name = pipeline, name
        pipeline.set_progress_bar_config(disable=True)
        self.vae: Any = pipeline.vae.eval().requires_grad_(False)
        self.denoiser: Any = getattr(pipeline, self.denoiser_name).eval().requires_grad_(False)
        self.towers = tuple(
            Tower(
                part,
                getattr(pipeline, part.replace("text_encoder", "tokenizer")),
                module.eval().requires_grad_(False),
            )
            for part, module in sorted(pipeline.components.items())
            if part.startswith("text_encoder") and module is not None
        )
        self.noising: Noising = self._noising()
        _choose_attention(self)

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes."""
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in."""
        return next(self.denoiser.parameters()).dtype

    @property
    def resolution(self) -> int:
        """The pixels of a side the model was trained at."""
        return int(self.denoiser.config.sample_size * self.pipeline.vae_scale_factor)

    @property
    def flow(self) -> bool:
        """Whether the model is trained by flow matching."""
        return isinstance(self.noising, Flow)

    def place(self, token: str, vectors: Sequence[Tensor]) -> None:
        """Let `token` stand for these vectors, (n, d) for each tower in order. Gradients flow back into them.

        Raises UnknownToken if the token is a word of the model already.
        """
        for tower, rows in zip(self.towers, vectors, strict=True):
            tower.place(token, rows)

    def forget(self) -> None:
        """Leave no learned token placed, as in a model just opened; rounding depends on how many there are."""
        for tower in self.towers:
            tower.learned.clear()

    def free_vae(self) -> None:
        """Give the autoencoder's memory back, for good: no image can be encoded or painted after this."""
        self.vae = self.pipeline.vae = None

    def rest_vae(self) -> None:
        """Let the autoencoder leave the GPU until it is needed again."""
        self.vae.to("cpu")

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Latents:
        """(n, 3, h, w) in [−1, 1] → the distribution of their latents, (n, c, h/f, w/f), on the device."""
        encoded = self.vae.to(self.device).encode(pixels.to(self.device, self.vae.dtype))
        scale, shift = (
            self.vae.config.scaling_factor,
            getattr(self.vae.config, "shift_factor", None) or 0.0,
        )
        if hasattr(encoded, "latent_dist"):
            moments = encoded.latent_dist
            return Latents((moments.mean - shift) * scale, moments.std * scale)
        return Latents(encoded.latent * scale, None)

    def encode_prompts(self, prompts: Sequence[str], views: Sequence[View]) -> Conditioning:
        """What the denoiser is told of each prompt, differentiable in learned tokens; equal prompts share work."""
        unique = list(dict.fromkeys(prompts))
        rows = torch.tensor([unique.index(prompt) for prompt in prompts], device=self.device)
        told = self._encode(unique)
        return {name: value.index_select(0, rows) for name, value in told.items()} | self._about(
            views
        )

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's answer, in float32."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
    ) -> "list[Image]":
        """One picture per prompt and seed, through the pipeline's own sampler.

        Picture i starts from the noise of seeds[i], whatever stands beside it. Latents are decoded in float32.
        """
        side = size or self.resolution
        result = self.pipeline(
            [self._written(prompt) for prompt in prompts],
            num_inference_steps=steps or self.sampling_steps,
            guidance_scale=self.guidance if guidance is None else guidance,
            height=side,
            width=side,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="latent",
            **self._call_options(),
        )
        scale, shift = (
            self.vae.config.scaling_factor,
            getattr(self.vae.config, "shift_factor", None) or 0.0,
        )
        latents = result.images.to(self.vae.dtype) / scale + shift
        decoded = self.vae.to(self.device).decode(latents).sample
        return list(self.pipeline.image_processor.postprocess(decoded, output_type="pil"))

    def _written(self, prompt: str) -> str:
        """The prompt as the pipeline takes it."""
        return prompt

    def _noising(self) -> Noising:
        return Diffusion(self.pipeline.scheduler.config)

    def _encode(self, prompts: list[str]) -> Conditioning:
        raise NotImplementedError

    def _about(self, views: Sequence[View]) -> Conditioning:
        return {}

    def _call_options(self) -> dict[str, Any]:
        return {}


class StableDiffusion(TextToImage):
    """Stable Diffusion 1.x and 2.x: one CLIP tower, ε- or v-prediction."""

    def _encode(self, prompts: list[str]) -> Conditioning:
        states, _ = self.pipeline.encode_prompt(prompts, self.device, 1, False)
        return {"states": states}

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's answer, in float32."""
        return self.denoiser(noisy.to(self.dtype), t, conditioning["states"], return_dict=False)[
            0
        ].float()


class Mini(StableDiffusion):
    """The embedded model: of Stable Diffusion's class, with a sampler setting of its own."""

    guidance = 5.0
    sampling_steps = 25


class StableDiffusionXL(TextToImage):
    """SDXL: two CLIP towers, whose second also gives a pooled state; image sizes and crops are told to the UNet.

    The published second tower says eos_token_id = 2, on which transformers pools at the largest id of a prompt: with a
    learned token that is the token itself, not the end. diffusers generates so too, hence training does.
    """

    guidance = 5.0

    def _encode(self, prompts: list[str]) -> Conditioning:
        states, _, pooled, _ = self.pipeline.encode_prompt(
            prompts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return {"states": states, "pooled": pooled}

    def _about(self, views: Sequence[View]) -> Conditioning:
        # In float32 whatever the UNet computes in: bfloat16 has no 1023.
        numbers = [[*view.original, *view.corner, *view.size] for view in views]
        return {"time_ids": torch.tensor(numbers, device=self.device, dtype=torch.float32)}

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's answer, in float32."""
        added = {"text_embeds": conditioning["pooled"], "time_ids": conditioning["time_ids"]}
        return self.denoiser(
            noisy.to(self.dtype),
            t,
            conditioning["states"],
            added_cond_kwargs=added,
            return_dict=False,
        )[0].float()


class Sana(TextToImage):
    """SANA 1.5: Gemma-2 with an instruction before every prompt, a linear transformer, flow matching."""

    denoiser_name = "transformer"
    guidance = 4.5
    sampling_steps = 20
    training_steps = 500
    direction_rate = 0.01

    def _noising(self) -> Noising:
        config = self.pipeline.scheduler.config
        return Flow(float(config.get("flow_shift") or config.get("shift") or 1.0))

    def place(self, token: str, vectors: Sequence[Tensor]) -> None:
        """As for every model; SANA lowers every prompt's case, so the token must have none to lose."""
        if token != token.lower():
            raise UnknownToken(
                f"{token}: SANA reads prompts in lower case. Write the token as {token.lower()}."
            )
        super().place(token, vectors)

    def _written(self, prompt: str) -> str:
        """This pipeline does not spell out tokens of several vectors itself."""
        for token, vectors in self.towers[0].learned.items():
            prompt = prompt.replace(token, " ".join(names_of(token, len(vectors))))
        return prompt

    def _encode(self, prompts: list[str]) -> Conditioning:
        # The instruction that generation puts before each prompt is a default of the pipeline's call.
        instruction = (
            inspect.signature(type(self.pipeline).__call__)
            .parameters["complex_human_instruction"]
            .default
        )
        states, mask, _, _ = self.pipeline.encode_prompt(
            [self._written(prompt) for prompt in prompts],
            do_classifier_free_guidance=False,
            device=self.device,
            complex_human_instruction=instruction,
        )
        return {"states": states, "mask": mask}

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The transformer's answer, in float32."""
        answer = self.denoiser(
            noisy.to(self.dtype),
            encoder_hidden_states=conditioning["states"].to(self.dtype),
            encoder_attention_mask=conditioning["mask"],
            timestep=t * getattr(self.denoiser.config, "timestep_scale", 1.0),
            return_dict=False,
        )[0].float()
        return answer[:, : noisy.shape[1]]  # some variants predict a variance too

    def _call_options(self) -> dict[str, Any]:
        return {"use_resolution_binning": False}


ADAPTERS: dict[str, type[TextToImage]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "SanaPipeline": Sana,
}


def open_text_to_image(
    model: str, *, device: str = "cpu", dtype: torch.dtype | None = None
) -> TextToImage:
    """A whole text-to-image model, ready to train a token on or to paint with.

    model: a name of `MODELS`, a Hub id, or a pipeline folder. dtype: of everything but the autoencoder; default
    `default_dtype(device)`. Raises UnknownModel, ModelFilesError.
    """
    check_device(device)
    source = find_source(model)
    kind = read_json(source, "model_index.json").get("_class_name")
    if kind not in ADAPTERS:
        raise ModelFilesError(
            f"{source.name} is a {kind}; a token can be trained on {', '.join(ADAPTERS)}. "
            "Adding a family is a subclass in dti_geom/models/diffusion.py."
        )
    import diffusers

    options: dict[str, Any] = {
        "dtype": {"vae": torch.float32, "default": dtype or default_dtype(device)}
    }
    if "safety_checker" in read_json(source, "model_index.json"):
        options |= {"safety_checker": None, "requires_safety_checker": False}
    place = source.path if isinstance(source, Folder) else source.name
    try:
        with quiet(import_transformers()), quiet(diffusers):
            pipeline = getattr(diffusers, str(kind)).from_pretrained(place, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelFilesError(
            f"{source.name} did not open as a {kind} ({reason}). Fetch it again."
        ) from error
    adapter = Mini if place == embedded_folder() else ADAPTERS[kind]
    return adapter(pipeline.to(device), model)


def default_dtype(device: str) -> torch.dtype:
    """bfloat16 where the device multiplies it faster than float32, else float32."""
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if torch.device(device).type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


def names_of(token: str, count: int) -> list[str]:
    """How diffusers names the vectors of a token: <x>, <x>_1, <x>_2, …"""
    return [token, *(f"{token}_{number}" for number in range(1, count))]


def _choose_attention(model: TextToImage) -> None:
    """On a CPU the backward of fused attention in bfloat16 is slower than that of the plain products."""
    if model.device.type != "cpu" or model.dtype != torch.bfloat16:
        return
    from diffusers.models.attention_processor import AttnProcessor

    if hasattr(model.denoiser, "set_attn_processor") and model.denoiser_name == "unet":
        model.denoiser.set_attn_processor(AttnProcessor())
    for tower in model.towers:
        tower.module.set_attn_implementation("eager")  # type: ignore[operator]
