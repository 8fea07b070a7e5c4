from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dti_geom.sweeps import plan_of, run_sweep
from dti_geom.sweeps.cells import try_cell
from dti_geom.sweeps.engines import Engine, Outcome
from dti_geom.sweeps.plan import Cell, Plan
from image_models import build_clip, build_dinov2

# Updates of a run that is stopped: enough to catch it between a checkpoint and its end.
LONG = {"steps": 200, "checkpoint_every": 20, "dtype": "float32"}


@pytest.fixture(scope="session")
def asked(
    tmp_path_factory: pytest.TempPathFactory, sd15_pipeline: Path
) -> Callable[..., dict[str, Any]]:
    """A sweep file's content: two subjects, two methods, a tiny model. Keywords replace keys."""
    folder = tmp_path_factory.mktemp("asked")
    for number, name in enumerate(("dog", "cat")):
        (folder / name).mkdir()
        Image.new("RGB", (24, 20), (80 * number, 120, 40)).save(folder / name / "0.png")
    (folder / "prompts.txt").write_text("a {} here\na {} there\n")
    evaluate = {
        "prompts": str(folder / "prompts.txt"),
        "seeds": 2,
        "steps": 1,
        "image_encoder": str(build_dinov2(folder / "dinov2")),
        "text_encoder": str(build_clip(folder / "clip")),
    }

    def asked(**replaced: Any) -> dict[str, Any]:
        return (
            {
                "model": str(sd15_pipeline),
                "concepts": [
                    {"images": str(folder / name), "init": name} for name in ("dog", "cat")
                ],
                "methods": ["dti", "ti"],
                "train": {"steps": 4, "checkpoint_every": 2, "dtype": "float32"},
            }
            | replaced
            | {"evaluate": evaluate | replaced.get("evaluate", {})}
        )

    return asked


@pytest.fixture(scope="session")
def kept() -> Callable[[Path], dict[str, bytes]]:
    """The files of a sweep's folder whose bytes must not depend on the engine or the time."""

    def kept(folder: Path) -> dict[str, bytes]:
        patterns = (
            "cells/*/cell.json",
            "cells/*/pictures/*.png",
            "runs/*/learned_embeds*.safetensors",
        )
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for pattern in patterns
            for path in folder.glob(pattern)
        }

    return kept


@pytest.fixture(scope="session")
def in_process() -> Engine:
    """An engine without worker processes, of one thread as the workers are."""

    def in_process(cells: Sequence[Cell], folder: Path) -> Iterator[Outcome]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for cell in cells:
                yield Outcome(cell, try_cell(cell, folder))
        finally:
            torch.set_num_threads(threads)

    return in_process


@pytest.fixture(scope="session")
def long(
    asked: Callable[..., dict[str, Any]],
    in_process: Engine,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Plan, Path]:
    """A plan of two cells with many updates, and the folder of a sweep that nothing disturbed."""
    plan = plan_of(asked(train=LONG, methods=["dti"]), "long")
    folder = tmp_path_factory.mktemp("long")
    states = run_sweep(plan, folder, in_process)
    assert [state.state for state in states] == ["done"] * 2, [state.error for state in states]
    return plan, folder
