"""One process, or several started by `accelerate launch`, which then share each update."""

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor


class Processes:
    """Which process this is of how many. Alone, nothing of accelerate is loaded."""

    def __init__(self) -> None:
        """Reads what the launcher left in the environment."""
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.index = self._state.process_index if self.count > 1 else 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.index == 0

    def average(self, tensors: Sequence[Tensor | None]) -> None:
        """Replace every tensor by its mean over the processes."""
        if self.count > 1:
            for tensor in tensors:
                if tensor is not None:
                    tensor.copy_(self._state.reduce(tensor, "mean"))

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            self._state.wait_for_everyone()

    @cached_property
    def _state(self) -> Any:
        import torch
        from accelerate import Accelerator

        # Told of no GPU, accelerate joins the processes over gloo; left to find out, it would leave them apart.
        return Accelerator(cpu=not torch.cuda.is_available())
