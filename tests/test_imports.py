"""What must stay cheap to import, and which way imports may point."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

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


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_listed_packages_are_the_folders_but_for_the_recipe() -> None:
    listed = set(pyproject()["tool"]["setuptools"]["packages"])
    packages = [path.parent.relative_to(ROOT) for path in (ROOT / "dti_geom").rglob("__init__.py")]
    folders = {".".join(package.parts) for package in packages} | {"dti_geom_cli"}
    assert listed == folders - {"dti_geom.mini.recipe"}


def test_the_contract_names_every_module_that_must_not_need_the_recipe() -> None:
    (contract,) = [
        contract
        for contract in pyproject()["tool"]["importlinter"]["contracts"]
        if contract["type"] == "forbidden"
    ]
    below = {f"dti_geom.mini.{path.stem}" for path in (ROOT / "dti_geom/mini").glob("[!_]*.py")}
    beside = {
        f"dti_geom.{path.parent.name}"
        for path in (ROOT / "dti_geom").glob("*/__init__.py")
        if path.parent.name != "mini"
    }
    assert set(contract["source_modules"]) == below | beside | {"dti_geom_cli"}


def test_imports_run_downhill() -> None:
    lint = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout
