"""Context regularisation, after CoRe (Wu et al., 2024): other words keep their meaning."""

import torch
from torch import Tensor, nn

from dti_geom.models.pipelines import TextToImage
from dti_geom.training.config import ObjectiveConfig
from dti_geom.training.data import Batch
from dti_geom.training.objectives.text_states import TextStates, text_states

# Text alone, so no picture has to fit. A causal encoder changes only what stands behind the token.
PROMPTS = (
    "a {} on a beach",
    "a {} in the snow",
    "a {} in a forest",
    "a {} in front of mountains",
    "a {} to the left of an apple",
    "a {} above a car",
    "a {} wearing a hat",
    "a red {} at night",
)


def context(
    model: TextToImage,
    batch: Batch,
    *,
    min_snr: float | None = None,
    options: ObjectiveConfig = ObjectiveConfig(),  # noqa: B008
) -> dict[str, Tensor]:
    """Return λ times how far the words around a token are from what they are around its class word.

    For each of `PROMPTS` and each text encoder, with the token and with the class word: 1 − mean
    cosine of the encoder's outputs at the words that both prompts have, and 1 − cosine of their
    end states. The mean over prompts, summed over encoders. λ is `options.context_weight`. The
    attention maps that CoRe also compares are left out: this objective reads no picture.

    Returns {"context": (n,)}, the same number for all samples of a token; no unit.
    """
    losses = torch.zeros(len(batch.prompts), device=model.device)
    for token, word in dict(zip(batch.tokens, batch.words, strict=True)).items():
        learned = text_states(model, [prompt.replace("{}", token) for prompt in PROMPTS])
        with torch.no_grad():
            known = text_states(model, [prompt.replace("{}", word) for prompt in PROMPTS])
        towers = [_distance(*pair) for pair in zip(learned, known, strict=True)]
        own = options.context_weight * torch.stack(towers).sum()
        losses = losses + batch.samples_of(token) * own
    return {"context": losses}


def _distance(learned: TextStates, known: TextStates) -> Tensor:
    """Return the mean over prompts for one text encoder, a scalar."""
    distances = []
    for row in range(len(learned.ids)):
        ours, theirs = shared_places(learned.ids[row], known.ids[row])
        cosines = nn.functional.cosine_similarity(
            learned.states[row][ours], known.states[row][theirs], dim=-1
        )
        ends = nn.functional.cosine_similarity(learned.states[row][-1], known.states[row][-1], 0)
        distances.append((1 - cosines.mean()) + (1 - ends))
    return torch.stack(distances).mean()


def shared_places(first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
    """Return the places of the tokens that begin and end both prompts."""
    most = min(len(first), len(second))
    before = 0
    while before < most and first[before] == second[before]:
        before += 1
    behind = 0
    while behind < most - before and first[-1 - behind] == second[-1 - behind]:
        behind += 1
    start = list(range(before))
    return (
        start + list(range(len(first) - behind, len(first))),
        start + list(range(len(second) - behind, len(second))),
    )
