def test_every_known_model_is_listed_with_its_source_and_whether_it_is_here(run_json, run):
    listed = {one["name"]: one for one in run_json("models")}
    assert listed["mini"]["here"] is True
    assert listed["mini"]["source"] == "ships with dti-geom"
    assert listed["sdxl"]["source"] == "stabilityai/stable-diffusion-xl-base-1.0"
    shown = run("models", COLUMNS="160").stdout
    assert all(name in shown for name in listed)


def test_a_model_in_the_hubs_cache_counts_as_here(run, tmp_path):
    import json

    repository = tmp_path / "hub" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    snapshot = repository / "snapshots" / "abc" / "text_encoder"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    before = {
        one["name"]: one["here"]
        for one in json.loads(run("models", "--json", HF_HOME=str(tmp_path)).stdout)
    }
    (snapshot / "model.safetensors").touch()
    after = {
        one["name"]: one["here"]
        for one in json.loads(run("models", "--json", HF_HOME=str(tmp_path)).stdout)
    }
    assert (before["sd15"], after["sd15"]) == (False, True)
    assert after["sdxl"] is False
