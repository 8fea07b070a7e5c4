import json
from pathlib import Path

import pytest
from PIL import Image

from image_models import build_clip, build_dinov2
from warm import Run

CLASSES = """Classes

subject_name,class
rex,dog

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} wearing a red hat'.format(unique_token, class_token)
]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset's layout and tiny scorers."""
    folder = tmp_path_factory.mktemp("protocol")
    (folder / "dreambooth" / "rex").mkdir(parents=True)
    Image.new("RGB", (24, 20), (80, 120, 40)).save(folder / "dreambooth" / "rex" / "00.jpg")
    (folder / "dreambooth" / "prompts_and_classes.txt").write_text(CLASSES)
    build_dinov2(folder / "dinov2")
    build_clip(folder / "clip")
    return folder


@pytest.fixture(scope="module")
def asked(sd15_pipeline: Path) -> list[object]:
    return [
        *("protocol", "paper", "--model", sd15_pipeline, "--data", "dreambooth"),
        *("--methods", "dti", "--seeds", 1, "--steps", 2, "--sampling-steps", 1),
        *("--image-encoder", "./dinov2", "--text-encoder", "./clip", "--dtype", "float32"),
        *("--workers", 1, "--out", "out"),
    ]


def test_a_dry_run_says_what_it_will_cost_and_writes_nothing(
    run: Run, place: Path, asked: list[object]
) -> None:
    shown = run(*asked, "--dry-run", cwd=place)
    assert shown.returncode == 0, shown.stderr
    assert "1 trainings of 1 subjects, 2 updates and 89 pictures" in " ".join(shown.stdout.split())
    assert not (place / "out").exists()
    cost = json.loads(run(*asked, "--dry-run", "--json", cwd=place).stdout)
    assert cost["pictures"] == 89
    assert set(cost["by_cards"]) == {"1", "8", "64"}


@pytest.mark.slow
def test_the_protocol_ends_with_the_papers_tables_and_resumes(
    run: Run, place: Path, asked: list[object]
) -> None:
    done = run(*asked, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "89 pictures" in done.stderr  # the cost, before it starts
    assert "25 of the 41 prompts" in " ".join(done.stdout.split())
    assert {"comparison.json", "sweep.json", "results.csv", "index.html"} <= {
        path.name for path in (place / "out").iterdir()
    }
    (cell,) = (place / "out").glob("cells/*/cell.json")
    before = cell.stat().st_mtime_ns
    again = json.loads(run(*asked, "--json", cwd=place).stdout)
    assert [row["method"] for row in again["others"]] == ["dti"]
    assert cell.stat().st_mtime_ns == before
    left = run(*asked, "--dry-run", cwd=place)
    assert "all 1 cells are done" in left.stdout
    assert json.loads(run(*asked, "--dry-run", "--json", cwd=place).stdout) == {"cells": 0}
    status = run("sweep", "status", "out", cwd=place)
    assert "done" in status.stdout
