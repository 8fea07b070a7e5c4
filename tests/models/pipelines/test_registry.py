import subprocess
import sys

from dti_geom.models.encoders.base import Tap
from dti_geom.models.pipelines.registry import PIPELINES, family_of, tap_of


def test_every_name_leads_to_a_family_of_its_own() -> None:
    families = [family_of(name) for name in PIPELINES]
    assert len(set(families)) == len(PIPELINES)


def test_names_and_taps_are_known_without_diffusers() -> None:
    code = (
        "import sys\n"
        "from dti_geom.models.pipelines.registry import PIPELINES, tap_of\n"
        "for name in PIPELINES: tap_of(name, 'text_encoder')\n"
        "assert 'diffusers' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_pipeline_or_no_pipeline_reads_the_output() -> None:
    assert tap_of("FluxPipeline", "text_encoder") == tap_of(None, "encoder") == Tap()
