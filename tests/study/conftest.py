from pathlib import Path

import pytest

from dti_geom.study import build_study, read_material
from dti_geom.study.build import BuiltStudy, Material
from studies import write_evaluation


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="session")
def material(evaluation: Path) -> Material:
    return read_material([evaluation], references=evaluation / "references")


@pytest.fixture(scope="session")
def built(material: Material, tmp_path_factory: pytest.TempPathFactory) -> BuiltStudy:
    return build_study(material, tmp_path_factory.mktemp("study") / "s", seed=987654321, raters=24)
