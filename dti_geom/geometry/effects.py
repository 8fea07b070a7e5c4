"""Inputs that set apart the two effects of a token's magnitude. (Effects I and II)

An encoder with absolute positions reads x_0 = e + p. A longer token e hides p from the first
normalisation (Effect I), and makes x_0 long beside all that the blocks add to it (Effect II).
Scaling e alone does both at once. Scaling e and p by different factors does either alone.
The two effects are those of arXiv 2512.13672, section 3.
"""

from torch import Tensor

CELLS = ("neither", "I", "II", "both")


def cell_rows(tokens: Tensor, positions: Tensor, scale: float) -> dict[str, Tensor]:
    """Return the token rows that give an encoder the input x_0 of each cell of the 2 × 2 design.

    tokens: (..., d), e. positions: (..., d), the p that the encoder adds to each; shapes broadcast.
    scale: k > 0. The rows are x_0 − p, each (..., d), for the x_0 of

    neither: e + p. I: e + p/k. II: k·e + k·p. both: k·e + p.

    A normalisation sees I as it sees both, and neither as it sees II: it divides the length out.
    """
    return {
        "neither": tokens.expand_as(tokens + positions),
        "I": tokens + positions / scale - positions,
        "II": scale * (tokens + positions) - positions,
        "both": (scale * tokens).expand_as(tokens + positions),
    }
