"""The benchmarks still run; what they measure on a tiny model means nothing."""

import importlib.util
from argparse import Namespace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "train_step.py"


@pytest.fixture(scope="module")
def train_step():
    spec = importlib.util.spec_from_file_location("train_step", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("pipeline", ["sd15_pipeline", "sdxl_pipeline"])
def test_every_way_to_make_a_training_step_is_timed(pipeline, train_step, request):
    folder = str(request.getfixturevalue(pipeline))
    options = Namespace(
        model=folder,
        only=list(train_step.WAYS),
        steps=1,
        batch_size=2,
        resolution=None,
        dtype="bfloat16",
        device="cpu",
        compile=False,
    )
    measured = train_step.measure(options)
    assert tuple(measured["seconds"]) == train_step.WAYS
    assert all(seconds > 0 for seconds in measured["seconds"].values())
    assert measured["resolution"] == 64


def test_full_sizes_are_refused_without_a_gpu(train_step, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="full-sdxl would run on cuda, and there is no GPU here"):
        train_step.measure(Namespace(model="full-sdxl", device="cuda"))
