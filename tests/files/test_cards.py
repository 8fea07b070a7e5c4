import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dti_geom.errors import EmbeddingFileError
from dti_geom.files import (
    LearnedToken,
    find_embedding_files,
    read_embeddings,
    write_embeddings,
)
from dti_geom.files.cards import _sequence


def token(count: int = 3, width: int = 768) -> LearnedToken:
    vectors = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    return LearnedToken("doll", None, vectors)


def card(folder: Path, learned: LearnedToken) -> Path:
    metadata = {"step": "500"}
    (path,) = write_embeddings(folder / "card.png", [learned], "card", metadata=metadata)
    return path


def saved_again(path: Path, text: str | None = None) -> None:
    """Save the pixels of a PNG, and no text or another one."""
    info = PngInfo()
    if text is not None:
        info.add_text("sd-ti-embedding", text)
    with Image.open(path) as image:
        image.load()
    image.save(path, pnginfo=info)


def refusal(path: Path) -> str:
    with pytest.raises(EmbeddingFileError) as caught:
        read_embeddings(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("form", ["text", "pixels"])
@pytest.mark.parametrize("width", [16, 768, 1024])
def test_a_card_comes_back_from_its_text_and_from_its_pixels(
    tmp_path: Path, form: str, width: int
) -> None:
    learned = LearnedToken("doll", None, token(3, width).vectors)
    path = card(tmp_path, learned)
    if form == "pixels":
        saved_again(path)
        assert b"sd-ti-embedding" not in path.read_bytes()
    file = read_embeddings(path)
    (found,) = file.tokens
    assert (file.format, file.step, found.token) == ("card", 500, "doll")
    assert torch.equal(found.vectors, learned.vectors)


def test_the_text_of_a_card_is_the_json_of_a_web_ui_file(tmp_path: Path) -> None:
    learned = token(2, 8)
    with Image.open(card(tmp_path, learned)) as image:
        content = json.loads(base64.b64decode(image.info["sd-ti-embedding"]))
    assert content["string_to_token"] == {"*": 265}
    assert content["name"] == "doll"
    assert content["step"] == 500
    stored = content["string_to_param"]["*"]["TORCHTENSOR"]
    assert torch.equal(torch.tensor(stored), learned.vectors)


def test_the_pixels_hide_the_same_json_as_documented(tmp_path: Path) -> None:
    """Decode by hand: low halves left, high halves right, XORed, between two black columns."""
    with Image.open(card(tmp_path, token(2, 64))) as image:
        pixels = np.array(image)
    black = np.flatnonzero((pixels == 0).all(axis=(0, 2)))
    assert len(black) == 2
    low, high = pixels[:, : black[0]] & 15, pixels[:, black[1] + 1 :] & 15
    seed, sequence = 0, []
    for _ in range(low.size):
        seed = (1664525 * seed + 1013904223) % 2**32
        sequence.append(seed % 255 & 15)
    halves = [half.flatten() ^ np.array(sequence, np.uint8) for half in (low, high)]
    packed = (halves[1] << 4 | halves[0]).astype(np.uint8).tobytes()
    content = json.loads(zlib.decompressobj().decompress(packed))
    assert np.shape(content["string_to_param"]["*"]["TORCHTENSOR"]) == (2, 64)


def test_the_sequence_is_the_published_one() -> None:
    # The first values that the web UI's own check lists, in their low four bits.
    published = [253, 242, 127, 44, 157, 27, 239, 133, 38, 79, 167, 4, 177, 95, 130, 79]
    assert _sequence(16).tolist() == [value & 15 for value in published]
    assert _sequence(1).tolist() == [13]


def test_a_picture_without_an_embedding_says_so(tmp_path: Path) -> None:
    for name, image in {
        "plain.png": Image.new("RGB", (64, 64), (200, 10, 10)),
        "black.png": Image.new("RGB", (64, 64)),
        "grey.png": Image.new("L", (64, 64), 9),
        "lines.png": Image.fromarray(np.tile(np.array([17, 16, 17, 16, 17], np.uint8), (9, 1))),
    }.items():
        image.save(tmp_path / name)
        assert "is an image without an embedding in it" in refusal(tmp_path / name)


def test_a_card_that_was_cut_or_changed_is_refused(tmp_path: Path) -> None:
    path = card(tmp_path, token(2, 64))
    whole = path.read_bytes()
    text = whole.index(b"sd-ti-embedding")
    end = text + int.from_bytes(whole[text - 8 : text - 4], "big")
    for length in range(8, end, end // 40):
        path.write_bytes(whole[:length])
        refusal(path)
    path.write_bytes(whole[: end - 9] + b"A" + whole[end - 8 :])
    assert "damaged" in refusal(path)
    path.write_bytes(whole)
    saved_again(path, "no base64 !")
    assert "text is damaged" in refusal(path)
    saved_again(path, base64.b64encode(b'{"string_to_param": [').decode())
    assert "is a card that is damaged" in refusal(path)
    saved_again(path, base64.b64encode(b"[1]").decode())
    assert "without an embedding" in refusal(path)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
        b"[" + b"1," * 2**19 + b"1]",
        b'{"TORCHTENSOR": [[1, 2], [3]]}',
        b'{"string_to_param": {"*": {"TORCHTENSOR": [[1e300]]}}}',
        b'{"string_to_param": {"*": {"TORCHTENSOR": [["a"]]}}}',
    ],
)
def test_json_that_would_fill_the_memory_or_is_no_tensor_is_refused(
    tmp_path: Path, text: bytes
) -> None:
    path = card(tmp_path, token(1, 8))
    saved_again(path, base64.b64encode(text).decode())
    # Long text is refused by its count, before a parser unfolds it.
    assert ("more numbers than an embedding has" in refusal(path)) == (len(text) > 10_000)


def test_an_image_of_many_pixels_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(stream, "PNG")
    data = bytearray(stream.getvalue())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "x.png").write_bytes(data)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    assert "60000 × 60000 pixels" in refusal(tmp_path / "x.png")


def test_a_folder_gives_its_cards_and_not_its_pictures(tmp_path: Path) -> None:
    path = card(tmp_path, token(1, 8))
    Image.new("RGB", (64, 64)).save(tmp_path / "preview.png")
    torch.save({"<x>": torch.ones(8)}, tmp_path / "x.bin")
    assert find_embedding_files(tmp_path) == [path, tmp_path / "x.bin"]


@pytest.mark.parametrize(
    ("learned", "said"),
    [
        (LearnedToken("<x>", "clip_g", torch.ones(1, 1280)), "OpenCLIP ViT-bigG/14 alone"),
        (LearnedToken("<x>", None, torch.ones(1, 8, dtype=torch.float64)), "float64"),
    ],
)
def test_what_no_card_can_hold_is_refused(tmp_path: Path, learned: Any, said: str) -> None:
    with pytest.raises(EmbeddingFileError, match=said):
        card(tmp_path, learned)
