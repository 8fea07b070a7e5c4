from dti_geom.files import load_result


def test_json_has_the_promised_fields_for_every_tower(run_json, sdxl_folder, learned):
    result = run_json("attention", "--model", sdxl_folder, "--embedding", learned / "mine.bin")
    assert set(result) == {"model", "encoders"}
    first, second = result["encoders"]
    assert set(first) == {
        "name", "mean_norm", "contexts", "causal", "uniform", "most_entropy", "curves", "mapped", "place", "maps"
    }  # fmt: skip
    assert set(first["curves"][0]) == {
        "token",
        "directions",
        "inflation",
        "scales",
        "heads",
        "sensitivity",
    }
    assert set(first["curves"][0]["heads"][0]) == {"layer", "head", "received", "itself", "entropy"}
    assert [curves["token"] for curves in first["curves"]] == [None, "<mine>"]
    assert [curves["token"] for curves in second["curves"]] == [None]


def test_the_table_fits_80_columns_and_out_keeps_result_and_page(
    run, sd15_folder, learned, tmp_path, table_lines, flowing
):
    from dti_geom.reporting import Report

    done = run(
        "attention", "--model", sd15_folder, "-e", learned / "mine.bin", "--out", tmp_path / "kept"
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, table_lines(done.stdout))) <= 80
    for part in ("6 prompts, causal", "context sensitivity", "×32", "<mine>"):
        assert part in flowing(done.stdout)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"index.html", "attention.json"}
    assert load_result(tmp_path / "kept" / "attention.json", Report).attention is not None
