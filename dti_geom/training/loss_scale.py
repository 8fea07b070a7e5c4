"""Keep the gradients of float16 models above the smallest number that float16 has.

The gradient of a mean over a picture's numbers is about 1e-5 in each of them, where float16 has one
or two digits left. A loss times a power of two has gradients times that power, exactly, and what
learns divides them again in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dti_geom.progress import notice

FIRST = 2.0**16


class LossScale:
    """The power of two that a loss is multiplied by: 1 but for float16."""

    def __init__(self, dtype: torch.dtype) -> None:
        """Start high: the first overflows lower it."""
        self.value = FIRST if dtype == torch.float16 else 1.0

    def undo(self, gradients: Sequence[Tensor | None]) -> bool:
        """Divide gradients by the scale; False if they overflowed, and the scale was halved.

        At a scale of 1 there is nothing to undo: what overflows then is no fault of the scale.
        """
        if self.value == 1:
            return True
        known = [gradient for gradient in gradients if gradient is not None]
        if all(bool(gradient.isfinite().all()) for gradient in known):
            for gradient in known:
                gradient /= self.value
            return True
        self.value /= 2
        notice(
            f"gradients overflowed in float16: the loss is multiplied by {self.value:,.0f} from "
            "now on, half as much as before, and the update is computed again."
        )
        return False
