"""The most memory that a run has used at once."""

import sys
from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")  # Linux


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak of what this process did before.

    On a processor this works on Linux alone; elsewhere the peak is that of the whole process.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # not Linux, or not permitted in this container
        (_PROCESS / "clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Return the most bytes in use since `reset_peak_memory`.

    They are those of the GPU's allocator, or of this process where there is no GPU.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
