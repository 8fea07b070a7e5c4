"""The page of one training run, in the run's own folder."""

from collections.abc import Sequence
from pathlib import Path

from dti_geom.files import read_embeddings, write_text
from dti_geom.models import TextEncoder
from dti_geom.probes.learned import learned_vectors
from dti_geom.probes.measuring import measure_model
from dti_geom.probes.registry import PROBES
from dti_geom.reporting.folder import PAGE
from dti_geom.reporting.renderers.page import page_html
from dti_geom.reporting.report import Report
from dti_geom.training.story import TrainingRuns, learned_files


def write_run_page(folder: Path, runs: TrainingRuns, encoders: Sequence[TextEncoder]) -> Path:
    """Write the run's curves and previews, and its vectors among the vocabulary's norms.

    folder: of the one run that `runs` holds. Replaces the page that is there. Returns its path.
    """
    config = runs.runs[0].result.config
    learned = learned_vectors([read_embeddings(path) for path in learned_files(folder, config)])
    norms = measure_model(PROBES["norms"], runs.model, encoders, learned)
    report = Report(runs.model, {"norms": norms, "training": runs})
    write_text(folder / PAGE, page_html(report), overwrite=True)
    return folder / PAGE
