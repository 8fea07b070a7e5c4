"""The wheel holds the package, the command line and the embedded model, and works without more."""

import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import distributions, version
from pathlib import Path

import pytest
import yaml

from dti_geom import __version__

ROOT = Path(__file__).parents[1]


@pytest.mark.install
def test_the_wheel_holds_what_it_should(tmp_path: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout, so it is unknown which files belong to the project")
    source = tmp_path / "source"  # a copy, since building leaves folders behind
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].removesuffix(".dist-info") for name in names} == {
        "dti_geom",
        "dti_geom_cli",
        wheel.name.removesuffix("-py3-none-any.whl"),
    }
    tracked_names = set(tracked.stdout.splitlines())
    package = {name for name in tracked_names if name.startswith("dti_geom/")}
    recipe = {name for name in package if name.startswith("dti_geom/mini/recipe/")}
    assert recipe
    assert package - recipe <= set(names)
    assert not recipe & set(names)
    assert {f"dti_geom_cli/{path.name}" for path in (ROOT / "cli").glob("*.py")} <= set(names)
    assert_works_alone(wheel, tmp_path / "installed")


def test_the_citation_and_the_changelog_name_the_version_and_its_date() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {__version__} ({citation['date-released']})\n" in changelog


def test_every_dependency_has_a_lowest_version_below_the_one_that_is_installed() -> None:
    command = [str(ROOT / ".ci" / "lowest"), "torch==2.13.0"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lowest = dict(line.split("==") for line in printed.splitlines())
    assert lowest["torch"] == "2.13.0"
    assert {"typer", "transformers", "pytest"} <= lowest.keys()
    for name in lowest.keys() & {each.name for each in distributions()}:
        assert _numbers(lowest[name]) <= _numbers(version(name)), name


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", text)]


USE = """
import sys
import dti_geom, dti_geom.mini.prompts
from dti_geom.evaluation.prompts import open_prompt_set
from dti_geom.models.catalog import known_concepts
from dti_geom_cli.main import main

assert dti_geom.__file__.startswith(sys.argv.pop()), dti_geom.__file__
assert open_prompt_set("mini").of("fox", "fox")
assert all(file.is_file() for concept in known_concepts().values() for file in concept.files)
sys.argv[1:] = ["neighbors", "--model", "mini", "fox"]
main()
"""


def assert_works_alone(wheel: Path, folder: Path) -> None:
    """Unpack the wheel as an installer does, and use it from a directory without the project."""
    zipfile.ZipFile(wheel).extractall(folder)
    done = subprocess.run(
        [sys.executable, "-c", USE, str(folder)],
        cwd=folder.parent,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "fox" in done.stdout
