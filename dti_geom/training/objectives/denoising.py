"""The model's own denoising loss."""

from torch import Tensor

from dti_geom.models.pipelines import Conditioning, TextToImage
from dti_geom.training.config import ObjectiveConfig
from dti_geom.training.data import Batch


def denoising(
    model: TextToImage,
    batch: Batch,
    *,
    min_snr: float | None = None,
    options: ObjectiveConfig = ObjectiveConfig(),  # noqa: B008
) -> dict[str, Tensor]:
    """Return the mean squared error of the denoiser's answer against its target.

    min_snr: γ of the min-SNR loss weights (Hang et al., 2023). Returns {"denoising": (n,)}, one
    loss per sample, float32, differentiable in what is placed in the model. With masks, the mean
    is over the masked area.
    """
    conditioning = model.encode_prompts(batch.prompts, batch.views)
    return {"denoising": squared_errors(model, batch, conditioning, min_snr)}


def squared_errors(
    model: TextToImage, batch: Batch, conditioning: Conditioning, min_snr: float | None
) -> Tensor:
    """Return the mean squared error of the denoiser's answer for each sample, (n,)."""
    noisy = batch.noising.mix(batch.x, batch.noise, batch.times)
    answer = model.predict(noisy, batch.times, conditioning)
    errors = (answer - batch.noising.target(batch.x, batch.noise, batch.times)).square()
    losses = _means(errors, batch.mask)
    if min_snr is not None:
        losses = losses * batch.noising.min_snr_weights(batch.times, min_snr)
    return losses


def _means(errors: Tensor, mask: Tensor | None) -> Tensor:
    """(n, c, h, w) → (n,): means over the masked area, or over everything."""
    if mask is None:
        return errors.flatten(1).mean(dim=1)
    weights = mask.expand_as(errors)
    # An empty mask divides zero by the clamp's floor: its loss and its gradient are zero.
    total = weights.flatten(1).sum(dim=1).clamp(min=1e-6)
    return (errors * weights).flatten(1).sum(dim=1) / total
