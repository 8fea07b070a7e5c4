from dti_geom.evaluation.interpolation import Interpolation
from dti_geom.files import from_json, load_result


def test_a_square_of_words_leaves_result_page_grid_film_and_pictures(
    run, run_json, sd15_pipeline, tmp_path
):
    out = tmp_path / "out"
    asked = (
        "interpolate",
        "cat",
        "dog",
        "red",
        "house",
        "--model",
        sd15_pipeline,
        "--points",
        "2",
        "--steps",
        "1",
    )
    asked += ("--method", "slerp", "--dtype", "float32", "--out", out)
    result = from_json(Interpolation, run_json(*asked))
    assert (result.ends, result.encoder) == (("cat", "dog", "red", "house"), None)
    kept = load_result(out / "interpolation.json", Interpolation)
    files = {file for path in result.paths for strip in path.strips for file in strip.files}
    assert set(kept.thumbnails) == files == {path.name for path in (out / "pictures").glob("*.png")}
    names = {
        "interpolation.json",
        "interpolation.png",
        "interpolation.webp",
        "index.html",
        "pictures",
    }
    assert {path.name for path in out.iterdir()} == names
    again = run(*asked)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr


def test_the_table_fits_80_columns_and_names_every_way(run, sdxl_pipeline, tmp_path, table_lines):
    done = run(
        *(
            "interpolate",
            "cat",
            "dog",
            "--model",
            sdxl_pipeline,
            "--points",
            "3",
            "--steps",
            "1",
            "--out",
            tmp_path,
        ),
        *("--dtype", "float32"),
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, table_lines(done.stdout))) <= 80
    for part in ("slerp", "lerp", "nlerp", "text_encoder_2", "turning speed", "nearest word"):
        assert part in done.stdout
