"""Files made to break the reader.

A fixed part of `benchmarks/fuzz.py`, programs of random pickle instructions, and odd paths.
"""

import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dti_geom.errors import EmbeddingFileError
from dti_geom.files import find_embedding_files, read_embeddings
from scripts import script

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = (
    *(bytes([code]) for code in b")]}(NRQbuseatlod021\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x93\x94"),
    *(
        b"h\0",
        b"h\x01",
        b"q\0",
        b"q\x01",
        b"K\0",
        b"K\x01",
        b"J\xff\xff\xff\xff",
        b"\x8a\x08" + b"\xff" * 8,
    ),
    *(b"X\x03\0\0\0<x>", b"X\x07\0\0\0storage", b"X\x01\0\0\0" + b"0", b"X\x0b\0\0\0_parameters"),
    *(b"cposix\nsystem\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"),
    *(
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ccollections\nOrderedDict\n",
        b"c__builtin__\nset\n",
    ),
    b"ctorch.nn.modules.container\nParameterDict\n",
    b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
    + b"0X\x03\0\0\0cpuK\x08tQ",  # a whole storage
)
EXHAUSTING = script("fuzz").exhausting_files()


def check(path: Path) -> None:
    """Reads, or says in one line why not."""
    message = ""
    try:
        read_embeddings(path)
    except EmbeddingFileError as error:
        message = str(error)
    assert message.isprintable()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What comes of each small file that unfolds in memory, read under limits."""
    folder = tmp_path_factory.mktemp("exhausting")
    names = {}
    for number, (name, data) in enumerate(EXHAUSTING.items()):
        path = folder / f"{number}.bin"
        path.write_bytes(data)
        names[str(path)] = name
    command = [sys.executable, str(ROOT / "tests" / "limited.py"), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return {names[path]: message for path, message in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", EXHAUSTING)
def test_a_small_file_that_unfolds_in_memory_is_refused(
    name: str, outcomes: dict[str, str]
) -> None:
    assert len(EXHAUSTING[name]) <= 2**20
    refused = r"\.bin (is damaged|holds .*(looks like a checkpoint|at most 1000|text beside its))"
    assert re.search(refused, outcomes[name]), outcomes[name]
    assert "MemoryError" not in outcomes[name]


@pytest.mark.slow
def test_a_fixed_part_of_the_fuzz_run_has_no_crash_and_executes_nothing() -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "fuzz.py"),
        "--files",
        "400",
        "--seed",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    figures = json.loads(done.stdout)
    assert figures["problems"] == []
    assert (done.returncode, figures["files"], figures["crashes"], figures["executions"]) == (
        0,
        400,
        0,
        0,
    )
    assert figures["read"] > 20  # the rest are damaged
    assert figures["largest_memory_mb"] < 64


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(INSTRUCTIONS), max_size=40))
def test_any_program_of_pickle_instructions_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, instructions: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "program.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"".join(instructions) + b".")
        archive.writestr("archive/data/0", bytes(32))
    check(path)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"PK\3\4", b"\x80\x02", b"\x10\0\0\0\0\0\0\0{", b"\x80\x04\x95"]),
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.bin"
    path.write_bytes(start + data)
    check(path)


def test_a_small_file_is_read_into_a_small_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = open

    class Counting:
        def __init__(self, *arguments: Any) -> None:
            self.file: Any = real(*arguments)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            self.file.close()

        def fileno(self) -> int:
            return int(self.file.fileno())

        def seek(self, place: int) -> None:
            self.file.seek(place)

        def read(self, size: int) -> bytes:
            sizes.append(size)
            return bytes(self.file.read(size))

    torch.save({"<x>": torch.ones(8)}, tmp_path / "x.bin")
    monkeypatch.setattr("builtins.open", Counting)
    read_embeddings(tmp_path / "x.bin")
    assert max(sizes) == (tmp_path / "x.bin").stat().st_size


# --- Paths ---


def test_paths_that_are_no_files_are_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("round", "dangling", "pipe", "socket"):
            with pytest.raises(EmbeddingFileError, match=r"does not exist|is not a regular file"):
                read_embeddings(tmp_path / name)
    with pytest.raises(EmbeddingFileError, match="is not a regular file"):
        read_embeddings("/dev/zero")


def test_a_name_that_is_no_utf_8_reads_and_is_shown_in_one_line(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9-\x1b[31m.bin"))
    path.write_bytes(b"")
    with pytest.raises(EmbeddingFileError) as caught:
        read_embeddings(path)
    assert str(caught.value).isprintable()
    torch.save({"string_to_param": {"*": torch.ones(8)}}, path)
    assert read_embeddings(path).tokens[0].token == "caf?-\x1b[31m"
    assert find_embedding_files(tmp_path) == [path]
