from collections.abc import Iterator

import hypothesis
import pytest
import torch

# The same examples on every run and machine, however slow: a red run must mean a broken property.
hypothesis.settings.register_profile("geometry", derandomize=True, deadline=None, max_examples=60)
hypothesis.settings.load_profile("geometry")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: for these tiny tensors, waiting for a second one costs more than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
