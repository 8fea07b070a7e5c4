from .api import open as open
from .api import train as train
from .evaluation.evaluation import evaluate as evaluate
from .files.embeddings import read_embeddings as read_embeddings
from .models.catalog import open_encoders as open_encoders
from .models.pipelines import open_text_to_image as open_text_to_image
from .probes.measuring import measure as measure
from .probes.measuring import measure_all as measure_all
from .reporting.build import build_report as build_report
from .reporting.renderers.notebook import show as show
from .training.story import read_run as read_run

__version__: str
__all__ = [
    "build_report",
    "evaluate",
    "measure",
    "measure_all",
    "open",
    "open_encoders",
    "open_text_to_image",
    "read_embeddings",
    "read_run",
    "show",
    "train",
]
