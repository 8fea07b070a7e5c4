from pathlib import Path

from warm import Run, RunJson


def test_every_known_model_is_listed_with_its_source_and_whether_it_is_here(
    run_json: RunJson, run: Run
) -> None:
    listed = {model["name"]: model for model in run_json("models")}
    assert listed["mini"]["here"] is True
    assert listed["mini"]["source"] == "ships with dti-geom"
    assert listed["sdxl"]["source"] == "stabilityai/stable-diffusion-xl-base-1.0"
    shown = run("models", COLUMNS="160").stdout
    assert all(name in shown for name in listed)


def test_a_model_in_the_hubs_cache_counts_as_here(run: Run, tmp_path: Path) -> None:
    import json

    repository = tmp_path / "hub" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    snapshot = repository / "snapshots" / "abc" / "text_encoder"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    before = {
        model["name"]: model["here"]
        for model in json.loads(run("models", "--json", HF_HOME=str(tmp_path)).stdout)
    }
    (snapshot / "model.safetensors").touch()
    after = {
        model["name"]: model["here"]
        for model in json.loads(run("models", "--json", HF_HOME=str(tmp_path)).stdout)
    }
    assert (before["sd15"], after["sd15"]) == (False, True)
    assert after["sdxl"] is False
