import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dti_geom.evaluation.pictures import Pictures
from dti_geom.files import from_json
from warm import Run, RunJson


@pytest.mark.slow
def test_prompts_tokens_and_seeds_become_pictures_and_a_second_call_paints_nothing(
    run: Run, run_json: RunJson, sd15_pipeline: Path, tmp_path: Path, flowing: Callable[[str], str]
) -> None:
    for name in ("a", "b"):
        save_file({"<x>": torch.full((32,), 0.1 * ord(name))}, tmp_path / f"{name}.safetensors")
    (tmp_path / "prompts.txt").write_text("a photo of a {}\n\na dog\n")
    asked = (
        *(
            "generate",
            "--model",
            sd15_pipeline,
            "--prompts",
            tmp_path / "prompts.txt",
            "--prompt",
            "red {}",
        ),
        *(
            "--embedding",
            f"<a>={tmp_path / 'a.safetensors'}",
            "--embedding",
            f"<b>={tmp_path / 'b.safetensors'}",
        ),
        *("--seeds", "2", "--steps", "1", "--dtype", "float32", "--out", tmp_path / "out"),
    )
    result = from_json(Pictures, run_json(*asked))
    assert [(picture.prompt, picture.seed) for picture in result.pictures] == [
        (prompt, seed)
        for prompt in ("red <a>", "red <b>", "a photo of a <a>", "a photo of a <b>", "a dog")
        for seed in (0, 1)
    ]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    files = {picture.file for picture in result.pictures}
    assert names == files | {"index.jsonl", "sheet.png", "pictures.html"}
    again = run(*asked)
    assert again.returncode == 0, again.stderr
    assert "10 pictures, 0 of them painted" in flowing(again.stdout)
    left = [str(tmp_path / "out" / name) for name in ("sheet.png", "pictures.html")]
    assert again.stdout.splitlines()[-2:] == left


def test_a_preview_needs_nothing_but_the_token_file(
    run_json: RunJson, sd15_pipeline: Path, tmp_path: Path
) -> None:
    settings = {
        "prompts": ["a <x>"],
        "seeds": [3, 1],
        "steps": 1,
        "guidance": 2.0,
        "size": 64,
        "dtype": "float32",
    }
    metadata = {"base_model": str(sd15_pipeline), "preview": json.dumps(settings)}
    save_file({"<x>": torch.full((1, 32), 0.1)}, tmp_path / "learned_embeds.safetensors", metadata)
    result = run_json(
        "generate", "--preview", tmp_path / "learned_embeds.safetensors", "--out", tmp_path / "out"
    )
    assert [(picture["prompt"], picture["seed"]) for picture in result["pictures"]] == [
        ("a <x>", 3),
        ("a <x>", 1),
    ]
    settings = {"steps": 1, "guidance": 2.0, "size": 64, "dtype": "float32", "reward": None}
    assert result["settings"] == settings
    assert result["model"] == str(sd15_pipeline)


def test_a_preview_of_sana_follows_the_instruction_if_the_run_did(
    run_json: RunJson, sana_pipeline: Path, tmp_path: Path
) -> None:
    files = []
    for instruction in (None, True, False):
        settings = {
            "prompts": ["a <x>"],
            "seeds": [3],
            "steps": 1,
            "guidance": 2.0,
            "size": 64,
            "dtype": "float32",
        }
        settings |= {} if instruction is None else {"instruction": instruction}
        metadata = {"base_model": str(sana_pipeline), "preview": json.dumps(settings)}
        token = tmp_path / "learned_embeds.safetensors"
        save_file({"<x>": torch.full((1, 32), 0.1)}, token, metadata)
        result = run_json("generate", "--preview", token, "--out", tmp_path / "out")
        files.append(result["pictures"][0]["file"])
    assert files[0] == files[1] != files[2]
    with_it, without = ((tmp_path / "out" / file).read_bytes() for file in files[1:])
    assert with_it != without


def test_what_contradicts_itself_is_one_red_line(run: Run, tmp_path: Path) -> None:
    both = run(
        "generate", "--prompt", "a dog", "--seed", "1", "--seeds", "2", "--out", tmp_path / "out"
    )
    assert (both.returncode, both.stdout) == (1, "")
    assert "--seed and --seeds" in both.stderr
    assert not (tmp_path / "out").exists()


def test_prompts_that_ignore_the_embedding_are_named(
    run: Run, sd15_pipeline: Path, tmp_path: Path
) -> None:
    save_file({"<x>": torch.full((32,), 0.1)}, tmp_path / "x.safetensors")
    asked = (
        *("generate", "--model", sd15_pipeline, "--embedding", tmp_path / "x.safetensors"),
        *("--steps", "1", "--dtype", "float32", "--out", tmp_path / "out"),
    )
    alone = run(*asked, "--prompt", "a dog")
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "no prompt shows <x>" in alone.stderr
    misnamed = run(*asked, "--prompt", "a <my-dog> and {}")
    assert misnamed.returncode == 1
    assert "names <my-dog>, which is no token here. Tokens here: <x>" in misnamed.stderr
    assert not (tmp_path / "out").exists()
    beside = run(*asked, "--prompt", "a dog", "--prompt", "a {}")
    assert beside.returncode == 0, beside.stderr
    assert "painted without <x>: a dog" in beside.stderr
