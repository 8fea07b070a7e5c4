import importlib
import subprocess
import sys

import pytest

from dti_geom.errors import DtiGeomError
from dti_geom.probes.registry import PROBES, probe_named


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_has_its_function_its_result_and_its_section(name: str) -> None:
    probe = PROBES[name]
    assert callable(probe.measure)
    section = importlib.import_module(f"dti_geom.reporting.sections.{name}")
    assert callable(getattr(section, f"{name}_section"))
    assert probe.result_type.__module__ == f"dti_geom.probes.{name}"


def test_the_registry_imports_no_heavy_library() -> None:
    code = (
        "import sys, dti_geom.probes.registry; "
        "sys.exit(bool({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_probe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DtiGeomError, match=r"no probe called 'norm'\. Known: norms, "):
        probe_named("norm")
