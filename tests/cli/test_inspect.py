import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from warm import Run, RunJson


def test_json_is_a_list_of_files_with_their_vectors(run_json: RunJson, learned: Path) -> None:
    hostile, mine = run_json("inspect", learned)
    assert {"path", "format", "vectors"} <= set(mine)
    assert (hostile["step"], mine["step"]) == (500, None)
    (vector,) = hostile["vectors"]
    assert {"token", "tower", "index", "dim", "norm", "inflation"} <= set(vector)
    assert (vector["token"], vector["dim"]) == ("<script>alert(1)</script>", 768)
    assert vector["norm"] == pytest.approx(0.5 * 768**0.5)
    assert vector["inflation"] == pytest.approx(0.5 * 768**0.5 / 0.3870)
    assert mine["vectors"][0]["inflation"] is None


def test_a_model_at_hand_is_the_reference(
    run_json: RunJson, learned: Path, sd15_folder: Path
) -> None:
    (mine,) = run_json("inspect", learned / "mine.bin", "--model", sd15_folder)
    assert mine["vectors"][0]["reference"] == f"text_encoder of {sd15_folder}"
    mean = run_json("norms", "--model", sd15_folder)["encoders"][0]["norms"]["mean"]
    assert mine["vectors"][0]["inflation"] == pytest.approx(32**0.5 / mean)


def test_a_bad_file_in_a_folder_is_told_and_the_rest_is_shown(
    run: Run, learned: Path, tmp_path: Path
) -> None:
    (tmp_path / "good.bin").write_bytes((learned / "mine.bin").read_bytes())
    (tmp_path / "bad.pt").write_bytes(b"<html>not found</html>")
    done = run("inspect", tmp_path, "--json")
    assert done.returncode == 1
    assert [file["vectors"][0]["token"] for file in json.loads(done.stdout)] == ["<mine>"]
    assert "bad.pt" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_file_that_is_no_embedding_says_what_it_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "page.bin").write_bytes(b"<html>not found</html>")
    done = run("inspect", tmp_path / "page.bin")
    assert (done.returncode, done.stdout) == (1, "")
    assert "page.bin" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_table_names_the_reference_or_what_to_do(
    run: Run, learned: Path, flowing: Callable[[str], str], table_lines: Callable[[str], list[str]]
) -> None:
    done = run("inspect", learned, "--vectors", COLUMNS="120")
    text = flowing(done.stdout)
    assert "768 CLIP ViT-L/14 published mean of CLIP ViT-L/14" in text
    assert "32 not known here" in text
    assert "width 32" in text
    assert "--model" in text
    assert "<script>alert(1)</script>" in text
    assert max(map(len, table_lines(run("inspect", learned).stdout))) <= 80


def test_each_file_gets_a_verdict_and_a_model_shows_what_is_near(
    run: Run, run_json: RunJson, learned: Path, sd15_folder: Path, flowing: Callable[[str], str]
) -> None:
    (mine,) = run_json("inspect", learned / "mine.bin", "--model", sd15_folder)
    (vector,) = mine["vectors"]
    assert (mine["verdict"], vector["percentile"], len(vector["nearest"])) == ("inflated", 100, 3)
    options = ("--model", sd15_folder, "--vectors")
    shown = run("inspect", learned / "mine.bin", *options, COLUMNS="600").stdout
    assert "Among the tokens" in shown
    assert mine["advice"] in flowing(shown)
    alone = run("inspect", learned / "mine.bin", COLUMNS="600").stdout
    assert "name the model with --model" in flowing(alone)


def test_checkpoints_show_how_far_they_turned(run: Run, tmp_path: Path) -> None:
    for step, vector in ((100, [1.0, 0.0]), (200, [1.0, 1.0]), (300, [0.0, 1.0])):
        torch.save({"<x>": torch.tensor(vector)}, tmp_path / f"step-{step}.bin")
    lines = run("inspect", tmp_path, "--vectors").stdout.splitlines()
    rows = [line.split()[:5] for line in lines if line.startswith("<x>")]
    assert ["<x>", "0", "200", "45°", "45°"] in rows
    assert ["<x>", "0", "300", "90°", "45°"] in rows


def test_out_keeps_the_result_and_its_page(run: Run, learned: Path, tmp_path: Path) -> None:
    done = run("inspect", learned, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "index.html")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"inspection.json", "index.html"}


def test_a_model_that_fits_no_file_is_refused(run: Run, learned: Path, sd15_folder: Path) -> None:
    done = run("inspect", learned / "hostile-step-500.bin", "--model", sd15_folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "width 768" in done.stderr
    assert "--model" in done.stderr


def test_three_hundred_files_fit_one_screen(run: Run, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for place in range(300):
        vectors = torch.randn(1 + place % 29, 768, generator=generator) * (0.01 + place / 9000)
        torch.save({"<x>": vectors}, tmp_path / f"embedding-{place}.bin")
    done = run("inspect", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) < 60
    assert "280 more tokens" in done.stdout
    assert len(run("inspect", tmp_path, "--all").stdout.splitlines()) > 300


def test_a_file_says_what_to_type(run: Run, tmp_path: Path) -> None:
    torch.save({"<x>": torch.ones(768)}, tmp_path / "doll.bin")
    text = run("inspect", tmp_path / "doll.bin").stdout
    assert "embedding:doll" in text
