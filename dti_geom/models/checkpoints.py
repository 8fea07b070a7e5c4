"""Single-file checkpoints of Stable Diffusion 1.5, 2.1 and SDXL, under their original names.

Such a file holds the weights of all parts. Configurations, tokenizers and the sampler's settings
come from a pipeline: the published one of its kind, or the one that is named after an @.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dti_geom.errors import ModelFilesError
from dti_geom.models.sources import Folder, Source
from dti_geom.models.weights import Weights
from dti_geom.progress import Progress, silent

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_UNET = "model.diffusion_model."
_FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint."""

    what: str
    pipeline_class: str  # of diffusers
    configured_by: str  # name of a known model
    towers: Mapping[str, str]  # text encoder → how the names of its tensors begin
    doubt: str = ""  # what the names do not say


KINDS = (
    Kind(
        "SDXL",
        "StableDiffusionXLPipeline",
        "sdxl",
        {
            "text_encoder": "conditioner.embedders.0.transformer.",
            "text_encoder_2": "conditioner.embedders.1.model.",
        },
    ),
    Kind(
        "Stable Diffusion 1.5",
        "StableDiffusionPipeline",
        "sd15",
        {"text_encoder": "cond_stage_model.transformer."},
    ),
    Kind(
        "Stable Diffusion 2.1",
        "StableDiffusionPipeline",
        "sd21",
        {"text_encoder": "cond_stage_model.model."},
        "it is opened as a model of 768 px that predicts v. If it is one of 512 px that predicts "
        "ε, write @sd21-base behind its name",
    ),
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as a source of a pipeline's files: its own, and those that configure it."""

    path: Path
    kind: Kind
    configuration: Source

    @property
    def name(self) -> str:
        """The path of the file."""
        return str(self.path)

    def has(self, file: str) -> bool:
        """Whether the file exists."""
        return self._source_of(file).has(file)

    def sizes(self) -> dict[str, int]:
        """Return every file and its size in bytes."""
        return self.configuration.sizes() | {self.path.name: self.path.stat().st_size}

    def here(self, file: str) -> bool:
        """Whether the whole file is on this machine."""
        return self._source_of(file).here(file)

    def local(self, file: str, progress: Progress = silent) -> Path:
        """Return a local path of the whole file."""
        return self._source_of(file).local(file, progress)

    def read(self, file: str, start: int, stop: int, progress: Progress = silent) -> bytearray:
        """Return the bytes start … stop of a file."""
        return self._source_of(file).read(file, start, stop, progress)

    def identity(self, file: str) -> str | None:
        """Return a name for exactly these bytes, or None."""
        return self._source_of(file).identity(file)

    def weights(self, tower: str) -> Weights:
        """Return the weights of a text encoder, inside the checkpoint."""
        return Weights(self, f"{tower}/", self.path.name, self.kind.towers[tower])

    def _source_of(self, file: str) -> Source:
        return Folder(self.path.parent) if file == self.path.name else self.configuration


def kind_of(path: Path, *, configured: bool = False) -> Kind:
    """Return the kind of a checkpoint, from the names of its tensors.

    configured: whether the user names a configuration. Raises ModelFilesError, saying what the
    file is instead and what to do with it.
    """
    if path.suffix.lower() in PICKLES:
        raise ModelFilesError(
            f"{path} is a pickle, which can run code when it is opened; it was not opened. Get the "
            "model as a .safetensors file, or convert it with a tool that you trust."
        )
    weights = Weights(Folder(path.parent), "", path.name)
    names = weights.files()
    other = _not_a_checkpoint(names)
    if other:
        raise ModelFilesError(f"{path} is {other}")
    kinds = [kind for kind in KINDS if all(_holds(names, start) for start in kind.towers.values())]
    if not kinds:
        raise ModelFilesError(
            f"{path} is a checkpoint of another kind, or has no text encoder. Expected one of "
            f"{', '.join(kind.what for kind in KINDS)}; pass others as a diffusers folder."
        )
    channels = weights.shape(_FIRST_CONVOLUTION)[1] if _FIRST_CONVOLUTION in names else 4
    if channels != 4:
        raise ModelFilesError(
            f"{path} paints into {channels} channels: an inpainting or editing model. Expected a "
            "text-to-image model, with 4."
        )
    if "v_pred" in names and not configured:
        raise ModelFilesError(
            f"{path} says that it predicts v (v_pred), unlike the published {kinds[0].what}. Name "
            f"a folder whose scheduler says so too: --model {path}@./my-model"
        )
    return kinds[0]


def _holds(names: Mapping[str, str], start: str) -> bool:
    return any(name.startswith(start) for name in names)


def _not_a_checkpoint(names: Mapping[str, str]) -> str | None:
    """Return what a file without a denoiser is, and what to do; None for a checkpoint."""
    if any("lora" in name or "hada_" in name or "lokr_" in name for name in names):
        return "a LoRA: a change of a model. Pass the checkpoint that it changes."
    if _holds(names, _UNET):
        return None
    if all(name.startswith(("first_stage_model.", "encoder.", "decoder.", "quant_conv.",
                            "post_quant_conv.")) for name in names):  # fmt: skip
        return "an autoencoder (VAE), a part of a model. Pass a whole checkpoint."
    if len(names) <= 8:
        return "no model: a file of few tensors, as learned embeddings are. Pass it as --embedding."
    if _holds(names, "text_model.") or _holds(names, "model.embed_tokens."):
        return "a text encoder alone. Pass its folder, which has config.json beside the weights."
    if _holds(names, "down_blocks.") or _holds(names, "transformer_blocks."):
        return "a denoiser alone, in diffusers' names. Pass the folder of its pipeline."
    return "not a checkpoint in the original names. Pass a diffusers folder."
