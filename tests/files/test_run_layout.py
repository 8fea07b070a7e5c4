from pathlib import Path

import pytest

from dti_geom.files.run_layout import (
    checkpoint_folder,
    is_learned_name,
    learned_in,
    learned_in_run,
    learned_name,
    state_file,
    state_files,
    token_folder,
    tower_of,
)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_towers_are_found_in_order_under_the_names_they_are_written_with(tmp_path: Path) -> None:
    second, first = (touch(tmp_path / learned_name(tower)) for tower in (2, 1))
    touch(tmp_path / "other.safetensors")
    assert tower_of(second) == (first, 2)
    assert tower_of(first) == (first, 1)
    assert learned_in(tmp_path) == [first, second]
    assert is_learned_name(first)
    assert is_learned_name(second)
    assert not is_learned_name(tmp_path / "other.safetensors")


@pytest.mark.parametrize("tokens", [["<x>"], ["<x>", "<y>", "<<>>"]])
def test_what_a_run_ended_with_is_found_and_its_checkpoints_are_not(
    tmp_path: Path, tokens: list[str]
) -> None:
    files = [touch(token_folder(tmp_path, token, tokens) / learned_name()) for token in tokens]
    touch(checkpoint_folder(tmp_path, 100) / learned_name())
    assert learned_in_run(tmp_path) == files
    assert len({file.parent for file in files}) == len(tokens)


def test_the_latest_state_is_the_last(tmp_path: Path) -> None:
    later, earlier = (touch(state_file(tmp_path, step)) for step in (1000, 200))
    assert state_files(tmp_path) == [earlier, later]
    assert state_files(tmp_path / "nowhere") == []
