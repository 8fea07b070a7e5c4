from pathlib import Path

import pytest

from dti_geom.errors import DtiGeomError
from dti_geom.probes.inputs import read_pairs, read_words


def test_blank_lines_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("cat\n\n  dog \n", encoding="utf-8")
    assert read_words(tmp_path / "words.txt") == ("cat", "dog")


def test_a_pair_is_two_words_and_the_line_of_another_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pairs.txt"
    file.write_text("cat dog\n\n#1 #2\n", encoding="utf-8")
    assert read_pairs(file) == (("cat", "dog"), ("#1", "#2"))
    file.write_text("cat dog\n\na b c\n", encoding="utf-8")
    with pytest.raises(DtiGeomError, match=r"pairs\.txt, line 3: 3 words"):
        read_pairs(file)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_an_empty_or_unreadable_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(DtiGeomError, match=r"words\.txt is (empty|not a readable text file)"):
        read_words(tmp_path / "words.txt")
    with pytest.raises(DtiGeomError, match="not a readable text file"):
        read_words(tmp_path / "none.txt")
