from pathlib import Path

import pytest

from dti_geom.files import read_embeddings
from warm import Run, RunJson


def test_json_tells_the_files_and_the_norms(
    run_json: RunJson, learned: Path, tmp_path: Path
) -> None:
    (result,) = run_json(
        "convert", learned / "mine.bin", "--to", "webui", "--rescale", "0.4", "--out", tmp_path
    )
    assert result["files"] == [str(tmp_path / "mine.pt")]
    (vector,) = result["vectors"]
    assert (vector["norm_before"], vector["norm_after"]) == pytest.approx((32**0.5, 0.4))
    assert read_embeddings(tmp_path / "mine.pt").tokens[0].token == "<mine>"


def test_a_rule_takes_the_model_it_names(
    run_json: RunJson, learned: Path, sd15_folder: Path, tmp_path: Path
) -> None:
    mean = run_json("norms", "--model", sd15_folder)["encoders"][0]["norms"]["mean"]
    rule = ("--rescale", "mean", "--model", sd15_folder)
    (result,) = run_json(
        "convert", learned / "mine.bin", "--to", "diffusers", *rule, "--out", tmp_path
    )
    assert result["vectors"][0]["norm_after"] == pytest.approx(mean)


def test_the_command_that_inspect_advises_brings_a_token_into_distribution(
    run: Run, run_json: RunJson, learned: Path, tmp_path: Path
) -> None:
    (file,) = run_json("inspect", learned / "hostile-step-500.bin")
    assert file["verdict"] == "inflated"
    command = file["advice"].split("`")[1].split()
    assert command[:2] == ["dti-geom", "convert"]
    done = run(*command[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (after,) = run_json("inspect", tmp_path / "converted")
    assert after["verdict"] == "in distribution"
    assert after["vectors"][0]["inflation"] == pytest.approx(1, rel=1e-3)


def test_errors_are_one_line_and_leave_nothing_behind(
    run: Run, learned: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    wrong = {
        "needs the vocabulary": ("--to", "webui", "--rescale", "mean"),
        "SDXL has two": ("--to", "sdxl"),
        "is no magnitude": ("--to", "webui", "--rescale", "big"),
    }
    for said, options in wrong.items():
        done = run("convert", learned / "mine.bin", *options, "--out", out)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert run("convert", learned / "mine.bin", "--to", "comfy").returncode == 2
    assert not out.exists()


def test_the_table_shows_both_norms_and_the_file(run: Run, learned: Path, tmp_path: Path) -> None:
    done = run(
        "convert",
        learned / "mine.bin",
        "--to",
        "kohya",
        "--rescale",
        "0.4",
        "--out",
        "new",
        cwd=tmp_path,
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["5.657", "0.4"] in [row[-2:] for row in rows]
    assert done.stdout.splitlines()[-1] == str(Path("new", "mine.safetensors"))
    again = run("convert", learned / "mine.bin", "--to", "kohya", "--out", "new", cwd=tmp_path)
    assert again.returncode == 1
    assert "pass --overwrite" in again.stderr
