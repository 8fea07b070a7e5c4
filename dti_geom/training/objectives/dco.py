"""Direct consistency optimisation (Lee et al., 2024): improve on the frozen model, no further."""

import torch
from torch import Tensor, nn

from dti_geom.errors import DoesNotApply
from dti_geom.models.pipelines import TextToImage
from dti_geom.training.config import ObjectiveConfig
from dti_geom.training.data import Batch
from dti_geom.training.objectives.denoising import squared_errors


def dco(
    model: TextToImage,
    batch: Batch,
    *,
    min_snr: float | None = None,
    options: ObjectiveConfig = ObjectiveConfig(),  # noqa: B008
) -> dict[str, Tensor]:
    """Return −log σ(−β(M − R)) for each token: how far the model is from beating its reference.

    M and R are means over the token's samples of the squared error, with the adapter and without
    it. R has no gradient. The reference reads the same prompt, as the code of Kim et al. (2026)
    does, or that with the class word (`options.dco_reference`), as Lee et al. do.

    Returns {"dco": (n,)}, in nats, the same number for all samples of a token. With an adapter
    that changes nothing yet and the same prompt it is log 2, and its gradient is β/2 times that of
    M. For β → 0 the loss is log 2 everywhere and the gradient, divided by β, half of M's. Raises
    DoesNotApply without an adapter.
    """
    if model.adapter is None:
        raise DoesNotApply("dco compares the model with and without an adapter. Add one.")
    conditioning = model.encode_prompts(batch.prompts, batch.views)
    errors = squared_errors(model, batch, conditioning, min_snr)
    with torch.no_grad(), model.adapter.without():
        if options.dco_reference == "class-word":
            known = model.encode_prompts(batch.class_prompts, batch.views)
        else:
            known = {name: value.detach() for name, value in conditioning.items()}
        reference = squared_errors(model, batch, known, min_snr)
    losses = torch.zeros_like(errors)
    for token in dict.fromkeys(batch.tokens):
        # A product, not an index: a GPU need not be waited for.
        own = batch.samples_of(token)
        gain = ((reference - errors) * own).sum() / batch.tokens.count(token)
        losses = losses - own * nn.functional.logsigmoid(options.dco_beta * gain)
    return {"dco": losses}
