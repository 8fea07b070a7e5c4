import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dti_geom.errors import EmbeddingFileError, FileExists
from dti_geom.files import (
    EmbeddingFile,
    LearnedToken,
    join_numbered,
    read_embeddings,
    write_embeddings,
)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
TARGETS = {  # layout and path
    "diffusers": ("diffusers", "out"),
    "webui .pt": ("webui", "out.pt"),
    "webui .safetensors": ("webui", "out.safetensors"),
    "sdxl": ("sdxl", "out.safetensors"),
    "kohya": ("kohya", "out.safetensors"),
    "comfyui": ("comfyui", "out.safetensors"),
    "onetrainer": ("onetrainer", "out.safetensors"),
}
ONE_TOWER = ("ldm", "web-ui", "emb_params", "diffusers", "numbered")
TWO_TOWERS = ("sdxl", "two-tower")


def vectors(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def published(layout: str, folder: Path, dtype: torch.dtype) -> EmbeddingFile:
    """A file as other tools write this layout: three vectors of <x>, or one for each tower."""
    small, large = vectors(3, 12, dtype=dtype), vectors(3, 20, seed=1, dtype=dtype)
    if layout in ("sdxl", "emb_params"):
        tensors = {"clip_l": small, "clip_g": large} if layout == "sdxl" else {"emb_params": small}
        save_file(tensors, folder / "x.safetensors")
        return read_embeddings(folder / "x.safetensors")
    content = {
        "ldm": {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(small)})},
        "web-ui": {"string_to_param": {"*": small}, "name": "<x>", "step": 7},
        "diffusers": {"<x>": small},
        "numbered": {"<x>": small[0], "<x>_1": small[1], "<x>_2": small[2]},
        "two-tower": [{"<x>": small}, {"<x>": large}],
    }[layout]
    torch.save(content, folder / "x.bin")
    return read_embeddings(folder / "x.bin")


def read_all(files: list[Path]) -> list[Tensor]:
    tensors: list[Tensor] = []
    for file in files:
        tensors += [token.vectors for token in read_embeddings(file).tokens]
    return tensors


# --- Round trips ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", [*ONE_TOWER, *TWO_TOWERS])
def test_vectors_keep_their_bits_from_every_layout_to_every_layout_that_can_hold_them(
    tmp_path: Path, source: Any, target: str, dtype: torch.dtype
) -> None:
    read = published(source, tmp_path, dtype)
    layout, name = TARGETS[target]
    path = tmp_path / "new" / name
    if (source in ONE_TOWER and layout == "sdxl") or (source in TWO_TOWERS and layout == "webui"):
        with pytest.raises(EmbeddingFileError, match=f"cannot be written as {layout}"):
            write_embeddings(path, read.tokens, layout)
        return
    expected = sorted(
        (token.vectors for token in join_numbered(read.tokens)), key=lambda tensor: tensor.shape[1]
    )
    found = read_all(write_embeddings(path, read.tokens, layout))
    assert [tensor.dtype for tensor in found] == [dtype] * len(expected)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("target", TARGETS)
def test_the_name_and_the_metadata_come_back(tmp_path: Path, target: str) -> None:
    layout, name = TARGETS[target]
    tokens = [LearnedToken("<é|x>", "clip_l", vectors(2, 8))]
    if layout == "sdxl":
        tokens.append(LearnedToken("<é|x>", "clip_g", vectors(2, 12)))
    (path,) = write_embeddings(
        tmp_path / name, tokens, layout, metadata={"step": "500", "method": "dti"}
    )[:1]
    file = read_embeddings(path)
    assert (file.step, file.metadata["method"], file.tokens[0].token) == (500, "dti", "<é|x>")


@settings(max_examples=50, deadline=None)
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=1, max_size=20).filter(
        str.strip
    ),
    st.sampled_from([32, 16]),
    st.integers(1, 4),
    st.integers(1, 9),
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=9), st.text(max_size=9), max_size=3
    ),
)
def test_any_bits_under_any_name_come_back_through_safetensors(
    tmp_path_factory: pytest.TempPathFactory,
    token: str,
    bits: int,
    count: int,
    width: int,
    metadata: Any,
) -> None:
    integers = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, (count, width))
    stored = integers.to({16: torch.int16, 32: torch.int32}[bits]).view(
        {16: torch.float16, 32: torch.float32}[bits]
    )
    stored = torch.where(stored.isfinite(), stored, 1)
    path = tmp_path_factory.mktemp("x") / "x.safetensors"
    write_embeddings(path, [LearnedToken(token, None, stored)], "kohya", metadata=metadata)
    (found,) = read_embeddings(path).tokens
    assert found.token == token.strip()
    assert torch.equal(found.vectors.view(torch.int8), stored.view(torch.int8))


# --- What other tools see ---


def test_a_diffusers_folder_holds_one_tensor_for_each_tower(tmp_path: Path) -> None:
    small, large = vectors(2, 8), vectors(2, 12)
    tokens = [LearnedToken("<x>", "clip_g", large), LearnedToken("<x>", "clip_l", small)]
    files = write_embeddings(tmp_path / "x", tokens)
    assert [file.name for file in files] == [
        "learned_embeds.safetensors",
        "learned_embeds_2.safetensors",
    ]
    for place, (file, stored) in enumerate(zip(files, (small, large), strict=True), 1):
        assert torch.equal(load_file(file)["<x>"], stored)
        assert [token.tower for token in read_embeddings(file).tokens] == [str(place)]
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt", "name": "<x>", "tower": str(place)}


def test_three_towers_are_three_files_of_diffusers(tmp_path: Path) -> None:
    """Stable Diffusion 3.5."""
    widths = {"text_encoder": 768, "text_encoder_2": 1280, "text_encoder_3": 4096}
    tokens = [LearnedToken("<x>", tower, torch.ones(1, size)) for tower, size in widths.items()]
    write_embeddings(tmp_path, tokens)
    found = {path.name: load_file(path)["<x>"].shape[1] for path in tmp_path.iterdir()}
    assert found == {
        "learned_embeds.safetensors": 768,
        "learned_embeds_2.safetensors": 1280,
        "learned_embeds_3.safetensors": 4096,
    }


def test_a_web_ui_file_loads_with_weights_only(tmp_path: Path) -> None:
    stored = vectors(2, 8)
    metadata = {"step": "9", "string_to_param": "no tensor"}
    write_embeddings(
        tmp_path / "x.pt", [LearnedToken("<x>", None, stored)], "webui", metadata=metadata
    )
    content = torch.load(tmp_path / "x.pt", weights_only=True)
    assert torch.equal(content["string_to_param"]["*"], stored)
    assert (content["name"], content["step"], content["string_to_token"]) == ("<x>", 9, {"*": 265})


def test_towers_of_different_dtypes_lie_on_multiples_of_their_size(tmp_path: Path) -> None:
    tokens = [
        LearnedToken("<x>", "1", vectors(1, 7, dtype=torch.float16)),
        LearnedToken("<x>", "2", vectors(1, 9, dtype=torch.float64)),
    ]
    (path,) = write_embeddings(tmp_path / "x.safetensors", tokens, "sdxl")
    loaded = load_file(path)
    assert torch.equal(loaded["clip_l"], tokens[0].vectors)
    assert torch.equal(loaded["clip_g"], tokens[1].vectors)


def test_a_row_of_a_large_table_is_written_small(tmp_path: Path) -> None:
    table = vectors(1000, 8)
    (path,) = write_embeddings(tmp_path / "x.pt", [LearnedToken("<x>", None, table[7:8])], "webui")
    assert path.stat().st_size < 3000


SAME = """
import sys, pathlib, torch
from dti_geom.files import LearnedToken, write_embeddings
x = [
    LearnedToken("<x>", "1", torch.arange(8.0)[None]),
    LearnedToken("<x>", "2", torch.arange(6.0)[None]),
]
folder = pathlib.Path(sys.argv[1])
metadata = {letter: letter for letter in "qwertyuiop"}
write_embeddings(folder, x, metadata=metadata)
write_embeddings(folder / "x.pt", x[:1], "webui", metadata=metadata)
"""


def test_the_same_arguments_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        command = [sys.executable, "-c", SAME, str(tmp_path / name)]
        subprocess.run(command, check=True, env={"PYTHONHASHSEED": str(seed)})
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["learned_embeds.safetensors", "learned_embeds_2.safetensors", "x.pt"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# --- Numbered vectors ---


def test_numbered_vectors_join_their_token_in_the_order_of_their_numbers() -> None:
    rows = vectors(12, 4)
    tokens = [
        LearnedToken("<x>" if not row else f"<x>_{row}", None, rows[row : row + 1])
        for row in range(12)
    ]
    (joined,) = join_numbered(tokens[::-1])
    assert (joined.token, joined.tower) == ("<x>", None)
    assert torch.equal(joined.vectors, rows)


@pytest.mark.parametrize(
    "names",
    [
        ["<x>_1"],
        ["<x>", "<x>_2"],
        ["<x>", "<y>_1"],
        ["<x>", "<x>_01"],
        ["<x>", "<x>_"],
        ["<x>", "_1"],
    ],
)
def test_names_that_are_no_row_of_numbers_stay_as_they_are(names: list[str]) -> None:
    assert [
        token.token
        for token in join_numbered([LearnedToken(name, None, vectors(1, 4)) for name in names])
    ] == names


# --- Refusals ---


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], r"these are 0 \(none\)"),
        ([("<x>", None, vectors(1, 4)), ("<y>", None, vectors(1, 4))], r"these are 2 \(<x>, <y>\)"),
        ([("<x>", "siglip", vectors(1, 4))], "tower siglip, which has no place"),
        ([("<x>", None, vectors(1, 4)), ("<x>", "clip_l", vectors(1, 4))], "has it twice"),
        ([("<x>", None, torch.full((1, 4), torch.nan))], "not finite"),
        ([("<x>", None, torch.arange(4)[None])], "torch.int64 values"),
        ([("<x>", None, vectors(4))], r"shape \(4,\)"),
    ],
)
def test_a_token_that_no_file_can_hold_is_refused(
    tmp_path: Path, tokens: Any, expected: str
) -> None:
    with pytest.raises(EmbeddingFileError, match=expected):
        write_embeddings(tmp_path / "x", [LearnedToken(*token) for token in tokens])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layout", "name", "expected"),
    [
        ("diffusers", "x.safetensors", "looks like a file"),
        ("webui", "x.bin", r"does not end in \.pt or \.safetensors"),
        ("sdxl", "x.pt", r"does not end in \.safetensors"),
        ("kohya", "x.pt", r"does not end in \.safetensors"),
        ("comfy", "x", "no layout called 'comfy'. Known: diffusers, webui, sdxl, kohya"),
    ],
)
def test_a_path_that_does_not_fit_the_layout_is_refused(
    tmp_path: Path, layout: str, name: str, expected: str
) -> None:
    with pytest.raises(EmbeddingFileError, match=expected):
        write_embeddings(tmp_path / name, [LearnedToken("<x>", None, vectors(1, 4))], layout)


def test_nothing_is_written_where_one_of_the_files_exists(tmp_path: Path) -> None:
    tokens = [LearnedToken("<x>", tower, vectors(1, 4)) for tower in ("1", "2")]
    second = tmp_path / "learned_embeds_2.safetensors"
    second.write_text("old")
    with pytest.raises(FileExists, match=r"learned_embeds_2\.safetensors exists already"):
        write_embeddings(tmp_path, tokens)
    assert [path.name for path in tmp_path.iterdir()] == [second.name]
    assert second.read_text() == "old"
    write_embeddings(tmp_path, tokens, overwrite=True)
    assert len(read_all([second])) == 1


KILLED = """
import json, os, pathlib, random, signal, sys, time
import torch
from dti_geom.files import LearnedToken, read_embeddings, write_embeddings

torch.set_num_threads(1)  # threads do not outlive a fork
path, random = pathlib.Path(sys.argv[1]), random.Random(0)
states = [[LearnedToken("<x>", None, torch.full((8, 768), float(state)))] for state in range(2)]
write_embeddings(path, states[0], "kohya")
seen = []
# A busy machine may need more kills until the writer has got as far as its second state.
while len(seen) < 40 or ([1.0] not in seen and len(seen) < 1000):
    writer = os.fork()
    if not writer:
        while True:
            for state in states:
                write_embeddings(path, state, "kohya", overwrite=True)
    time.sleep(random.uniform(0, 0.02))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    (token,) = read_embeddings(path).tokens
    seen.append(token.vectors.unique().tolist())
print(json.dumps(seen))
"""


def test_a_writer_killed_at_any_moment_leaves_one_whole_file_or_the_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "x.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    seen = json.loads(done.stdout)
    assert len(seen) >= 40
    assert all(values in ([0.0], [1.0]) for values in seen)
    assert [0.0] in seen
    assert [1.0] in seen
