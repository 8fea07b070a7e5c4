import os

import pytest
import torch

from dti_geom.training.kernels import kernels


def flags() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_run_on_cuda_takes_kernels_that_repeat_or_the_fastest(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = flags()
    with kernels("cuda:0", deterministic=deterministic):
        assert flags() == (deterministic, not deterministic)
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is deterministic
    assert flags() == before
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_a_failed_run_leaves_the_kernels_as_they_were() -> None:
    before = flags()
    with pytest.raises(KeyError), kernels("cuda", deterministic=False):
        raise KeyError
    assert flags() == before


def test_on_a_cpu_nothing_is_changed() -> None:
    before = flags()
    with kernels("cpu", deterministic=True):
        assert flags() == before
