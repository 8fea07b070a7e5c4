"""Emoji artwork, fetched from the npm registry.

Versions are exact, and each file is compared with its published checksum. The artwork itself never
enters the repository: the recipe keeps it in its working folder.
"""

import base64
import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dti_geom.errors import DtiGeomError
from dti_geom.mini.domain import ACCESSORIES, STRANGERS, STYLES, THINGS

SPRITE_PIXELS = 64


@dataclass(frozen=True)
class Package:
    """An npm package of artwork, of an exact version."""

    style: str
    name: str
    version: str
    sha512: str  # base64, as the registry publishes it
    picture: str  # path of one picture inside the tarball
    licence: str

    @property
    def tarball(self) -> str:
        """The file name that `npm pack` gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


PACKAGES: tuple[Package, ...] = (
    Package(
        STYLES[0],
        "emoji-datasource-google",
        "16.0.0",
        "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
        "package/img/google/64/{emoji}.png",
        "Noto Emoji, Google, Apache-2.0",
    ),
    Package(
        STYLES[1],
        "emoji-datasource-twitter",
        "16.0.0",
        "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
        "package/img/twitter/64/{emoji}.png",
        "Twemoji, Twitter and contributors, CC-BY-4.0",
    ),
    Package(
        STYLES[2],
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        "package/assets/{emoji}.webp",
        "Fluent Emoji, Microsoft, MIT",
    ),
)

Sprites = dict[tuple[str, str], Image.Image]
"""(style, name) → RGBA picture, cropped to its opaque part, longest side 64 px."""


def checksum(path: Path) -> str:
    """Return the SHA-512 of a file in base64, which is how the registry writes it."""
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def download(package: Package, folder: Path) -> Path:
    """Return the path of the package's tarball in `folder`; fetch it first if it is missing.

    Raises DtiGeomError if npm cannot fetch it, or if the checksum differs.
    """
    path = folder / package.tarball
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"{package.name}@{package.version}", "--silent"]
        try:
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise DtiGeomError(
                f"could not fetch {package.name} {package.version} with npm: {error}.\n"
                f"Put {package.tarball} into {folder} by hand, or install npm."
            ) from error
    actual = checksum(path)
    if actual != package.sha512:
        raise DtiGeomError(
            f"{path} has SHA-512 {actual[:12]}…, expected {package.sha512[:12]}…\n"
            "Delete it and run again."
        )
    return path


def _emoji_names() -> dict[str, str]:
    """Name → code point of everything that is painted."""
    return {thing.name: thing.emoji for thing in THINGS + STRANGERS} | ACCESSORIES


def extract(folder: Path) -> None:
    """Download every package and write STYLE/NAME.png below `folder`."""
    for package in PACKAGES:
        tarball = download(package, folder)
        target = folder / package.style
        names = {
            package.picture.format(emoji=emoji): name for name, emoji in _emoji_names().items()
        }
        with tarfile.open(tarball) as archive:
            for member in archive:
                name = names.pop(member.name, None)
                stream = archive.extractfile(member) if name else None
                if stream:
                    target.mkdir(exist_ok=True)
                    _cropped(Image.open(io.BytesIO(stream.read()))).save(target / f"{name}.png")
        if names:
            raise DtiGeomError(f"{package.name} {package.version} lacks {', '.join(names)}.")


def _cropped(picture: Image.Image) -> Image.Image:
    """Drop the transparent margin and scale the longest side to SPRITE_PIXELS."""
    picture = picture.convert("RGBA")
    # Alpha below 25 of 255 is the soft rim of a shadow: it would leave a margin that nobody sees.
    solid = picture.getchannel("A").point([0] * 25 + [255] * 231)
    return resized(picture.crop(solid.getbbox()), SPRITE_PIXELS)


def resized(picture: Image.Image, longest: int) -> Image.Image:
    """Scale the longest side to `longest` px."""
    scale = longest / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Premultiplied alpha ("RGBa"): otherwise the colour of transparent pixels, black, would darken
    # the edge.
    return picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


def load_sprites(folder: Path, styles: Iterable[str] = STYLES) -> Sprites:
    """Read what `extract` wrote. Raises DtiGeomError if a picture is missing."""
    sprites: Sprites = {}
    for style in styles:
        for name in _emoji_names():
            path = folder / style / f"{name}.png"
            if not path.exists():
                raise DtiGeomError(f"{path} is missing. Run the stage 'download' first.")
            with Image.open(path) as picture:
                sprites[style, name] = picture.convert("RGBA")
    return sprites
