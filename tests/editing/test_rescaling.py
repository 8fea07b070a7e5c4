from pathlib import Path

import pytest
import torch

from dti_geom import geometry
from dti_geom.editing import rescale, target_norm
from dti_geom.editing.rescaling import encoder_for
from dti_geom.errors import EditingError, GeometryError, MagnitudeError, UnknownToken
from dti_geom.files import LearnedToken
from dti_geom.models import TextEncoder, open_encoders


@pytest.fixture(scope="module")
def encoder(sd15_folder: Path) -> TextEncoder:
    return open_encoders(str(sd15_folder))[0]


@pytest.mark.parametrize(
    ("dtype", "error"),
    [
        (torch.float16, 2**-11),
        (torch.bfloat16, 2**-8),
        (torch.float32, 2**-24),
        (torch.float64, 2**-50),
    ],
)
def test_rescaling_sets_the_norm_and_keeps_direction_to_half_a_unit_in_the_last_place(
    dtype: torch.dtype, error: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = (20 * torch.randn(5, 768, generator=generator)).to(dtype)
    after = rescale(LearnedToken("<x>", "1", vectors), 0.4)
    assert (after.token, after.tower, after.vectors.dtype) == ("<x>", "1", dtype)
    wanted = 0.4 * torch.nn.functional.normalize(vectors.double(), dim=-1)
    assert (after.vectors.double() - wanted).norm(dim=-1).max() <= 0.4 * error
    assert geometry.norms(after.vectors.double()).tolist() == pytest.approx([0.4] * 5, rel=error)


def test_the_vectors_given_are_not_changed() -> None:
    vectors = torch.ones(1, 4)
    rescale(LearnedToken("<x>", None, vectors), 7.0)
    assert torch.equal(vectors, torch.ones(1, 4))


def test_a_zero_vector_cannot_be_rescaled() -> None:
    with pytest.raises(GeometryError):
        rescale(LearnedToken("<x>", None, torch.zeros(1, 4)), 1.0)


def test_mean_and_median_are_those_of_the_vocabulary(encoder: TextEncoder) -> None:
    norms = geometry.row_norms(encoder.token_table)
    norms = norms[norms > 0].double()
    assert target_norm("mean", encoder) == pytest.approx(float(norms.mean()), rel=1e-6)
    assert target_norm("median", encoder) == pytest.approx(float(norms.median()), rel=1e-6)


def test_a_word_lends_its_norm(encoder: TextEncoder) -> None:
    (row,) = encoder.vocabulary.rows("cat")
    assert target_norm("token:cat", encoder) == pytest.approx(
        float(encoder.token_table[row].norm()), rel=1e-6
    )
    assert target_norm("2*token:cat", encoder) == 2 * target_norm("token:cat", encoder)
    assert len(encoder.vocabulary.rows("xyz")) > 1
    with pytest.raises(MagnitudeError, match="token:xyz"):
        target_norm("token:xyz", encoder)
    with pytest.raises(UnknownToken):
        target_norm("token:#99999", encoder)


def test_a_number_needs_no_encoder() -> None:
    assert target_norm("0.4") == 0.4


@pytest.mark.parametrize("rule", ["mean", "median", "token:cat"])
def test_the_other_rules_do(rule: str) -> None:
    with pytest.raises(EditingError, match="--model"):
        target_norm(rule)


@pytest.mark.parametrize("rule", ["learned", "0", "-1", "nan", "inf", "", "tokens:cat"])
def test_what_is_no_magnitude_is_refused_with_the_grammar(rule: str) -> None:
    with pytest.raises(MagnitudeError, match=r"expected mean, median, .* or a number above 0"):
        target_norm(rule)


def test_the_encoder_is_chosen_by_width(sdxl_folder: Path) -> None:
    first, second = open_encoders(str(sdxl_folder))
    assert encoder_for(LearnedToken("<x>", None, torch.ones(1, 48)), [first, second]) is second
    assert encoder_for(LearnedToken("<x>", None, torch.ones(1, 48)), []) is None
    with pytest.raises(EditingError, match="width 7, and the encoders of this model have 32, 48"):
        encoder_for(LearnedToken("<x>", None, torch.ones(1, 7)), [first, second])
    assert encoder_for(LearnedToken("<x>", "2", torch.ones(1, 32)), [first, first]) is first
