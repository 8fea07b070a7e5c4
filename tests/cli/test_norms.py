import json

import numpy as np
import pytest

from dti_geom.files import load_result
from dti_geom.models import open_encoders


def test_json_has_the_promised_fields_for_every_tower(run_json, sdxl_folder, learned):
    result = run_json("norms", "--model", sdxl_folder, "--embedding", learned / "mine.bin")
    assert set(result) == {"model", "encoders"}
    assert [encoder["name"] for encoder in result["encoders"]] == ["text_encoder", "text_encoder_2"]
    first, second = result["encoders"]
    assert {
        "name",
        "vocab_size",
        "dim",
        "norms",
        "longest",
        "shortest",
        "special",
        "learned",
    } <= set(first)
    assert set(first["norms"]) == {"count", "zero_rows", "mean", "std", "min", "max", "percentiles"}
    assert (first["vocab_size"], first["dim"], second["dim"]) == (528, 32, 48)
    assert len(first["longest"]) == len(first["shortest"]) == 10
    assert {one["token"] for one in first["special"]} == {"<|startoftext|>", "<|endoftext|>"}
    (mine,) = first["learned"]
    assert (mine["token"], mine["percentile"]) == ("<mine>", 100)
    assert mine["norm"] == pytest.approx(32**0.5)
    assert mine["inflation"] == pytest.approx(32**0.5 / first["norms"]["mean"])
    assert second["learned"] == []


def test_the_table_fits_80_columns_and_names_what_it_shows(
    run, sd15_folder, learned, table_lines, flowing
):
    done = run("norms", "--model", sd15_folder, "--embedding", learned / "mine.bin")
    assert done.returncode == 0, done.stderr
    assert max(map(len, table_lines(done.stdout))) <= 80
    for part in (
        "text_encoder",
        "528 tokens of width 32",
        "zero rows",
        "Special tokens",
        "<|endoftext|>",
        "Longest",
        "<mine>",
    ):
        assert part in flowing(done.stdout)


def test_out_keeps_result_arrays_and_page_and_overwrites_only_when_asked(
    run, sd15_folder, tmp_path
):
    out = tmp_path / "kept"
    assert run("norms", "--model", sd15_folder, "--out", out).returncode == 0
    assert {path.name for path in out.iterdir()} == {"index.html", "norms.json", "text_encoder.npy"}
    (encoder,) = open_encoders(str(sd15_folder))
    np.testing.assert_allclose(
        np.load(out / "text_encoder.npy"), encoder.token_table.norm(dim=-1).numpy(), rtol=1e-6
    )
    before = (out / "norms.json").read_bytes()
    again = run("norms", "--model", sd15_folder, "--out", out)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
    assert (out / "norms.json").read_bytes() == before
    assert run("norms", "--model", sd15_folder, "--out", out, "--overwrite").returncode == 0


def test_an_embedding_of_another_width_is_refused_with_both_widths(run, sd15_folder, learned):
    done = run("norms", "--model", sd15_folder, "--embedding", learned / "hostile-step-500.bin")
    assert done.returncode == 1
    assert "vectors of width 768, but the encoders of" in done.stderr
    assert done.stdout == ""


def test_the_kept_result_is_read_back(run, sd15_folder, tmp_path):
    from dti_geom.reporting import Report

    assert run("norms", "--model", sd15_folder, "--out", tmp_path / "kept").returncode == 0
    report = load_result(tmp_path / "kept" / "norms.json", Report)
    printed = run("norms", "--model", sd15_folder, "--json").stdout
    assert report.norms is not None
    assert (
        json.loads(printed)["encoders"][0]["norms"]["mean"] == report.norms.encoders[0].norms.mean
    )
