def test_json_lists_both_neighbourhoods_of_each_token(run_json, sd15_folder):
    results = run_json("neighbors", "cat", "catx", "#7", "--model", sd15_folder, "-k", "4")
    assert [one["query"] for one in results][:2] == ["cat", "ca…"]
    assert len(results) == 5
    for one in results:
        assert {"query", "cosine", "euclidean"} <= set(one)
        assert [set(row) for row in one["cosine"]] == [{"token", "id", "similarity"}] * 4
        assert [set(row) for row in one["euclidean"]] == [{"token", "id", "distance"}] * 4
        similarities = [row["similarity"] for row in one["cosine"]]
        distances = [row["distance"] for row in one["euclidean"]]
        assert similarities == sorted(similarities, reverse=True)
        assert distances == sorted(distances)


def test_a_learned_token_is_a_query_like_any_other(run_json, sd15_folder, learned):
    (one,) = run_json(
        "neighbors", "<mine>", "--model", sd15_folder, "--embedding", learned / "mine.bin"
    )
    assert (one["query"], one["id"]) == ("<mine>", None)


def test_an_unknown_token_is_one_line_without_traceback(run, sd15_folder):
    done = run("neighbors", "#9999", "--model", sd15_folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "rows #0 to #527" in done.stderr
    assert "Traceback" not in done.stderr


def test_out_keeps_result_and_page(run, sd15_folder, tmp_path):
    assert (
        run("neighbors", "cat", "--model", sd15_folder, "--out", tmp_path / "kept").returncode == 0
    )
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"index.html", "neighbors.json"}
