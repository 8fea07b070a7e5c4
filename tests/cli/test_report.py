import json

from dti_geom.artifacts import load_result
from runs import write_run


def test_one_command_writes_the_page_and_ends_with_its_path(run, sd15_folder, learned, tmp_path):
    from dti_geom.reporting import Report

    out = tmp_path / "report"
    done = run("report", "--model", sd15_folder, "--embedding", learned, "--word", "cat", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out / "index.html")
    report = load_result(out / "report.json", Report)
    assert [one.query for one in report.neighbors] == ["cat", "<mine>"]
    assert [one.token for one in report.norms.encoders[0].learned] == ["<mine>"]
    assert len(report.inspected) == 2
    assert "1 of 2 learned vectors have another width" in report.notes[0]
    page = (out / "index.html").read_text()
    assert "<mine>" not in page.replace("&lt;mine&gt;", "")
    assert "<script>alert(1)" not in page


def test_runs_are_shown_with_their_tokens_among_the_others(run, sd15_folder, tmp_path):
    from dti_geom.reporting import Report

    for method in ("dti", "ti"):
        write_run(tmp_path / method, model=str(sd15_folder), method=method, tokens=("<script>alert(1)</script>",))
    runs = ("--run", tmp_path / "dti", "--run", tmp_path / "ti")
    done = run("report", "--model", sd15_folder, *runs, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    report = load_result(tmp_path / "report" / "report.json", Report)
    assert [one.result.config.method.name for one in report.training] == ["dti", "ti"]
    assert [one.token for one in report.norms.encoders[0].learned] == ["<script>alert(1)</script>"] * 2
    page = (tmp_path / "report" / "index.html").read_text()
    assert 'id="training"' in page
    assert "<script>alert(1)" not in page


def test_a_folder_that_is_no_run_is_refused_before_anything_is_written(run, tmp_path):
    done = run("report", "--run", tmp_path, "--out", tmp_path / "report")
    assert done.returncode == 1
    assert "is not the folder of a run" in done.stderr
    assert not (tmp_path / "report").exists()


def test_without_words_those_the_model_has_are_shown(run_json, sd15_folder, tmp_path):
    report = run_json("report", "--model", sd15_folder, "--out", tmp_path / "report")
    assert [one["query"] for one in report["neighbors"]] == ["dog", "cat", "house", "red"]


def test_the_main_job_runs_on_real_input(run, shared_data, tmp_path):
    out = tmp_path / "report"
    done = run(
        "report", "--model", shared_data / "mini-prototype", "--embedding", shared_data / "embeddings", "--out", out
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())["result"]
    assert len(report["inspected"]) == 30
    run_of_steps = {
        one["step"]: one["vectors"][0]["norm"] for one in report["inspected"] if "trajectory" in one["path"]
    }
    assert len(run_of_steps) == 20
    assert [run_of_steps[step] for step in sorted(run_of_steps)] == sorted(run_of_steps.values())


def test_full_adds_what_the_encoder_does_inside(run, tmp_path):
    done = run("report", "--model", "mini", "--full", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for section in ("swap", "attenuation", "stagnation", "attention"):
        assert f'id="{section}"' in page


def test_full_says_why_a_probe_does_not_apply(run, tmp_path, sana_folder):
    done = run("report", "--model", sana_folder, "--full", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "has rotary positions" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
