"""Prior preservation (Ruiz et al., 2023): the class word should go on meaning its class."""

from torch import Tensor

from dti_geom.errors import DoesNotApply
from dti_geom.models.pipelines import TextToImage
from dti_geom.training.config import ObjectiveConfig
from dti_geom.training.data import Batch
from dti_geom.training.objectives.denoising import denoising


def prior_preservation(
    model: TextToImage,
    batch: Batch,
    *,
    min_snr: float | None = None,
    options: ObjectiveConfig = ObjectiveConfig(),  # noqa: B008
) -> dict[str, Tensor]:
    """Return λ times the denoising loss of images of the class, under prompts with its word.

    λ is `options.prior_weight`. Returns {"prior-preservation": (n,)}. Raises DoesNotApply for a
    batch without images of the class.
    """
    if batch.prior is None:
        raise DoesNotApply("prior-preservation needs images of the class, and the batch has none.")
    (losses,) = denoising(model, batch.prior, min_snr=min_snr).values()
    return {"prior-preservation": options.prior_weight * losses}
