from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dti_geom.errors import DoesNotApply, DtiGeomError, EmbeddingFileError
from dti_geom.files import EmbeddingFile
from dti_geom.models import open_encoders
from dti_geom.probes.learned import learned_vectors
from dti_geom.probes.measuring import measure, measure_all, measure_model
from dti_geom.probes.norms import NormsResult, measure_norms
from dti_geom.probes.registry import PROBES

LearnedFile = Callable[..., EmbeddingFile]


def test_a_probe_is_measured_by_its_name(sd15_folder: Path, learned_file: LearnedFile) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    learned = learned_vectors([learned_file(torch.arange(32.0))])
    result = measure(encoder, "norms", learned, extremes=3)
    assert isinstance(result, NormsResult)
    assert result == measure_norms(encoder, learned, extremes=3)
    with pytest.raises(DtiGeomError, match="no probe called 'norm'"):
        measure(encoder, "norm")


def test_all_probes_are_measured_and_reasons_kept(
    sana_folder: Path, sd15_folder: Path, learned_file: LearnedFile
) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    learned = learned_vectors([learned_file(torch.arange(32.0))])
    everything = measure_all(encoder, learned)
    assert everything.does_not_apply == {}
    named = {name for name, probe in PROBES.items() if probe.takes_tokens}
    assert {*everything.results} == {*PROBES} - named
    for name, result in everything.results.items():
        assert isinstance(result, PROBES[name].result_type)
    (rotary,) = open_encoders(str(sana_folder))
    without = measure_all(rotary)
    assert {*without.does_not_apply} == {"attenuation", "angles"}
    assert "positions" in without.does_not_apply["attenuation"]


def test_every_encoder_of_a_model_is_measured_or_says_why_not(
    sdxl_folder: Path, learned_file: LearnedFile
) -> None:
    encoders = open_encoders(str(sdxl_folder))
    learned = learned_vectors([learned_file(torch.arange(48.0))])
    measured = measure_model(PROBES["angles"], "mine", encoders, learned, init="cat")
    assert (measured.probe, measured.model) == ("angles", "mine")
    assert [result.name for result in measured.encoders] == ["text_encoder_2"]
    assert [reason.split(":")[0] for reason in measured.does_not_apply] == ["text_encoder"]
    with pytest.raises(EmbeddingFileError, match="width 7"):
        measure_model(
            PROBES["norms"], "mine", encoders, learned_vectors([learned_file(torch.ones(7))])
        )


def test_a_probe_that_does_not_apply_raises(sana_folder: Path) -> None:
    (encoder,) = open_encoders(str(sana_folder))
    with pytest.raises(DoesNotApply, match="positions"):
        measure(encoder, "attenuation")
