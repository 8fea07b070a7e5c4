import json

from dti_geom.files import from_json, load_result


def test_json_has_the_promised_fields_for_every_tower(run_json, sdxl_folder, learned):
    result = run_json("stagnation", "--model", sdxl_folder, "--embedding", learned / "mine.bin")
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
        "prompts",
        "reference_norm",
        "bounds",
        "total_bound",
        "natural",
        "scales",
        "learned",
    }
    assert set(first["natural"]) == {"scale", "start_norm", "smallest_start_norm", "branches"}
    assert set(first["natural"]["branches"][0]) == {
        "block",
        "kind",
        "turn",
        "relative_update",
        "update",
        "largest_update",
        "angle",
        "largest_angle",
        "bound",
        "tightness",
    }
    assert len(first["bounds"]) == len(first["natural"]["branches"]) == 4
    assert [one["token"] for one in first["learned"]] == ["<mine>"]
    assert len(first["learned"][0]["angles"]) == len(first["scales"])
    assert second["learned"] == []


def test_the_tables_fit_80_columns_and_show_the_bound(
    run, sd15_folder, learned, table_lines, flowing
):
    done = run(
        "stagnation",
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
        "words in 5 prompts",
        "×0.25",
        "×8192",
        "÷ bound",
        "attention",
        "mlp",
        "<mine>",
    ):
        assert part in flowing(done.stdout)


def test_out_keeps_result_and_page_and_overwrites_only_when_asked(run, sana_folder, tmp_path):
    from dti_geom.probes import Stagnation
    from dti_geom.reporting import Report

    out = tmp_path / "kept"
    done = run("stagnation", "--model", sana_folder, "--out", out, "--json", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"index.html", "stagnation.json"}
    kept = load_result(out / "stagnation.json", Report)
    assert kept.stagnation == from_json(Stagnation, json.loads(done.stdout))
    again = run("stagnation", "--model", sana_folder, "--out", out)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr


def test_a_post_norm_model_is_told_why_with_exit_code_1(run, single_encoders):
    done = run("stagnation", "--model", single_encoders["bert"])
    assert done.returncode == 1
    assert "normalises the state after each addition" in done.stderr
    assert done.stdout == ""
