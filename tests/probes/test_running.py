import subprocess
import sys

import pytest
import torch

from dti_geom.errors import DtiGeomError
from dti_geom.models import open_encoders
from dti_geom.probes import PROBES, Drawable, NotMeasured, learned_vectors, run


def test_every_probe_is_run_and_every_result_draws_itself(sd15_folder, learned_file):
    import plotly.graph_objects as go

    import dti_geom.reporting  # noqa: F401

    (encoder,) = open_encoders(str(sd15_folder))
    results = run(encoder, learned=learned_vectors([learned_file(torch.arange(32.0))]))
    assert set(results) == set(PROBES)
    for name, result in results.items():
        assert isinstance(result, Drawable), name
        assert isinstance(result.figure(), go.Figure), name


def test_only_the_named_probes_are_run_in_that_order(sd15_folder):
    (encoder,) = open_encoders(str(sd15_folder))
    assert list(run(encoder, ["angles", "norms"])) == ["angles", "norms"]


def test_a_probe_that_does_not_apply_leaves_its_reason(sana_folder):
    (encoder,) = open_encoders(str(sana_folder))
    results = run(encoder, ["attenuation", "angles"])
    assert isinstance(results["attenuation"], NotMeasured)
    assert "position" in results["attenuation"].reason
    assert isinstance(results["angles"], NotMeasured)


def test_an_unknown_name_lists_the_known_ones(sd15_folder):
    (encoder,) = open_encoders(str(sd15_folder))
    with pytest.raises(DtiGeomError, match=r"no probe called 'norm'\. Known: norms, swap"):
        run(encoder, ["norm"])


def test_without_reporting_a_result_says_what_to_import():
    with pytest.raises(RuntimeError, match=r"import dti_geom\.reporting"):
        Drawable().figure()


def test_probes_are_imported_without_reporting_or_plotly():
    code = "import sys, dti_geom.probes; sys.exit(bool({'plotly', 'dti_geom.reporting'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
