import json

import pytest

from dti_geom.files import from_json, load_result


def test_json_has_the_promised_fields_for_every_tower(run_json, sdxl_folder, learned):
    result = run_json("attenuation", "--model", sdxl_folder, "--embedding", learned / "mine.bin")
    assert set(result) == {"model", "encoders", "does_not_apply"}
    first, second = result["encoders"]
    assert (first["name"], second["name"], result["does_not_apply"]) == (
        "text_encoder",
        "text_encoder_2",
        [],
    )
    assert set(first) == {
        "name",
        "dtype",
        "words",
        "positions",
        "reference_norm",
        "position_norm",
        "gain",
        "chance",
        "natural",
        "scales",
        "fitted",
        "share_slope",
        "distance_slope",
        "learned",
    }
    assert set(first["natural"]) == {
        "scale",
        "position_share",
        "word_share",
        "cosine",
        "logit_share",
        "accuracy",
        "accuracy_by_position",
        "distance",
        "largest_distance",
        "bound",
    }
    assert (first["dtype"], first["positions"], first["chance"]) == (
        "float32",
        12,
        pytest.approx(1 / 12),
    )
    scales = [one["scale"] for one in first["scales"]]
    assert scales[-1] / scales[0] >= 1000  # three decades
    assert [one["token"] for one in first["learned"]] == ["<mine>"]
    assert second["learned"] == []


def test_the_tables_fit_80_columns_and_say_what_theory_says(
    run, sd15_folder, learned, table_lines, flowing
):
    done = run(
        "attenuation",
        "--model",
        sd15_folder,
        "--embedding",
        learned / "mine.bin",
        "--dtype",
        "bfloat16",
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, table_lines(done.stdout))) <= 80
    for part in (
        "text_encoder",
        "12 positions",
        "chance is 0.08333",
        "×0.0625",
        "×256",
        "No slope",
        "<mine>",
    ):
        assert part in flowing(done.stdout)


def test_out_keeps_result_and_page_and_overwrites_only_when_asked(run, sd15_folder, tmp_path):
    from dti_geom.probes import Attenuation
    from dti_geom.reporting import Report

    out = tmp_path / "kept"
    done = run("attenuation", "--model", sd15_folder, "--out", out, "--json", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"index.html", "attenuation.json"}
    kept = load_result(out / "attenuation.json", Report)
    assert kept.attenuation == from_json(Attenuation, json.loads(done.stdout))
    again = run("attenuation", "--model", sd15_folder, "--out", out)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr


def test_a_model_without_positions_at_its_input_is_told_why_with_exit_code_1(run, sana_folder):
    done = run("attenuation", "--model", sana_folder)
    assert done.returncode == 1
    assert "rotary positions: nothing is added" in done.stderr
    assert done.stdout == ""


def test_an_embedding_of_another_width_is_refused(run, sd15_folder, learned):
    done = run(
        "attenuation", "--model", sd15_folder, "--embedding", learned / "hostile-step-500.bin"
    )
    assert done.returncode == 1
    assert "vectors of width 768" in done.stderr
