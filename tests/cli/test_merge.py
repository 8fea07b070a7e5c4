from pathlib import Path

import pytest
import torch

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


def test_a_blend_may_begin_with_a_minus(run: Run, sd15_folder: Path, tmp_path: Path) -> None:
    for place, blend in enumerate(("-0.5*cat + dog", "-cat + 2*dog", "-cat + dog", "-.5*cat+dog")):
        done = run(
            "merge", blend, "--model", sd15_folder, "--method", "lerp", "--out", str(place),
            cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"<merged> = {blend}, by lerp" in done.stdout
    assert run("merge", "cat", "-x").returncode == 2


def test_files_with_the_same_token_are_listed_and_not_chosen_from(
    run: Run, sd15_folder: Path, tmp_path: Path
) -> None:
    for name, place in (("a.bin", 0), ("b.bin", 1)):
        torch.save({"<x>": torch.eye(32)[place]}, tmp_path / name)
    options = ("--model", sd15_folder, "-e", ".", "--out", "new")
    done = run("merge", "<x>", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert "a.bin:<x>" in done.stderr
    assert "b.bin:<x>" in done.stderr
    done = run("merge", "b.bin:<x>", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (token,) = read_embeddings(tmp_path / "new" / "learned_embeds.safetensors").tokens
    assert token.vectors[0].argmax() == 1
