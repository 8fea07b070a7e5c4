"""How a GPU's kernels are chosen during a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# cuBLAS reads it at its first product: two buffers of 4096 KiB, as its documentation asks for.
CUBLAS = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextmanager
def kernels(device: str, *, deterministic: bool) -> Iterator[None]:
    """Take the fastest kernels of a CUDA device inside, or those that repeat their results.

    deterministic: two runs of the same configuration, versions and GPU give the same bytes.
    Elsewhere nothing is changed: results on a CPU always repeat.
    """
    if device.partition(":")[0] != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    if deterministic:
        os.environ.setdefault(*CUBLAS)
    torch.use_deterministic_algorithms(deterministic or before[0])
    # Each shape's fastest convolution is measured once; measuring may choose another each time.
    cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]
