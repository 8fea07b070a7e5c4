import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dti_geom.files import LearnedToken, read_embeddings, write_embeddings
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


def published_files(folder: Path) -> None:
    """An inflated token in every layout that is read."""
    small, large, wide = (3 * torch.ones(2, width) for width in (768, 1280, 4096))
    small[1] *= 0.14 / 3  # in distribution
    pickles = {
        "diffusers.bin": {"<x>": small},
        "numbered.bin": {"<x>": small[0], "<x>_1": small[1]},
        "two.bin": {"<x>": small, "<y>": small},
        "lists.bin": {"<x>": [small, large]},
        "list.bin": [{"<x>": small}, {"<x>": large}],
        "web.pt": {"string_to_param": {"*": small}, "name": "doll", "step": 3},
        "ldm.pt": {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(small)})},
        "emb.pt": {"emb_params": small},
    }
    for name, content in pickles.items():
        torch.save(content, folder / name)
    tensors = {
        "emp": {"emp_params": small, "emp_params_out": small.clone()},
        "sdxl": {"clip_l": small, "clip_g": large},
        "clip_g": {"clip_g": large},
        "sd3": {"clip_l": small, "clip_g": large, "t5xxl": wide},
        "flux": {"clip_l": small, "t5": wide},
        "pivotal": {"text_encoders_0": small, "text_encoders_1": large},
        "sana": {"gemma": 9 * torch.ones(2, 2304)},
        "bundle": {"bundle_emb.<x>.clip_l": small, "lora_te.lora_up.weight": large},
    }
    for name, content in tensors.items():
        save_file(content, folder / f"{name}.safetensors")
    write_embeddings(folder / "card.png", [LearnedToken("doll", None, small)], "card")


def test_every_command_that_inspect_advises_brings_its_token_into_distribution(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    published_files(tmp_path / "files")
    files = run_json("inspect", tmp_path / "files")
    assert len(files) == 17
    for number, file in enumerate(files):
        assert file["verdict"] == "inflated"
        assert f"`{file['command']}`" in file["advice"]
        command = shlex.split(file["command"])
        assert command[:2] == ["dti-geom", "convert"]
        out = tmp_path / "repaired" / str(number)
        done = run(*command[1:], "--out", out, cwd=tmp_path)
        assert done.returncode == 0, f"{file['command']}: {done.stderr}"
    repaired = run_json("inspect", tmp_path / "repaired")
    assert len({Path(after["path"]).relative_to(tmp_path).parts[1] for after in repaired}) == 17
    for after in repaired:
        known = [vector for vector in after["vectors"] if vector["inflation"] is not None]
        assert {vector["verdict"] for vector in known} <= {"in distribution"}


def test_the_command_for_all_files_at_once_repairs_the_inflated_alone(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    published_files(tmp_path / "files")
    ordinary = 0.4 * torch.nn.functional.normalize(torch.randn(1, 768), dim=1)
    torch.save({"<z>": ordinary}, tmp_path / "files" / "ordinary.bin")
    shown = run("inspect", tmp_path / "files", COLUMNS="1000").stdout
    command = shlex.split(shown.split("`")[1])
    assert command[:2] == ["dti-geom", "convert"]
    done = run(*command[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    repaired = run_json("inspect", tmp_path / "repaired")
    assert {file["verdict"] for file in repaired} == {"in distribution"}
    kept = tmp_path / "repaired" / "ordinary" / "learned_embeds.safetensors"
    assert torch.equal(read_embeddings(kept).tokens[0].vectors, ordinary)


def test_a_tensor_without_a_name_is_converted_under_a_given_one(run: Run, tmp_path: Path) -> None:
    torch.save(torch.ones(2, 768), tmp_path / "x.pt")
    done = run("inspect", tmp_path / "x.pt")
    assert "dti-geom convert FILE --to diffusers --token '<x>'" in done.stderr
    done = run("convert", "x.pt", "--to", "diffusers", "--token", "<x>", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "converted" / "x" / "learned_embeds.safetensors"
    assert read_embeddings(path).tokens[0].token == "<x>"


def test_one_unfit_file_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    torch.save({"<x>": torch.ones(768)}, tmp_path / "a" / "x.bin")
    torch.save({"<y>": torch.ones(768)}, tmp_path / "a" / "b" / "x.bin")
    save_file({"clip_g": torch.ones(1, 1280)}, tmp_path / "a" / "g.safetensors")
    done = run("convert", "a", "--to", "webui", cwd=tmp_path)
    assert done.returncode == 0
    assert "g.safetensors" in done.stderr
    assert "Use comfyui" in done.stderr
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("converted/**/*.pt"))
    assert found == ["converted/b/x.pt", "converted/x.pt"]
    assert run("convert", "a/g.safetensors", "--to", "webui", cwd=tmp_path).returncode == 1


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
