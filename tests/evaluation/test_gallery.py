from pathlib import Path

import pytest
from PIL import Image

from dti_geom.evaluation import gallery
from dti_geom.evaluation.gallery import SIDE, Gallery, gallery_of
from dti_geom.evaluation.pictures import Picture, Pictures, SamplerSettings


@pytest.fixture
def painted(tmp_path: Path) -> Pictures:
    """Two prompts from two seeds, and a third prompt from one of them."""
    asked = [("a <x>", 0), ("a <x>", 5), ("a dog", 0), ("a dog", 5), ("a cat", 5)]
    pictures = []
    for number, (prompt, seed) in enumerate(asked):
        Image.new("RGB", (300, 300), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
        token = "<x>" if "<x>" in prompt else None
        pictures.append(Picture(f"{number}.png", prompt, seed, token))
    return Pictures("mini", SamplerSettings(2, 3.0, 300, "float32"), tuple(pictures), 5, 1.0)


def shown(result: Gallery) -> list[tuple[str, str | None, list[bool]]]:
    return [
        (row.prompt, row.token, [uri is not None for uri in row.pictures]) for row in result.rows
    ]


def test_prompts_become_rows_and_seeds_columns(painted: Pictures, tmp_path: Path) -> None:
    result = gallery_of(painted, tmp_path)
    assert result.seeds == (0, 5)
    assert shown(result) == [
        ("a <x>", "<x>", [True, True]),
        ("a dog", None, [True, True]),
        ("a cat", None, [False, True]),
    ]
    assert result.left_out == 0


def test_pictures_are_small_copies(painted: Pictures, tmp_path: Path) -> None:
    import base64
    import io

    uri = gallery_of(painted, tmp_path).rows[0].pictures[1]
    assert uri is not None
    small = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert small.size == (SIDE, SIDE)
    assert small.getpixel((0, 0)) == (40, 0, 0)


def test_prompts_beyond_what_a_page_holds_are_left_out_and_counted(
    painted: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "MOST_BYTES", 1)
    result = gallery_of(painted, tmp_path)
    assert [row.prompt for row in result.rows] == ["a <x>"]
    assert result.left_out == 2
