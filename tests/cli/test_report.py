import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dti_geom.evaluation.interpolation import Interpolation, TokenPath, VectorPath
from dti_geom.evaluation.pictures import SamplerSettings
from dti_geom.files import save_result
from dti_geom.reporting.folder import read_report
from dti_geom_cli.main import app
from packed_pages import unpacked
from runs import write_run
from warm import Run, RunJson

Made = tuple[Path, Callable[..., Result]]  # a report's folder, and a function that makes it again


def results_of(folder: Path) -> dict[str, Any]:
    """Return the results of a report by the name of their section."""
    return dict(read_report(folder).results)


def times_of(report: Path) -> dict[str, int]:
    """When each section's result was last written."""
    return {path.name: path.stat().st_mtime_ns for path in (report / "results").glob("[!c]*.json")}


def test_one_command_writes_the_page_and_ends_with_its_path(
    run: Run, sd15_folder: Path, learned: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    done = run(
        "report", "--model", sd15_folder, "--embedding", learned, "--word", "cat", "--out", out
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out / "index.html")
    report = read_report(out)
    results = results_of(out)
    assert [query.query for query in results["neighbors"].encoders[0].queries] == ["cat", "<mine>"]
    assert [vector.token for vector in results["norms"].encoders[0].learned] == ["<mine>"]
    assert len(results["inspection"].files) == 2
    assert "1 of 2 learned vectors do not have the width" in report.notes[0]
    page = (out / "index.html").read_text()
    assert "<mine>" not in page.replace("&lt;mine&gt;", "")
    assert "<script>alert(1)" not in page


def test_runs_are_shown_with_their_tokens_among_the_others(
    run: Run, sd15_folder: Path, tmp_path: Path
) -> None:
    for method in ("dti", "ti"):
        write_run(
            tmp_path / method,
            model=str(sd15_folder),
            method=method,
            tokens=("<script>alert(1)</script>",),
        )
    runs = ("--run", tmp_path / "dti", "--run", tmp_path / "ti")
    done = run("report", *runs, "--out", tmp_path / "report")  # of the model that the runs are of
    assert done.returncode == 0, done.stderr
    results = results_of(tmp_path / "report")
    assert [run.result.config.method.name for run in results["training"].runs] == [
        "dti",
        "ti",
    ]
    assert [vector.token for vector in results["norms"].encoders[0].learned] == [
        "<script>alert(1)</script>"
    ] * 2
    page = (tmp_path / "report" / "index.html").read_text()
    assert 'id="training"' in page
    assert "<script>alert(1)" not in page


def test_a_run_that_is_also_named_as_an_embedding_counts_once(
    run: Run, sd15_folder: Path, tmp_path: Path
) -> None:
    write_run(tmp_path / "dti", model=str(sd15_folder))
    given = ("--run", tmp_path / "dti", "--embedding", tmp_path / "dti")
    assert run("report", *given, "--out", tmp_path / "report").returncode == 0
    assert len(results_of(tmp_path / "report")["norms"].encoders[0].learned) == 1


def test_painting_needs_a_run(run: Run, tmp_path: Path) -> None:
    done = run("report", "--paint", 1, "--out", tmp_path / "report")
    assert done.returncode == 1
    assert "Name one with --run" in done.stderr
    assert not (tmp_path / "report").exists()


def test_runs_of_one_token_name_are_painted_apart(
    run: Run, sd15_pipeline: Path, tmp_path: Path
) -> None:
    for folder, method in (("dti", "dti"), ("ti", "ti"), ("again", "ti")):
        write_run(tmp_path / folder, model=str(sd15_pipeline), method=method)
    runs = [more for name in ("dti", "ti", "again") for more in ("--run", tmp_path / name)]
    out = tmp_path / "report"
    done = run("report", *runs, "--paint", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    painted = results_of(out)["magnitudes"]
    alone, *alike = (token.label for token in painted.tokens)
    assert alone == "images · DTI"
    parent = f"images · TI · {tmp_path.name}"  # runs alike have their folders behind them
    assert alike == [f"{parent}/ti", f"{parent}/again"]
    assert {len(pictures) for token in painted.tokens for pictures in token.pictures} == {9}
    assert str(tmp_path) not in (out / "index.html").read_text()


def test_runs_of_two_models_are_refused(run: Run, tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", model="sdxl")
    done = run(
        "report", "--run", tmp_path / "a", "--run", tmp_path / "b", "--out", tmp_path / "report"
    )
    assert done.returncode == 1
    assert "the runs are of 2 models (mini, sdxl)" in done.stderr
    assert not (tmp_path / "report").exists()


def test_a_folder_that_is_no_run_is_refused_before_anything_is_written(
    run: Run, tmp_path: Path
) -> None:
    done = run("report", "--run", tmp_path, "--out", tmp_path / "report")
    assert done.returncode == 1
    assert "is not the folder of a run" in done.stderr
    assert not (tmp_path / "report").exists()


def test_without_words_those_the_model_has_are_shown(
    run_json: RunJson, sd15_folder: Path, tmp_path: Path
) -> None:
    report = run_json("report", "--model", sd15_folder, "--out", tmp_path / "report")
    assert [
        query["query"] for query in report["results"]["neighbors"]["encoders"][0]["queries"]
    ] == ["dog", "cat", "house", "red"]


def test_the_main_job_runs_on_real_input(run: Run, shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = run(
        "report",
        "--model",
        shared_data / "mini-prototype",
        "--embedding",
        shared_data / "embeddings",
        "--out",
        out,
    )
    assert done.returncode == 0, done.stderr
    inspected = results_of(out)["inspection"].files
    assert len(inspected) == 30
    run_of_steps = {
        file.step: file.vectors[0].norm for file in inspected if "trajectory" in file.path
    }
    assert len(run_of_steps) == 20
    assert [run_of_steps[step] for step in sorted(run_of_steps)] == sorted(run_of_steps.values())


@pytest.mark.slow
def test_full_adds_what_the_encoder_does_inside(run: Run, tmp_path: Path) -> None:
    done = run("report", "--model", "mini", "--full", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for section in ("swap", "attenuation", "stagnation", "attention"):
        assert f'id="{section}"' in page


def test_a_section_that_does_not_apply_says_why_in_its_place(
    run: Run, tmp_path: Path, sana_folder: Path
) -> None:
    done = run(
        "report", "--model", sana_folder, "--only", "attenuation", "--out", tmp_path / "report"
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    section = page.split('<section id="attenuation"')[1].split("</section>")[0]
    assert "has rotary positions" in section
    assert "data-download" not in section


@pytest.fixture
def made(sd15_folder: Path, learned: Path, tmp_path: Path) -> Made:
    """A report whose model and tokens the test may change, and a function that makes it again."""
    model, files = (
        shutil.copytree(sd15_folder, tmp_path / "model"),
        shutil.copytree(learned, tmp_path / "learned"),
    )

    def make(*arguments: object) -> Result:
        asked = (
            "report",
            "--model",
            model,
            "--embedding",
            files,
            "--out",
            tmp_path / "report",
            *arguments,
        )
        return CliRunner().invoke(app, [str(argument) for argument in asked])

    assert make().exit_code == 0
    return tmp_path / "report", make


def test_a_second_call_measures_nothing(made: Made) -> None:
    report, make = made
    before, page = times_of(report), (report / "index.html").read_bytes()
    done = make()
    assert done.stdout.startswith("unchanged: norms, neighbors, angles, inspection\n")
    assert times_of(report) == before
    assert (report / "index.html").read_bytes() == page


def test_other_words_measure_the_neighbours_alone(made: Made) -> None:
    assert made[1]("--word", "cat").stdout.startswith("unchanged: norms, angles, inspection\n")


def test_other_weights_and_other_embeddings_measure_all_that_depends_on_them(made: Made) -> None:
    report, make = made
    (weights,) = (report.parent / "model" / "text_encoder").glob("*.safetensors")
    os.utime(weights, (0, 0))
    assert "unchanged" not in make().stdout
    (report.parent / "learned" / "hostile-step-500.bin").unlink()
    assert "unchanged" not in make().stdout
    assert "unchanged" in make().stdout


def test_only_makes_one_section_anew_and_leaves_the_others(made: Made) -> None:
    report, make = made
    before = times_of(report)
    assert make("--only", "norms").stdout.startswith("unchanged: neighbors, angles, inspection\n")
    after = times_of(report)
    assert [name for name in before if after[name] != before[name]] == ["norms.json"]
    refused = make("--only", "training")
    assert "--only training: nothing was given to make that section from." in str(refused.exception)


def test_what_full_measured_is_kept_for_the_next_full(made: Made) -> None:
    report, make = made
    make("--full")
    make("--quick")
    assert 'id="swap"' not in (report / "index.html").read_text(encoding="utf-8")
    assert make("--full").stdout.startswith(
        "unchanged: norms, swap, attenuation, stagnation, effects, attention, "
    )


def test_redraw_needs_nothing_but_the_results(made: Made, run: Run, tmp_path: Path) -> None:
    report, _ = made
    page = (report / "index.html").read_bytes()
    (report / "index.html").unlink()
    shutil.rmtree(tmp_path / "model")
    assert run("report", "--redraw", "--out", report).returncode == 0
    assert (report / "index.html").read_bytes() == page
    assert "holds no report" in run("report", "--redraw", "--out", tmp_path).stderr


def test_a_report_of_another_model_and_any_other_page_are_only_replaced_when_asked(
    made: Made, run: Run, tmp_path: Path
) -> None:
    report, _ = made
    other = run("report", "--model", "mini", "--out", report)
    assert other.returncode == 1
    assert "not a report of mini" in other.stderr
    (tmp_path / "index.html").write_text("mine")
    assert run("report", "--out", tmp_path).returncode == 1
    assert (tmp_path / "index.html").read_text() == "mine"
    assert run("report", "--out", tmp_path, "--overwrite").returncode == 0
    assert (tmp_path / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_file_that_no_report_wrote_is_not_replaced(made: Made) -> None:
    report, make = made
    (report / "results" / "swap.json").write_text("mine")
    refused = make("--only", "swap")
    assert "swap.json exists already" in str(refused.exception)
    assert (report / "results" / "swap.json").read_text() == "mine"


def test_what_other_commands_left_is_taken_in(run: Run, tmp_path: Path) -> None:
    vector = VectorPath("text_encoder", 0, (0.4, 0.4), 1.0, (1.0,), (("cat",), ("dog",)))
    settings = SamplerSettings(25, 5.0, 64, "float32")
    path = TokenPath("slerp", 0.0, (vector,), ())
    between = Interpolation(
        "mini", "a photo of a {}", ("cat", "dog"), (0.0, 1.0), (0,), settings, None, (path,), ()
    )
    save_result(tmp_path / "between" / "interpolation.json", between)
    given = ("--interpolation", tmp_path / "between")
    done = run("report", *given, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert results_of(tmp_path / "report")["interpolation"] == between
    other = run(
        "report", "--model", "sdxl", *given, "--only", "interpolation", "--out", tmp_path / "other"
    )
    assert other.returncode == 1
    nothing = run(
        "report",
        "--evaluation",
        tmp_path / "between" / "interpolation.json",
        "--out",
        tmp_path / "none",
    )
    assert "holds a result of kind Interpolation" in nothing.stderr


def test_nothing_on_the_page_tells_where_this_machine_keeps_its_files(
    run: Run, sd15_folder: Path, learned: Path, tmp_path: Path
) -> None:
    write_run(tmp_path / "deep" / "dti", model=str(sd15_folder))
    run(
        "report",
        "--run",
        tmp_path / "deep" / "dti",
        "--embedding",
        learned,
        "--out",
        tmp_path / "report",
    )
    results = results_of(tmp_path / "report")
    assert results["training"].runs[0].folder == "deep/dti"
    assert {file.path for file in results["inspection"].files} == {
        f"{learned.name}/mine.bin",
        f"{learned.name}/hostile-step-500.bin",
        "dti/learned_embeds.safetensors",
    }
    for file in (tmp_path / "report").rglob("*"):
        assert file.is_dir() or str(tmp_path.parent) not in unpacked(file.read_text("utf-8"))
