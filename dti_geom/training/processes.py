"""One process, or several started by `accelerate launch`, which then share each update."""

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor


class Processes:
    """This process among those of a run. A single process does not load accelerate."""

    def __init__(self) -> None:
        """Read what the launcher set in the environment."""
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.index = self._state.process_index if self.count > 1 else 0

    @property
    def is_main(self) -> bool:
        """Return whether this process writes the files."""
        return self.index == 0

    def average(self, tensors: Sequence[Tensor | None]) -> None:
        """Replace every tensor by its mean over the processes."""
        if self.count > 1:
            for tensor in tensors:
                if tensor is not None:
                    tensor.copy_(self._state.reduce(tensor, "mean"))

    def wait(self) -> None:
        """Wait until every process calls this."""
        if self.count > 1:
            self._state.wait_for_everyone()

    @cached_property
    def _state(self) -> Any:
        import torch
        from accelerate import Accelerator

        # Without cpu=True on a machine without a GPU, accelerate would not connect the processes.
        return Accelerator(cpu=not torch.cuda.is_available())
