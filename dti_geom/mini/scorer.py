"""The scorer: an independent network that reads pictures of the embedded model back into words.

It shares no weights with the generator. It was trained on all artwork, held-out styles and concepts
included: otherwise it could not tell a missing concept from one that it does not know.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from dti_geom.mini.figures import shipped_figures
from dti_geom.models.catalog import embedded_folder
from dti_geom.statistics import Share

if TYPE_CHECKING:
    from PIL.Image import Image

CHANNELS: tuple[int, ...] = (32, 64, 128, 192)
HIDDEN = 320
SIDE = 64  # pixels: the only size it reads
EMBEDDING = 128
PLACES = 2  # of things in a picture
WEIGHTS_FILE = "scorer.safetensors"
CONFIG_FILE = "config.json"

# The row of the figures that tells how reliable a check is.
READING_OF_CHECK = {
    "background": "background",
    "colour": "first_colour",
    "accessory": "accessory",
    "count": "count",
    "order": "relation",
    "both": "both",
}


class Scorer(nn.Module):
    """A convolutional network with an answer to every reading, and embeddings of both things.

    Pictures are (n, 3, 64, 64) in [−1, 1].
    """

    def __init__(self, readings: dict[str, tuple[str, ...]]) -> None:
        """readings: the classes of each."""
        super().__init__()
        self.readings = readings
        layers: list[nn.Module] = []
        width = 3
        for channels in CHANNELS:
            layers += [
                *_convolution(width, channels, stride=2),
                *_convolution(channels, channels, stride=1),
            ]
            width = channels
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 16, HIDDEN), nn.SiLU())
        self.heads = nn.ModuleDict(
            {name: nn.Linear(HIDDEN, len(classes)) for name, classes in readings.items()}
        )
        self.looks = nn.Linear(HIDDEN, PLACES * EMBEDDING)

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the logits by reading, each (n, classes), and embeddings (n, 2, 128), unit norm.

        The first embedding is of the only thing, or of the left or upper one of a pair; the second
        is of the other, and means nothing where there is none.
        """
        hidden = self.body(images)
        logits = {name: head(hidden).float() for name, head in self.heads.items()}
        looks = self.looks(hidden).float().unflatten(-1, (PLACES, EMBEDDING))
        return logits, functional.normalize(looks, dim=-1)

    @torch.no_grad()
    def read(self, images: Tensor, batch: int = 256) -> list[dict[str, str]]:
        """Return the most likely class of every reading, in words, a dictionary per picture."""
        answers: list[dict[str, str]] = []
        for part in torch.split(images, batch):
            logits, _ = self(part)
            best = {name: values.argmax(dim=1).tolist() for name, values in logits.items()}
            answers += [
                {name: self.readings[name][rows[i]] for name, rows in best.items()}
                for i in range(len(part))
            ]
        return answers

    @torch.no_grad()
    def embed(self, images: Tensor, batch: int = 256) -> Tensor:
        """Return (n, 2, 128), unit norm: how the first and the second thing look.

        A cosine compares two things, whatever their backgrounds.
        """
        return torch.cat([self(part)[1] for part in torch.split(images, batch)])


def _convolution(width: int, channels: int, stride: int) -> list[nn.Module]:
    # The first layer sees only colours, so it looks at larger patches.
    kernel = 5 if width == 3 else 3
    layer = nn.Conv2d(width, channels, kernel, stride, padding=kernel // 2, bias=False)
    return [layer, nn.BatchNorm2d(channels), nn.SiLU()]


def save_scorer(scorer: Scorer, folder: Path) -> None:
    """Write the weights in half precision, and the classes of every reading."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in scorer.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps({"readings": scorer.readings}, indent=1) + "\n")


def load_scorer(folder: Path) -> Scorer:
    """Read a scorer, in single precision."""
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    scorer = Scorer({name: tuple(classes) for name, classes in config["readings"].items()})
    scorer.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return scorer.float().eval()


def shipped_scorer() -> Scorer:
    """Load the scorer of the embedded model."""
    return load_scorer(embedded_folder() / "scorer")


class ScorerEncoder:
    """The scorer that ships with the embedded model, as an image encoder that also reads pictures.

    Pictures of other sizes are resized to 64 px.
    """

    name = "mini"

    def __init__(self) -> None:
        """Load the scorer."""
        self._scorer = shipped_scorer()

    def embed(self, images: "Sequence[Image]") -> Tensor:
        """Return (n, 128), unit norm: how the first thing looks, independent of the background."""
        return self.embed_places(images)[:, 0]

    def embed_places(self, images: "Sequence[Image]") -> Tensor:
        """Return (n, 2, 128), unit norm: how the first and the second thing look.

        The second row means nothing for a picture of a single thing.
        """
        return self._scorer.embed(_pixels(images))

    def subject_of(self, images: "Sequence[Image]") -> str:
        """Return the scorer's name of the thing that most of the pictures show."""
        things = Counter(answers["first"] for answers in self.read(images))
        return things.most_common(1)[0][0]

    def accuracy(self) -> dict[str, tuple[Share, Share]]:
        """Return how often the scorer is right in each check, where the truth is known.

        On painted scenes, and on the same scenes through the model's autoencoder; as measured when
        the model was made.
        """
        rows = shipped_figures().rows
        return {
            check: (rows["true renders"][reading], rows["reconstructions"][reading])
            for check, reading in READING_OF_CHECK.items()
        }

    def read(self, images: "Sequence[Image]") -> list[dict[str, str]]:
        """Return the most likely answer to every question, in words, a dictionary per picture."""
        return self._scorer.read(_pixels(images))


def _pixels(images: "Sequence[Image]") -> Tensor:
    """Return (n, 3, 64, 64) in [−1, 1]."""
    sides = (SIDE, SIDE)
    colours = [image.convert("RGB") for image in images]
    fitting = [image if image.size == sides else image.resize(sides) for image in colours]
    pixels = np.stack([np.asarray(image, np.float32) for image in fitting])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
