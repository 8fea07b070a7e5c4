from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dti_geom.study import build_study, read_material
from dti_geom.study.build import BuiltStudy, Material
from dti_geom.study.design import Case, Study, plan_study
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


@pytest.fixture(scope="session")
def plan() -> Callable[..., Study]:
    """Plan a study of invented files: `methods` × 6 subjects × 8 prompts."""

    def plan(methods: int = 4, raters: int = 60, seed: int = 0, **options: Any) -> Study:
        names = [f"method{at}" for at in range(methods)]
        cases = [
            Case(
                subject=f"subject{subject}",
                prompt=f"{{}} prompt{prompt}",
                words=f"thing prompt{prompt}",
                group="x",
                seed=0,
                files={name: f"{name}/{subject}/{prompt}.png" for name in names},
                text_scores={name: (prompt + at) % 5 / 5 for at, name in enumerate(names)},
            )
            for subject in range(6)
            for prompt in range(8)
        ]
        references = {f"subject{at}": [f"r/{at}/{n}.png" for n in range(5)] for at in range(6)}
        words = {subject: subject for subject in references}
        return plan_study(
            cases, references, words, model="mini", seed=seed, raters=raters, **options
        )

    return plan
