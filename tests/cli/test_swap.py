import pytest

from dti_geom.files import load_result


def test_json_has_the_promised_fields_for_every_tower(run_json, sdxl_folder, learned):
    result = run_json(
        "swap", "--model", sdxl_folder, "--embedding", learned / "mine.bin", "--count", 2
    )
    assert set(result) == {"model", "encoders", "painted"}
    first, second = result["encoders"]
    assert set(first) == {
        "name",
        "mean_norm",
        "carriers",
        "alike",
        "left_out",
        "pairs",
        "sums",
        "sweeps",
    }
    assert set(first["pairs"][0]) == {"first", "second", "learned", "norms", "resemblances"}
    assert set(first["sums"][0]) == {
        "output", "stretch", "ratio", "direction", "magnitude", "donors", "wins"
    }  # fmt: skip
    assert set(first["sums"][0]["wins"]) == {"right", "total", "share", "low", "high"}
    assert set(first["sweeps"][0]["outputs"][0]) == {
        "output",
        "similarity",
        "low",
        "high",
        "leaves",
    }
    assert [sweep["token"] for sweep in first["sweeps"]] == [None, "<mine>"]
    assert [sweep["token"] for sweep in second["sweeps"]] == [None]


def test_pairs_and_categories_are_read_from_files(run, run_json, sd15_folder, tmp_path):
    (tmp_path / "pairs.txt").write_text("cat dog\n\nhouse red\n")
    result = run_json("swap", "--model", sd15_folder, "--pairs", tmp_path / "pairs.txt")
    pairs = [(pair["first"], pair["second"]) for pair in result["encoders"][0]["pairs"]]
    assert pairs == [("cat", "dog"), ("house", "red")]
    (tmp_path / "words.txt").write_text("cat\ndog\ncatdog\n")
    done = run("swap", "--model", sd15_folder, "--category", tmp_path / "words.txt")
    assert "left out, not one token here: catdog" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"cat dog\ncat\n", "line 2: 1 words; two tokens were expected"),
        (b"\n", "is empty. Write one entry a line."),
        (b"\xff\xfe", "is no readable text file"),
        (b"cat unicorn\n", "'unicorn' is"),
    ],
)
def test_a_bad_pair_file_gets_one_line_that_says_what_is_wrong(
    run, sd15_folder, tmp_path, text, message
):
    (tmp_path / "pairs.txt").write_bytes(text)
    done = run("swap", "--model", sd15_folder, "--pairs", tmp_path / "pairs.txt")
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""


def test_the_table_fits_80_columns_and_out_keeps_result_and_page(
    run, sd15_folder, learned, tmp_path, table_lines
):
    from dti_geom.reporting import Report

    done = run(
        "swap",
        "--model",
        sd15_folder,
        "-e",
        learned / "mine.bin",
        "--count",
        2,
        "--out",
        tmp_path / "kept",
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, table_lines(done.stdout))) <= 80
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"index.html", "swap.json"}
    report = load_result(tmp_path / "kept" / "swap.json", Report)
    assert report.swap is not None
    assert len(report.swap.encoders[0].pairs) == 10
