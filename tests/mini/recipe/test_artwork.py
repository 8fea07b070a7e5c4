"""Artwork has an exact version: a tarball with another checksum is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dti_geom.errors import DtiGeomError
from dti_geom.mini.recipe.artwork import (
    PACKAGES,
    SPRITE_PIXELS,
    checksum,
    download,
    load_sprites,
    resized,
)


def test_a_tarball_with_another_checksum_is_refused(tmp_path: Path) -> None:
    package = PACKAGES[0]
    (tmp_path / package.tarball).write_bytes(b"not the artwork")
    with pytest.raises(DtiGeomError, match="Delete it and run again"):
        download(package, tmp_path)


def test_checksum_is_the_registrys_notation(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert checksum(tmp_path / "empty").startswith(
        "z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP"
    )


def test_tarballs_are_named_as_npm_names_them() -> None:
    assert [package.tarball for package in PACKAGES] == [
        "emoji-datasource-google-16.0.0.tgz",
        "emoji-datasource-twitter-16.0.0.tgz",
        "lobehub-fluent-emoji-3d-1.1.0.tgz",
    ]


def test_missing_artwork_names_the_stage_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(DtiGeomError, match="download"):
        load_sprites(tmp_path)


def test_resizing_leaves_no_dark_fringe() -> None:
    picture = Image.new("RGBA", (64, 64))
    picture.paste((255, 0, 0, 255), (16, 16, 48, 48))
    small = np.asarray(resized(picture, SPRITE_PIXELS // 4))
    assert small[small[..., 3] > 20][:, 0].min() > 235
