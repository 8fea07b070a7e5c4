"""What must stay cheap to import, and which way imports may point."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "diffusers", "plotly", "sklearn")


def modules_after(code: str) -> set[str]:
    printed = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return set(printed.split())


@pytest.mark.parametrize(
    "code",
    [
        "import dti_geom",
        "import dti_geom_cli.main",
        "import sys; sys.argv = ['dti-geom', '--help']\nimport dti_geom_cli.main as cli\n"
        "try: cli.main()\nexcept SystemExit: pass",
    ],
)
def test_neither_the_package_nor_its_help_loads_a_heavy_library(code: str) -> None:
    assert not modules_after(code).intersection(HEAVY)


def test_reporting_is_imported_without_plotly() -> None:
    assert not modules_after("import dti_geom.reporting").intersection(
        {"plotly", "transformers", "diffusers"}
    )


def test_the_listed_packages_are_the_folders_there_are() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    packages = [path.parent.relative_to(ROOT) for path in (ROOT / "dti_geom").rglob("__init__.py")]
    folders = {".".join(package.parts) for package in packages} | {"dti_geom_cli"}
    assert listed == folders


def test_imports_run_downhill() -> None:
    lint = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout
