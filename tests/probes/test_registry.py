import dataclasses
import importlib
import inspect
import subprocess
import sys
from typing import Any

import pytest

from dti_geom.errors import DtiGeomError
from dti_geom.probes.registry import PROBES, probe_named
from dti_geom.probes.result import Result


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_has_its_function_its_result_and_its_section(name: str) -> None:
    probe = PROBES[name]
    assert callable(probe.measure)
    section = importlib.import_module(f"dti_geom.reporting.sections.{name}")
    assert callable(getattr(section, f"{name}_section"))
    assert probe.result_type.__module__ == f"dti_geom.probes.{name}"
    assert issubclass(probe.result_type, Result)
    result: Any = probe.result_type
    assert "name" in {field.name for field in dataclasses.fields(result)}


@pytest.mark.parametrize("name", PROBES)
def test_the_function_takes_every_option_with_the_same_default(name: str) -> None:
    parameters = inspect.signature(PROBES[name].measure).parameters
    for option in PROBES[name].options:
        if option.companion is not None:
            module = importlib.import_module(f"dti_geom.probes.{option.companion}")
            assert callable(getattr(module, f"measure_{option.companion}"))
            continue
        default = parameters[option.name].default
        assert default == (() if option.several else option.default)


@pytest.mark.parametrize("name", PROBES)
def test_only_a_probe_with_arrays_has_the_function_that_makes_them(name: str) -> None:
    module = importlib.import_module(f"dti_geom.probes.{name}")
    assert hasattr(module, f"{name}_arrays") == PROBES[name].arrays


def test_probes_are_measured_without_reporting_or_plotly() -> None:
    code = (
        "import sys, dti_geom.probes as probes; probes.measure; "
        "sys.exit(bool({'plotly', 'dti_geom.reporting'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_registry_imports_no_heavy_library() -> None:
    code = (
        "import sys, dti_geom.probes.registry; "
        "sys.exit(bool({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_probe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DtiGeomError, match=r"no probe called 'norm'\. Known: norms, "):
        probe_named("norm")
