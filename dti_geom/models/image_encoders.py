"""Image encoders, which say how alike two pictures look, and image–text encoders, which say how well one fits a text.

`open_image_encoder("dinov2")` and `open_image_text_encoder("siglip")` take a name of `IMAGE_ENCODERS`, a Hub id or a
folder. Adding an architecture is one entry in `KINDS`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from dti_geom.errors import DoesNotApply, ModelFilesError, UnknownModel
from dti_geom.mini.scorer import load_scorer
from dti_geom.models.catalog import check_device, embedded_folder
from dti_geom.models.encoders import TOKENIZER_FILES, import_transformers, quiet
from dti_geom.models.sources import Folder, HubRepository, Source, read_json
from dti_geom.models.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image

MINI = "mini"
MINI_SIDE = 64  # pixels: the scorer of the embedded model knows no other size

# Short names; those of DINOv2 and SigLIP are what the public code of Directional Textual Inversion scores with.
IMAGE_ENCODERS: dict[str, str | None] = {
    MINI: None,  # ships with the package
    "dinov2": "facebook/dinov2-base",
    "clip": "openai/clip-vit-large-patch14",
    "siglip": "google/siglip2-base-patch16-224",
}
BATCH = 32  # images at once


class ImageEncoder(Protocol):
    """All that a comparison of pictures may use; a few lines can fake it."""

    @property
    def name(self) -> str:
        """What the user called it."""
        ...

    def embed(self, images: "Sequence[Image]") -> Tensor:
        """(n, d), float32 on the CPU, unit norm: a cosine of rows is how alike two pictures are."""
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
        """(n,), float32 on the CPU: how well picture i fits text i."""
        ...


class ScorerEncoder:
    """The scorer that ships with the embedded model, as an image encoder that can also read pictures."""

    name = MINI

    def __init__(self) -> None:
        """Load the scorer."""
        self._scorer = load_scorer(embedded_folder() / "scorer")

    def embed(self, images: "Sequence[Image]") -> Tensor:
        """(n, 128), unit norm: what the thing looks like, whatever is behind it. Other sizes are resized to 64 px."""
        return self._scorer.embed(_pixels(images))

    def read(self, images: "Sequence[Image]") -> list[dict[str, str]]:
        """The most likely answer to every question of the scorer, in words, one dictionary per picture."""
        return self._scorer.read(_pixels(images))


@dataclass(frozen=True)
class Kind:
    """One architecture: its transformers class, and how a feature is got out of it."""

    architecture: str
    image_features: Callable[[Any, Tensor], Tensor]
    text_features: Callable[[Any, Tensor], Tensor] | None = None
    sigmoid: bool = False  # a text score is the sigmoid of the model's logit; else the cosine


def _class_token(module: Any, pixels: Tensor) -> Tensor:
    return module(pixel_values=pixels).last_hidden_state[:, 0]


def _clip_image(module: Any, pixels: Tensor) -> Tensor:
    return module.visual_projection(module.vision_model(pixel_values=pixels).pooler_output)


def _clip_text(module: Any, ids: Tensor) -> Tensor:
    return module.text_projection(module.text_model(input_ids=ids).pooler_output)


def _siglip_image(module: Any, pixels: Tensor) -> Tensor:
    return module.vision_model(pixel_values=pixels).pooler_output


def _siglip_text(module: Any, ids: Tensor) -> Tensor:
    return module.text_model(input_ids=ids).pooler_output


KINDS: dict[str, Kind] = {  # by `model_type` of config.json
    "dinov2": Kind("Dinov2Model", _class_token),
    "dinov2_with_registers": Kind("Dinov2WithRegistersModel", _class_token),
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
    """DINOv2, CLIP or SigLIP from a folder or the Hub, in float32. Weights are read when first asked for."""

    def __init__(self, source: Source, name: str, device: str = "cpu") -> None:
        """Reads config.json alone. Raises ModelFilesError for an architecture that is not in `KINDS`."""
        self.name = name
        self.source, self._device = source, device
        found = read_json(source, "config.json").get("model_type")
        if found not in KINDS:
            raise ModelFilesError(
                f"{source.name} is a {found}; an image encoder is one of {', '.join(KINDS)}. "
                f"Known names: {', '.join(IMAGE_ENCODERS)}."
            )
        self.kind = KINDS[found]

    @property
    def unit(self) -> str:
        """What a text score is, in words."""
        return "sigmoid of the logit" if self.kind.sigmoid else "cosine"

    @torch.no_grad()
    def embed(self, images: "Sequence[Image]") -> Tensor:
        """(n, d), float32 on the CPU, unit norm. DINOv2: the class token; CLIP and SigLIP: the projected state."""
        parts = (
            normalize(self.kind.image_features(self._module, pixels).float(), dim=-1).cpu()
            for pixels in self._batches(images)
        )
        return torch.cat(list(parts))

    @torch.no_grad()
    def score(self, images: "Sequence[Image]", texts: Sequence[str]) -> Tensor:
        """(n,), float32: the cosine of picture i and text i, or for SigLIP the sigmoid of its logit, a probability.

        Raises DoesNotApply for an encoder that reads no text.
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
        text = normalize(rows.float(), dim=-1).cpu()[[unique.index(one) for one in texts]]
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
        transformers = import_transformers()
        weights = Weights(self.source, "")
        for file in {weights.entry, *weights.files().values()}:
            self.source.local(file)
        folder: Path = self.source.local("config.json").parent
        with quiet(transformers):
            module, info = getattr(transformers, self.kind.architecture).from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        if info["missing_keys"]:  # transformers would go on with random numbers in their place
            raise ModelFilesError(
                f"{folder} lacks {len(info['missing_keys'])} tensors of a {self.kind.architecture}, among them "
                f"{min(info['missing_keys'])}. Fetch the weights again."
            )
        return module.to(self._device).eval().requires_grad_(False)

    @cached_property
    def _tokenizer(self) -> Any:
        transformers = import_transformers()
        paths = [self.source.local(name) for name in TOKENIZER_FILES if self.source.has(name)]
        if not paths:
            raise ModelFilesError(
                f"{self.source.name} has no tokenizer. Fetch tokenizer.json and its config too."
            )
        try:
            if self.source.has(
                "tokenizer.json"
            ):  # complete as trained: normalisation, begin and end; no sentencepiece
                return transformers.PreTrainedTokenizerFast.from_pretrained(
                    paths[0].parent, local_files_only=True
                )
            return transformers.AutoTokenizer.from_pretrained(
                paths[0].parent, local_files_only=True
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelFilesError(
                f"{paths[0].parent}: the tokenizer does not load ({reason})."
            ) from error

    def _ids(self, texts: list[str]) -> Tensor:
        """(n, length): SigLIP was trained on texts padded to its full length, without a mask."""
        length = self._module.config.text_config.max_position_embeddings  # type: ignore[union-attr]
        padding = "max_length" if self.kind.sigmoid else True
        tokens = self._tokenizer(
            texts,
            padding=padding,
            padding_side="right",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        return tokens["input_ids"].to(self._device)

    def _batches(self, images: "Sequence[Image]") -> Iterator[Tensor]:
        settings = read_json(self.source, "preprocessor_config.json")
        for at in range(0, len(images), BATCH):
            yield torch.stack([prepared(image, settings) for image in images[at : at + BATCH]]).to(
                self._device
            )


def open_image_encoder(name: str, *, device: str = "cpu") -> ImageEncoder:
    """An image encoder: `mini` (the embedded scorer), dinov2, clip, siglip, a Hub id, or a folder.

    Raises UnknownModel, ModelFilesError.
    """
    check_device(device)
    return ScorerEncoder() if name == MINI else StoredImageEncoder(_source(name), name, device)


def open_image_text_encoder(name: str, *, device: str = "cpu") -> ImageTextEncoder:
    """An image–text encoder: clip, siglip, a Hub id, or a folder.

    Raises UnknownModel, ModelFilesError, DoesNotApply.
    """
    check_device(device)
    if name == MINI:
        raise DoesNotApply(
            "the embedded scorer reads pictures, not texts. Image–text encoders: clip, siglip, a folder."
        )
    encoder = StoredImageEncoder(_source(name), name, device)
    if encoder.kind.text_features is None:
        raise DoesNotApply(
            f"{name} reads no text. Image–text encoders: clip, siglip, or a folder of one."
        )
    return encoder


def prepared(image: "Image", settings: Mapping[str, Any]) -> Tensor:
    """(3, h, w): an image as preprocessor_config.json wants it.

    Pillow does the resizing, as it did when these encoders were trained; the processors of transformers change their
    numbers with the presence of torchvision.
    """
    image = image.convert("RGB")
    if settings.get("do_resize", True):
        image = image.resize(_resized(image, settings["size"]), settings.get("resample", 3))
    if settings.get("do_center_crop", "crop_size" in settings):
        height, width = _sides(settings["crop_size"])
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image, np.float32) * settings.get("rescale_factor", 1 / 255)
    if settings.get("do_normalize", True):
        pixels = (pixels - np.float32(settings["image_mean"])) / np.float32(settings["image_std"])
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32))


def _resized(image: "Image", size: int | Mapping[str, int]) -> tuple[int, int]:
    """(width, height) after resizing; a single number is the short side's length."""
    short = size if isinstance(size, int) else size.get("shortest_edge")
    if short is None:
        height, width = _sides(size)
        return width, height
    least = min(image.size)
    width, height = (short if side == least else int(short * side / least) for side in image.size)
    return width, height


def _sides(size: int | Mapping[str, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size["height"], size["width"])


def _source(name: str) -> Source:
    repository = IMAGE_ENCODERS.get(name)
    if repository is not None:
        return HubRepository(repository)
    if Path(name).is_dir():
        return Folder(Path(name))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return HubRepository(name)
    raise UnknownModel(
        f"no image encoder called '{name}'. Known: {', '.join(IMAGE_ENCODERS)}. A Hub id (org/name) or a local folder "
        "also works."
    )


def _pixels(images: "Sequence[Image]") -> Tensor:
    """(n, 3, 64, 64) in [−1, 1]."""
    sides = (MINI_SIDE, MINI_SIDE)
    fitting = (
        image.convert("RGB") if image.size == sides else image.convert("RGB").resize(sides)
        for image in images
    )
    pixels = np.stack([np.asarray(image, np.float32) for image in fitting])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
