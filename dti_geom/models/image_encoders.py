"""Image encoders, which compare pictures, and image–text encoders, which compare one with a text.

`open_image_encoder("dinov2")` and `open_image_text_encoder("siglip")` take a name of
`IMAGE_ENCODERS`, a Hub id or a folder. Adding an architecture is one entry in `KINDS`.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from dti_geom.errors import DoesNotApply, ModelFilesError, UnknownModel
from dti_geom.models.catalog import check_device
from dti_geom.models.loading import load_module, load_tokenizer, tokenizer_files
from dti_geom.models.sources import Folder, HubRepository, Source, read_json
from dti_geom.models.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image

# Short names: a Hub id, or module:class of an encoder that ships with the package, which is
# imported when it is opened. Directional Textual Inversion is scored with dinov2 and siglip. DINO-I
# of DreamBooth (Ruiz et al., 2023) is dino, its CLIP-I and CLIP-T are clip-b32.
IMAGE_ENCODERS: dict[str, str] = {
    "mini": "dti_geom.mini.scorer:ScorerEncoder",
    "dinov2": "facebook/dinov2-base",
    "clip": "openai/clip-vit-large-patch14",
    "siglip": "google/siglip-base-patch16-512",
    "siglip2": "google/siglip2-base-patch16-224",
    "dino": "facebook/dino-vits16",
    "clip-b32": "openai/clip-vit-base-patch32",
}
BATCH = 32  # images at once


class ImageEncoder(Protocol):
    """All that a comparison of pictures may use."""

    @property
    def name(self) -> str:
        """What the user called it."""
        ...

    def embed(self, images: "Sequence[Image]") -> Tensor:
        """Return (n, d), float32 on the CPU, unit norm: cosines of rows compare pictures."""
        ...


class ImageTextEncoder(Protocol):
    """All that a comparison of pictures with texts may use."""

    @property
    def name(self) -> str:
        """What the user called it."""
        ...

    @property
    def unit(self) -> str:
        """What a score is, in words."""
        ...

    def score(self, images: "Sequence[Image]", texts: Sequence[str]) -> Tensor:
        """Return (n,), float32 on the CPU: how well picture i fits text i."""
        ...


@dataclass(frozen=True)
class Kind:
    """An architecture: its transformers class, and functions that return its features."""

    module_class: str
    image_features: Callable[[Any, Tensor], Tensor]
    text_features: Callable[[Any, Tensor], Tensor] | None = None
    sigmoid: bool = False  # a text score is the sigmoid of the model's logit; else the cosine
    settings: Mapping[str, Any] = field(default_factory=dict)  # for the class


def _class_token(module: Any, pixels: Tensor) -> Tensor:
    features: Tensor = module(pixel_values=pixels).last_hidden_state[:, 0]
    return features


def _clip_image(module: Any, pixels: Tensor) -> Tensor:
    features: Tensor = module.visual_projection(
        module.vision_model(pixel_values=pixels).pooler_output
    )
    return features


def _clip_text(module: Any, ids: Tensor) -> Tensor:
    features: Tensor = module.text_projection(module.text_model(input_ids=ids).pooler_output)
    return features


def _siglip_image(module: Any, pixels: Tensor) -> Tensor:
    features: Tensor = module.vision_model(pixel_values=pixels).pooler_output
    return features


def _siglip_text(module: Any, ids: Tensor) -> Tensor:
    features: Tensor = module.text_model(input_ids=ids).pooler_output
    return features


KINDS: dict[str, Kind] = {  # by `model_type` of config.json
    "dinov2": Kind("Dinov2Model", _class_token),
    "dinov2_with_registers": Kind("Dinov2WithRegistersModel", _class_token),
    # DINO's files have no pooling layer.
    "vit": Kind("ViTModel", _class_token, settings={"add_pooling_layer": False}),
    "clip": Kind("CLIPModel", _clip_image, _clip_text),
    "clip_vision_model": Kind(
        "CLIPVisionModelWithProjection", lambda module, x: module(pixel_values=x).image_embeds
    ),
    "siglip": Kind("SiglipModel", _siglip_image, _siglip_text, sigmoid=True),
    "siglip_vision_model": Kind(
        "SiglipVisionModel", lambda module, x: module(pixel_values=x).pooler_output
    ),
}


class StoredImageEncoder:
    """DINOv2, CLIP or SigLIP from a folder or the Hub, in float32.

    Weights are read when they are first used.
    """

    def __init__(self, source: Source, name: str, device: str = "cpu") -> None:
        """Read config.json alone. Raises ModelFilesError for an architecture not in `KINDS`."""
        self.name = name
        self.source, self._device = source, device
        model_type = read_json(source, "config.json").get("model_type")
        if model_type not in KINDS:
            raise ModelFilesError(
                f"{source.name} is a {model_type}; an image encoder is one of {', '.join(KINDS)}. "
                f"Known names: {', '.join(IMAGE_ENCODERS)}."
            )
        self.kind = KINDS[model_type]

    @property
    def unit(self) -> str:
        """What a text score is, in words."""
        return "sigmoid of the logit" if self.kind.sigmoid else "cosine"

    @torch.no_grad()
    def embed(self, images: "Sequence[Image]") -> Tensor:
        """Return (n, d), float32 on the CPU, unit norm.

        Of DINOv2 the class token, of CLIP and SigLIP the projected state.
        """
        parts = (
            normalize(self.kind.image_features(self._module, pixels).float(), dim=-1).cpu()
            for pixels in self._batches(images)
        )
        return torch.cat(list(parts))

    @torch.no_grad()
    def score(self, images: "Sequence[Image]", texts: Sequence[str]) -> Tensor:
        """Return (n,), float32: how well picture i fits text i.

        A cosine; for SigLIP the sigmoid of its logit, a probability. Raises DoesNotApply for an
        encoder that reads no text.
        """
        if self.kind.text_features is None:
            raise DoesNotApply(
                f"{self.name} reads no text. Take an image–text encoder: clip, siglip, or a folder."
            )
        unique = list(dict.fromkeys(texts))
        rows = torch.cat(
            [
                self.kind.text_features(self._module, self._ids(unique[at : at + BATCH]))
                for at in range(0, len(unique), BATCH)
            ]
        )
        text = normalize(rows.float(), dim=-1).cpu()[[unique.index(entry) for entry in texts]]
        cosines = (self.embed(images) * text).sum(dim=-1)
        if not self.kind.sigmoid:
            return cosines
        scale, bias = (
            getattr(self._module, name).detach().float().cpu()
            for name in ("logit_scale", "logit_bias")
        )
        return torch.sigmoid(cosines * scale.exp() + bias).reshape(len(texts))

    @cached_property
    def _module(self) -> nn.Module:
        weights = Weights(self.source, "")
        kind = self.kind
        module = load_module(self.source, weights, kind.module_class, torch.float32, kind.settings)
        return module.to(self._device)

    @cached_property
    def _tokenizer(self) -> Any:
        files = tokenizer_files(self.source, "")
        if not files:
            raise ModelFilesError(
                f"{self.source.name} has no tokenizer. Fetch tokenizer.json and its config too."
            )
        # tokenizer.json is complete: normalisation, begin and end tokens; no sentencepiece needed.
        complete = self.source.has("tokenizer.json")
        tokenizer_class = "PreTrainedTokenizerFast" if complete else "AutoTokenizer"
        return load_tokenizer(self.source, files, tokenizer_class)

    def _ids(self, texts: list[str]) -> Tensor:
        """Return (n, length). SigLIP was trained on texts padded to full length, unmasked."""
        config: Any = self._module.config
        length = config.text_config.max_position_embeddings
        padding = "max_length" if self.kind.sigmoid else True
        tokens = self._tokenizer(
            texts,
            padding=padding,
            padding_side="right",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        ids: Tensor = tokens["input_ids"].to(self._device)
        return ids

    def _batches(self, images: "Sequence[Image]") -> Iterator[Tensor]:
        settings = read_json(self.source, "preprocessor_config.json")
        for at in range(0, len(images), BATCH):
            yield torch.stack([prepared(image, settings) for image in images[at : at + BATCH]]).to(
                self._device
            )


def open_image_encoder(name: str, *, device: str = "cpu") -> ImageEncoder:
    """Open an image encoder: a name of `IMAGE_ENCODERS`, a Hub id, or a folder.

    Raises UnknownModel, ModelFilesError.
    """
    check_device(device)
    shipped = _shipped(name)
    if shipped is not None:
        return cast(ImageEncoder, shipped())
    return StoredImageEncoder(_source(name), name, device)


def open_image_text_encoder(name: str, *, device: str = "cpu") -> ImageTextEncoder:
    """Open an image–text encoder: clip, siglip, a Hub id, or a folder.

    Raises UnknownModel, ModelFilesError, DoesNotApply.
    """
    check_device(device)
    if _shipped(name) is not None:
        raise DoesNotApply(
            f"{name}, the embedded scorer, reads pictures, not texts. It checks scenes where it is "
            f"the image encoder too: --image-encoder {name}. Image–text encoders: clip, siglip, a "
            "folder."
        )
    encoder = StoredImageEncoder(_source(name), name, device)
    if encoder.kind.text_features is None:
        raise DoesNotApply(
            f"{name} reads no text. Image–text encoders: clip, siglip, or a folder of one."
        )
    return encoder


def prepared(image: "Image", settings: Mapping[str, Any]) -> Tensor:
    """Return (3, h, w): an image prepared as preprocessor_config.json says.

    Pillow does the resizing, as it did when these encoders were trained; the processors of
    transformers return other numbers where torchvision is installed.
    """
    image = image.convert("RGB")
    crops = settings.get("do_center_crop", "crop_size" in settings)
    if settings.get("do_resize", True):
        size = settings["size"]
        if isinstance(size, int) and not crops:  # as ViT's processor reads a single number
            size = {"height": size, "width": size}
        image = image.resize(_resized(image, size), settings.get("resample", 3))
    if crops:
        height, width = _sides(settings["crop_size"])
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image, np.float32) * settings.get("rescale_factor", 1 / 255)
    if settings.get("do_normalize", True):
        pixels = (pixels - np.float32(settings["image_mean"])) / np.float32(settings["image_std"])
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32))


def _resized(image: "Image", size: int | Mapping[str, int]) -> tuple[int, int]:
    """Return (width, height) after resizing; a single number is the short side's length."""
    short = size if isinstance(size, int) else size.get("shortest_edge")
    if short is None:
        height, width = _sides(size)
        return width, height
    least = min(image.size)
    width, height = (short if side == least else int(short * side / least) for side in image.size)
    return width, height


def _sides(size: int | Mapping[str, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size["height"], size["width"])


def is_shipped(name: str) -> bool:
    """Return whether an image encoder of this name ships with the package."""
    return ":" in IMAGE_ENCODERS.get(name, "")


def _shipped(name: str) -> Callable[[], object] | None:
    """Return the class of an encoder that ships with the package, or None for another name."""
    module, colon, attribute = IMAGE_ENCODERS.get(name, "").partition(":")
    if not colon:
        return None
    encoder_class: Callable[[], object] = getattr(importlib.import_module(module), attribute)
    return encoder_class


def _source(name: str) -> Source:
    repository = IMAGE_ENCODERS.get(name)
    if repository is not None:
        return HubRepository(repository)
    if Path(name).is_dir():
        return Folder(Path(name))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return HubRepository(name)
    raise UnknownModel(
        f"no image encoder called '{name}'. Known: {', '.join(IMAGE_ENCODERS)}. "
        "A Hub id (org/name) or a local folder also works."
    )
