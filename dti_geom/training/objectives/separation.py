"""Separation of tokens that are learned together, by a contrastive loss on text alone."""

import torch
from torch import Tensor, nn

from dti_geom.errors import DoesNotApply
from dti_geom.models.pipelines import TextToImage
from dti_geom.training.config import ObjectiveConfig
from dti_geom.training.data import Batch
from dti_geom.training.objectives.context import PROMPTS
from dti_geom.training.objectives.text_states import TextStates, text_states

TEMPERATURE = 0.1


def separation(
    model: TextToImage,
    batch: Batch,
    *,
    min_snr: float | None = None,
    options: ObjectiveConfig = ObjectiveConfig(),  # noqa: B008
) -> dict[str, Tensor]:
    """Return λ times a supervised contrastive loss of the tokens' outputs (Khosla et al., 2020).

    The output of a text encoder at a token is drawn to that of the same token in the other
    `PROMPTS`, and away from that of other tokens: −log of the share of the same token in
    Σ exp(cosine / τ), with τ = 0.1. The mean over prompts and encoders, in nats. λ is
    `options.separation_weight`.

    Returns {"separation": (n,)}, the same number for all samples of a token. Raises DoesNotApply
    for a batch of one token.
    """
    tokens = list(dict.fromkeys(batch.tokens))
    if len(tokens) < 2:
        raise DoesNotApply("separation needs two tokens or more that learn in one run.")
    prompts: list[str] = []
    for token in tokens:
        prompts += [prompt.replace("{}", token) for prompt in PROMPTS]
    towers = [_contrast(states, tokens) for states in text_states(model, prompts)]
    by_token = options.separation_weight * torch.stack(towers).mean(dim=0)
    rows = [tokens.index(token) for token in batch.tokens]
    return {"separation": by_token[torch.tensor(rows, device=by_token.device)]}


def _contrast(states: TextStates, tokens: list[str]) -> Tensor:
    """Return each token's loss in one text encoder, (tokens,)."""
    outputs = []
    for row in range(len(states.ids)):
        token = tokens[row // len(PROMPTS)]
        outputs.append(states.states[row][states.place_of(row, token)])
    units = nn.functional.normalize(torch.stack(outputs), dim=-1)
    itself = torch.eye(len(units), dtype=torch.bool, device=units.device)
    scores = (units @ units.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    shares = scores.log_softmax(dim=-1)
    group = torch.arange(len(units), device=units.device) // len(PROMPTS)
    same = (group[:, None] == group) & ~itself
    losses = -shares.masked_fill(~same, 0.0).sum(dim=-1) / same.sum(dim=-1)
    return losses.view(len(tokens), -1).mean(dim=1)
