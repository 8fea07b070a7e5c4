import sys

import pytest
import torch

from dti_geom.training.peak_memory import peak_memory, reset_peak_memory

CPU = torch.device("cpu")
LARGE = 200 << 20  # bytes; malloc gives so much back to the system at once


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux alone")
def test_the_peak_forgets_what_was_before() -> None:
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    numbers = torch.ones(LARGE // 4)
    assert peak_memory(CPU) > before + 0.9 * LARGE  # Linux counts pages in batches
    del numbers
    assert peak_memory(CPU) > before + 0.9 * LARGE  # Linux counts pages in batches
    reset_peak_memory(CPU)
    assert peak_memory(CPU) < before + LARGE / 2


def test_a_card_counts_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda", 0)
    reset: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 123)
    reset_peak_memory(card)
    assert reset == [card]
    assert peak_memory(card) == 123
