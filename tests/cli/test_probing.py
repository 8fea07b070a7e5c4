"""Every probe's command comes from one generator, so most tests here run for every probe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dti_geom.files import from_json
from dti_geom.models import open_encoders
from dti_geom.probes.registry import PROBES
from dti_geom.reporting.folder import read_result
from dti_geom.reporting.registry import result_type

# What each command is given beside --model and the learned token.
ARGUMENTS: dict[str, list[str]] = {
    "neighbors": ["cat"],
    "swap": ["--count", "2"],
    "explain": ["cat", "--words", "2"],
    "ask": ["cat", "--length", "2"],
    "harden": ["cat", "--words", "1", "--starts", "1", "--updates", "1"],
}


def arguments(name: str, model: Path, embedding: Path) -> list[str | Path]:
    learned: list[str | Path] = [embedding] if name == "angles" else ["--embedding", embedding]
    return [name, *ARGUMENTS.get(name, []), *learned, "--model", model]


@pytest.mark.parametrize("name", PROBES)
def test_json_holds_one_result_for_each_encoder(
    name: str, run_json: Callable[..., Any], sdxl_folder: Path, sana_folder: Path, learned: Path
) -> None:
    # CLIP cannot speak; Gemma can.
    folder = sana_folder if name == "ask" else sdxl_folder
    result = run_json(*arguments(name, folder, learned / "mine.bin"))
    assert result["probe"] == name
    measured = [encoder["name"] for encoder in result["encoders"]]
    if name == "angles":  # the token has the width of the first encoder only
        assert measured == ["text_encoder"]
        assert "text_encoder_2" in result["does_not_apply"][0]
    elif name == "ask":
        assert measured == ["text_encoder"]
    else:
        assert (measured, result["does_not_apply"]) == (["text_encoder", "text_encoder_2"], [])


@pytest.mark.parametrize("name", PROBES)
def test_tables_fit_80_columns_and_out_keeps_what_was_printed(
    name: str,
    run: Callable[..., Any],
    sd15_folder: Path,
    sana_folder: Path,
    learned: Path,
    tmp_path: Path,
    table_lines: Callable[[str], list[str]],
) -> None:
    folder = sana_folder if name == "ask" else sd15_folder
    asked = [*arguments(name, folder, learned / "mine.bin"), "--out", tmp_path / "kept"]
    done = run(*asked)
    assert done.returncode == 0, done.stderr
    assert max(map(len, table_lines(done.stdout))) <= 80
    assert "text_encoder" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "kept" / "index.html")
    files = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {"index.html", f"{name}.json"} <= files
    before = (tmp_path / "kept" / f"{name}.json").read_bytes()
    again = run(*asked)
    assert (again.returncode, again.stdout) == (1, "")
    assert "--overwrite" in again.stderr
    assert (tmp_path / "kept" / f"{name}.json").read_bytes() == before
    replaced = run(*asked, "--json", "--overwrite")
    assert read_result(tmp_path / "kept", name) == from_json(
        result_type(name), json.loads(replaced.stdout)
    )


@pytest.mark.parametrize("name", PROBES)
def test_an_embedding_of_another_width_is_refused_with_both_widths(
    name: str, run: Callable[..., Any], sd15_folder: Path, learned: Path
) -> None:
    done = run(*arguments(name, sd15_folder, learned / "hostile-step-500.bin"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "vectors of width 768, but the encoders of" in done.stderr


def test_norms_keeps_the_row_norms_of_every_encoder(
    run: Callable[..., Any], sd15_folder: Path, tmp_path: Path
) -> None:
    assert run("norms", "--model", sd15_folder, "--out", tmp_path / "kept").returncode == 0
    (encoder,) = open_encoders(str(sd15_folder))
    kept = np.load(tmp_path / "kept" / "text_encoder.npy")
    np.testing.assert_allclose(kept, encoder.token_table.norm(dim=-1).numpy(), rtol=1e-6)


def test_norms_places_a_learned_token(
    run_json: Callable[..., Any], sd15_folder: Path, learned: Path
) -> None:
    result = run_json("norms", "--model", sd15_folder, "--embedding", learned / "mine.bin")
    (encoder,) = result["encoders"]
    (mine,) = encoder["learned"]
    assert (mine["token"], mine["percentile"]) == ("<mine>", 100)
    assert mine["norm"] == pytest.approx(32**0.5)
    assert mine["inflation"] == pytest.approx(32**0.5 / encoder["norms"]["mean"])


def test_neighbors_lists_both_neighbourhoods_of_each_token(
    run_json: Callable[..., Any], sd15_folder: Path
) -> None:
    result = run_json("neighbors", "cat", "catx", "#7", "--model", sd15_folder, "-k", "4")
    queries = result["encoders"][0]["queries"]
    assert [query["query"] for query in queries][:2] == ["cat", "ca…"]
    assert len(queries) == 5
    for query in queries:
        similarities = [row["similarity"] for row in query["cosine"]]
        distances = [row["distance"] for row in query["euclidean"]]
        assert len(similarities) == len(distances) == 4
        assert similarities == sorted(similarities, reverse=True)
        assert distances == sorted(distances)


def test_a_learned_token_has_neighbours_like_any_other(
    run_json: Callable[..., Any], sd15_folder: Path, learned: Path
) -> None:
    mine = ("neighbors", "<mine>", "--model", sd15_folder, "--embedding", learned / "mine.bin")
    (query,) = run_json(*mine)["encoders"][0]["queries"]
    assert (query["query"], query["id"]) == ("<mine>", None)


def test_an_unknown_token_is_one_line_without_traceback(
    run: Callable[..., Any], sd15_folder: Path
) -> None:
    done = run("neighbors", "#9999", "--model", sd15_folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "rows #0 to #527" in done.stderr
    assert "Traceback" not in done.stderr


def test_pairs_and_categories_are_read_from_files(
    run: Callable[..., Any], run_json: Callable[..., Any], sd15_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "pairs.txt").write_text("cat dog\n\nhouse red\n")
    result = run_json("swap", "--model", sd15_folder, "--pairs", tmp_path / "pairs.txt")
    pairs = [(pair["first"], pair["second"]) for pair in result["encoders"][0]["pairs"]]
    assert pairs == [("cat", "dog"), ("house", "red")]
    (tmp_path / "words.txt").write_text("cat\ndog\ncatdog\n")
    done = run("swap", "--model", sd15_folder, "--category", tmp_path / "words.txt")
    assert "catdog" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"cat dog\ncat\n", "line 2: 1 words; two tokens were expected"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "is not a readable text file"),
        (b"cat unicorn\n", "'unicorn' is"),
    ],
)
def test_a_bad_pair_file_gets_one_line_that_says_what_is_wrong(
    text: bytes, message: str, run: Callable[..., Any], sd15_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "pairs.txt").write_bytes(text)
    done = run("swap", "--model", sd15_folder, "--pairs", tmp_path / "pairs.txt")
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


@pytest.mark.slow
def test_swap_paints_pairs_when_asked(run_json: Callable[..., Any], tmp_path: Path) -> None:
    asked = ("swap", "--model", "mini", "--count", "2", "--images", "1", "--out", tmp_path / "kept")
    result = run_json(*asked)
    assert len(result["painted"]["pairs"]) == 2  # one pair, at two stretches
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {
        "index.html",
        "painted.json",
        "swap.json",
    }


def test_a_model_without_positions_is_refused_with_the_reason(
    run: Callable[..., Any], sana_folder: Path
) -> None:
    done = run("attenuation", "--model", sana_folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "rotary positions: nothing is added" in done.stderr


def test_a_post_norm_model_is_refused_with_the_reason(
    run: Callable[..., Any], single_encoders: dict[str, Path]
) -> None:
    done = run("stagnation", "--model", single_encoders["bert"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "normalises the state after each addition" in done.stderr


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """Two files: one names the word it started from, one does not."""
    folder = tmp_path / "started"
    folder.mkdir()
    save_file({"<said>": torch.randn(1, 32)}, folder / "said.safetensors", {"init": "cat"})
    save_file({"<unsaid>": torch.randn(1, 32)}, folder / "unsaid.safetensors")
    return folder


def test_vectors_without_a_start_word_are_listed_or_given_one(
    run_json: Callable[..., Any], sd15_folder: Path, started: Path
) -> None:
    result = run_json("angles", started, "--model", sd15_folder)
    named, unnamed = result["encoders"][0]["learned"]
    assert (named["init"], unnamed["init"], unnamed["angle"]) == ("cat", None, None)
    result = run_json("angles", started, "--model", sd15_folder, "--init", "dog")
    assert [vector["init"] for vector in result["encoders"][0]["learned"]] == ["cat", "dog"]


def test_the_seed_changes_the_sampled_words_and_the_dtype_the_numbers(
    run_json: Callable[..., Any], sd15_folder: Path
) -> None:
    first = run_json("stagnation", "--model", sd15_folder)
    other = run_json("stagnation", "--model", sd15_folder, "--seed", "3", "--dtype", "bfloat16")
    assert first["encoders"][0]["dtype"] == "float32"
    assert other["encoders"][0]["dtype"] == "bfloat16"
    assert first["encoders"][0]["natural"] != other["encoders"][0]["natural"]
