from collections.abc import Callable
from pathlib import Path

from dti_geom.evaluation.interpolation import Interpolation
from dti_geom.files import from_json, load_result
from warm import Run, RunJson


def test_a_square_of_words_leaves_result_page_grid_film_and_pictures(
    run: Run, run_json: RunJson, sd15_pipeline: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ends = ("cat", "dog", "red", "house")
    small = ("--points", "2", "--steps", "1", "--dtype", "float32")
    options = ("--model", sd15_pipeline, "--method", "slerp", *small, "--out", out)
    asked = ("interpolate", *ends, *options)
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


def test_the_table_fits_80_columns_and_names_every_way(
    run: Run, sdxl_pipeline: Path, tmp_path: Path, table_lines: Callable[[str], list[str]]
) -> None:
    small = ("--points", "3", "--steps", "1", "--dtype", "float32")
    done = run("interpolate", "cat", "dog", "--model", sdxl_pipeline, *small, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert max(map(len, table_lines(done.stdout))) <= 80
    for part in ("slerp", "lerp", "nlerp", "text_encoder_2", "turning speed", "nearest word"):
        assert part in done.stdout
