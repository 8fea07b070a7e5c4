"""YAML files are read as plain values, or refused before anything large is made of them."""

import os
import tracemalloc
from pathlib import Path

import pytest

from dti_geom.errors import DecodingError
from dti_geom.files.yaml_files import read_yaml


def levels(count: int, entry: str) -> str:
    """Anchors a0, a1, …, each of which holds nine aliases of the one before."""
    lines = ["a0: &a0 {x: lol}"]
    for number in range(1, count):
        aliases = ", ".join([f"*a{number - 1}"] * 9)
        lines.append(f"a{number}: &a{number} " + entry.format(aliases))
    return "\n".join(lines)


BOMBS = {
    "aliases": levels(10, "[{}]"),
    "merged mappings": levels(10, "{{<<: [{}]}}"),
    "a chain of aliases": "a0: &a0 [x]\n"
    + "\n".join(f"a{number}: &a{number} [*a{number - 1}]" for number in range(1, 8000)),
    "itself": "a: &a [*a]",
    "itself as a key": "&a {*a : 1}",
    "deep": "[" * 50_000,
    "one text often": f"a: &a {'x' * 1900}\nb: [{', '.join(['*a'] * 5000)}]",
    "a long text": "a: " + "x" * 100_000,
    "a long number": "a: " + "9" * 5000,
    "a long hexadecimal number": "a: 0x" + "f" * 200_000,
    "a large file": "# " + "x" * 2**18,
    "no date": "a: 2001-99-99",
    "a long tag": "!" + "x" * 100_000 + " 1",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_stands_for_too_much_is_refused_in_one_short_line(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(DecodingError) as caught:
            read_yaml(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{path} is not a readable YAML file: ")
    assert len(message) < len(str(path)) + 500


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(DecodingError, match="is not a regular file"):
        read_yaml(tmp_path / "pipe.yaml")
    with pytest.raises(DecodingError, match="there is no such file"):
        read_yaml(tmp_path / "nowhere.yaml")


def test_aliases_and_merges_of_an_honest_file_mean_what_yaml_says(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1, y: [2, 3]}\nb: *a\nc: {<<: *a, x: 4}\nd: {}\ne:\n")
    shared = {"x": 1, "y": [2, 3]}
    assert read_yaml(path) == {
        "a": shared,
        "b": shared,
        "c": shared | {"x": 4},
        "d": {},
        "e": None,
    }
    path.write_text("")
    assert read_yaml(path) is None
