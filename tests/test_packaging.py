"""The wheel holds the package, the command line and the embedded model, and nothing else at its top level."""

import subprocess
import sys
import zipfile
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
    packaged = {name for name in tracked.stdout.splitlines() if name.startswith("dti_geom/")}
    assert packaged <= set(names)
    assert {f"dti_geom_cli/{path.name}" for path in (ROOT / "cli").glob("*.py")} <= set(names)


def test_the_citation_and_the_changelog_name_the_version_and_its_date() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {__version__} ({citation['date-released']})\n" in changelog
