import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dti_geom.files import load_result
from dti_geom.sweeps import Sweep
from image_models import build_clip, build_dinov2
from warm import Completed, Run


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, sd15_pipeline: Path) -> Path:
    """A sweep file in a folder of its own, as a user has it."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "dog").mkdir()
    Image.new("RGB", (24, 20), (80, 120, 40)).save(folder / "dog" / "0.png")
    (folder / "prompts.txt").write_text("a {} here\n")
    build_dinov2(folder / "dinov2")
    build_clip(folder / "clip")
    path = folder / "mine.yaml"
    path.write_text(
        f"""
model: {json.dumps(str(sd15_pipeline))}
concepts: [{{images: dog, init: dog}}]
methods: [dti, {{name: ti, baselines: true}}]
train: {{steps: 2}}
evaluate:
  {{prompts: prompts.txt, seeds: 1, steps: 1, image_encoder: ./dinov2, text_encoder: ./clip}}
"""
    )
    return path


@pytest.fixture(scope="module")
def swept(run: Run, file: Path) -> Completed:
    return run("sweep", file.name, "--workers", 1, cwd=file.parent)


@pytest.mark.slow
def test_sweep_keeps_scores_a_table_and_a_page_beside_its_file(
    swept: Completed, file: Path
) -> None:
    assert swept.returncode == 0, swept.stderr
    folder = file.parent / "mine"
    assert {".lock", "plan.json", "sweep.json", "results.csv", "index.html", "runs", "cells"} == {
        path.name for path in folder.iterdir()
    }
    sweep = load_result(folder / "sweep.json", Sweep)
    assert [row.method for row in sweep.summaries] == ["dti", "ti", "ti-rescaled", "class word"]
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == ["dti", "ti", "ti-rescaled", "class word"]
    assert "mine/index.html" in swept.stdout
    assert "<title>" in (folder / "index.html").read_text()


def test_lines_fit_a_terminal(swept: Completed, table_lines: Callable[[str], list[str]]) -> None:
    assert all(len(line) <= 80 for line in table_lines(swept.stdout))


def test_status_and_dry_run_tell_where_cells_stand(
    swept: Completed, run: Run, file: Path, flowing: Callable[[str], str]
) -> None:
    status = run("sweep", "status", "mine", cwd=file.parent)
    assert status.stdout.count("done") == 2
    dry = run("sweep", "mine.yaml", "--dry-run", cwd=file.parent)
    assert "0 of 2 cells are left" in flowing(dry.stdout)
    elsewhere = run("sweep", "mine.yaml", "--dry-run", "--out", "other", cwd=file.parent)
    assert "2 of 2 cells are left: 2 trainings of a concept, about 4 pictures" in flowing(
        elsewhere.stdout
    )
    assert not (file.parent / "other").exists()


def test_report_writes_the_page_again(swept: Completed, run: Run, file: Path) -> None:
    (file.parent / "mine" / "index.html").unlink()
    done = run("sweep", "report", "mine", "--json", cwd=file.parent)
    assert json.loads(done.stdout)["model"]
    assert (file.parent / "mine" / "index.html").exists()


@pytest.mark.slow
def test_a_failed_cell_ends_the_command_with_1_and_names_its_log(
    run: Run, file: Path, flowing: Callable[[str], str]
) -> None:
    text = file.read_text().replace("./dinov2", "./nowhere")
    (file.parent / "broken.yaml").write_text(text)
    done = run("sweep", "broken.yaml", "--workers", 1, cwd=file.parent)
    assert done.returncode == 1
    assert "failed: " in done.stderr
    assert "error.txt; --retry-failed" in flowing(done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml is not a readable YAML file"),
        (["status"], "the folder is missing: dti-geom sweep status FOLDER"),
        (["status", "dog"], "dog is not the folder of a sweep"),
        (["mine.yaml", "mine"], "expected one sweep file"),
    ],
)
def test_mistakes_get_a_one_line_message(
    arguments: list[str], message: str, run: Run, file: Path, flowing: Callable[[str], str]
) -> None:
    done = run("sweep", *arguments, cwd=file.parent)
    assert done.returncode == 1
    assert message in flowing(done.stderr)
