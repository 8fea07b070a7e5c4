"""The data loss: the model's own denoising objective, per sample."""

from torch import Tensor

from dti_geom.models.pipelines import TextToImage
from dti_geom.training.data import Batch


def denoising_losses(model: TextToImage, batch: Batch, min_snr: float | None = None) -> Tensor:
    """(n,): mean squared error of the denoiser's answer against its target, float32.

    With masks the mean is over the masked area. min_snr: γ of the min-SNR weights. The conditioning is differentiable
    in the learned tokens, and nothing else learns.
    """
    noisy = model.noising.mix(batch.x, batch.noise, batch.times)
    answer = model.predict(noisy, batch.times, model.encode_prompts(batch.prompts, batch.views))
    errors = (answer - model.noising.target(batch.x, batch.noise, batch.times)).square()
    if batch.mask is None:
        losses = errors.flatten(1).mean(dim=1)
    else:
        weight = batch.mask.expand_as(errors)
        losses = (errors * weight).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1).clamp(
            min=1e-6
        )
    return (
        losses if min_snr is None else losses * model.noising.min_snr_weights(batch.times, min_snr)
    )
