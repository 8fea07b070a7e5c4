"""Images of the classes of a run, for prior preservation: given, or painted by the model."""

from collections.abc import Callable
from pathlib import Path

from dti_geom.errors import TrainingError
from dti_geom.files import atomic_path
from dti_geom.models.pipelines import TextToImage
from dti_geom.training.config import RunConfig
from dti_geom.training.processes import Processes

_AT_ONCE = 8  # pictures


def class_images(
    model: TextToImage,
    config: RunConfig,
    folder: Path | None,
    stage: Callable[[str], None] = lambda name: None,
) -> list[str]:
    """Return a folder of class images for each concept; [] for a run without prior preservation.

    folder: of the run; pictures that are there already are kept. stage: called before painting.
    Raises TrainingError if there is nowhere to paint.
    """
    options = config.objective
    if "prior-preservation" not in (options.names or ()):
        return []
    model.take_adapter_out()  # one of a run that failed in this process
    if options.prior_images is not None:
        return [options.prior_images] * len(config.concepts)
    if folder is None:
        raise TrainingError(
            "prior-preservation lets the model paint images of the class into the run's folder, "
            "and the run has none. Give --out, or --prior-images."
        )
    processes, places = Processes(), []
    for number, concept in enumerate(config.concepts):
        place = painted_for(folder) / f"{number:02d}"
        if processes.is_main:
            _paint(model, config, f"a photo of a {concept.init}", place, stage)
        places.append(str(place))
    processes.wait()
    return places


def painted_for(folder: Path) -> Path:
    """Return where a run keeps the class images that its model painted."""
    return folder / "class_images"


def _paint(
    model: TextToImage, config: RunConfig, prompt: str, place: Path, stage: Callable[[str], None]
) -> None:
    """Paint what is missing, one picture for each seed from 0, at the size of the run."""
    size = config.data.resolution or model.training_resolution
    paths = {place / f"{seed:04d}.png": seed for seed in range(config.objective.prior_count)}
    missing = [path for path in paths if not path.exists()]
    if missing:
        stage("painting class images")
    for first in range(0, len(missing), _AT_ONCE):
        batch = missing[first : first + _AT_ONCE]
        pictures = model.generate([prompt] * len(batch), [paths[path] for path in batch], size=size)
        for path, picture in zip(batch, pictures, strict=True):
            with atomic_path(path) as temporary:
                picture.save(temporary)
