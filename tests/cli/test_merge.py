from pathlib import Path

import pytest

from dti_geom.files import read_embeddings
from warm import Run, RunJson


def test_json_tells_the_blend_and_the_file_holds_it(
    run_json: RunJson, learned: Path, sd15_folder: Path, tmp_path: Path
) -> None:
    options = ("--embedding", learned / "mine.bin", "--model", sd15_folder, "--token", "<new>")
    result = run_json("merge", "0.5*<mine> + 0.5*cat", *options, "--out", tmp_path / "new")
    assert [term["name"] for term in result["terms"]] == ["<mine>", "cat"]
    (vector,) = result["vectors"]
    assert vector["similarities"][0] == pytest.approx(vector["similarities"][1], abs=1e-6)
    (token,) = read_embeddings(result["files"][0]).tokens
    assert token.token == "<new>"
    assert float(token.vectors.norm()) == pytest.approx(vector["norm"])


def test_the_table_shows_each_term(run: Run, sd15_folder: Path, tmp_path: Path) -> None:
    done = run("merge", "cat + dog", "--model", sd15_folder, "--out", "new", cwd=tmp_path)
    assert "<merged> = cat + dog, by slerp" in done.stdout
    assert done.stdout.splitlines()[-1] == "new/learned_embeds.safetensors"


@pytest.mark.parametrize(
    ("blend", "said"), [("cat +* dog", "is no blend"), ("cat - dog", "--method lerp")]
)
def test_a_wrong_blend_is_one_line_and_leaves_nothing(
    run: Run, sd15_folder: Path, tmp_path: Path, blend: str, said: str
) -> None:
    done = run("merge", blend, "--model", sd15_folder, "--out", "new", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert not (tmp_path / "new").exists()
