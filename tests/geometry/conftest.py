from collections.abc import Iterator

import hypothesis
import pytest
import torch

# The same examples on every run and machine, however slow: a red run must mean a broken property.
hypothesis.settings.register_profile("geometry", derandomize=True, deadline=None, max_examples=60)
hypothesis.settings.load_profile("geometry")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are tiny: on a busy machine, waiting for a second thread costs more than it gains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
