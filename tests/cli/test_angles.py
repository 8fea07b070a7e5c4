import pytest
import torch
from safetensors.torch import save_file

from dti_geom.files import load_result


@pytest.fixture
def started(tmp_path):
    """Two files: one that says what it started from, one that does not."""
    folder = tmp_path / "started"
    folder.mkdir()
    save_file({"<said>": torch.randn(1, 32)}, folder / "said.safetensors", {"init": "cat"})
    save_file({"<unsaid>": torch.randn(1, 32)}, folder / "unsaid.safetensors")
    return folder


def test_json_has_the_promised_fields_and_lists_vectors_without_an_initialiser(
    run_json, sd15_folder, started
):
    result = run_json("angles", started, "--model", sd15_folder)
    assert set(result) == {"model", "encoders", "does_not_apply"}
    (encoder,) = result["encoders"]
    assert set(encoder) == {"name", "words", "between_words", "to_nearest", "learned"}
    said, unsaid = encoder["learned"]
    assert set(said) == {
        "token", "index", "path", "norm", "init", "angle", "unknown", "nearest", "nearest_id", "nearest_angle"
    }  # fmt: skip
    assert (said["init"], unsaid["init"], unsaid["angle"]) == ("cat", None, None)


def test_init_gives_the_word_of_those_that_do_not_say_it(run_json, sd15_folder, started):
    result = run_json("angles", started, "--model", sd15_folder, "--init", "dog")
    assert [one["init"] for one in result["encoders"][0]["learned"]] == ["cat", "dog"]


def test_the_table_fits_80_columns_and_out_keeps_result_and_page(
    run, sd15_folder, started, tmp_path, table_lines
):
    from dti_geom.reporting import Report

    done = run("angles", started, "--model", sd15_folder, "--out", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    assert max(map(len, table_lines(done.stdout))) <= 80
    assert "<unsaid>[0]: the file names no initialiser" in done.stdout
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"index.html", "angles.json"}
    assert load_result(tmp_path / "kept" / "angles.json", Report).angles is not None


def test_files_of_another_width_are_refused(run, sd15_folder, learned):
    done = run("angles", learned / "hostile-step-500.bin", "--model", sd15_folder)
    assert done.returncode == 1
    assert "vectors of width 768" in done.stderr
