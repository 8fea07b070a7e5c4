from pathlib import Path

import pytest
import torch

from dti_geom import geometry
from dti_geom.editing import rescale, target_norm
from dti_geom.editing.rescaling import encoder_for, outlying_rows, parse_rescaling
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


# --- Rules for whole files ---


def norms_after(rule: str, learned: LearnedToken, only: str | None = None) -> list[float]:
    return geometry.norms(parse_rescaling(rule, only).apply(learned, ()).vectors).tolist()


def token(tower: str | None, width: int, *norms: float) -> LearnedToken:
    rows = torch.nn.functional.normalize(torch.randn(len(norms), width), dim=1)
    return LearnedToken("<x>", tower, rows * torch.tensor(norms)[:, None])


def test_published_is_the_published_mean_of_each_encoder() -> None:
    assert norms_after("published", token(None, 768, 4.0)) == pytest.approx([0.3870])
    assert norms_after("published", token("clip_g", 1280, 4.0)) == pytest.approx([0.4515])
    with pytest.raises(EditingError, match="published for OpenCLIP ViT-H/14 of width 1024"):
        norms_after("published", token(None, 1024, 4.0))


@pytest.mark.parametrize("rule", ["×0.5", "x0.5", "x.5"])
def test_a_factor_is_of_each_vectors_own_norm(rule: str) -> None:
    assert norms_after(rule, token(None, 8, 4.0, 1.0)) == pytest.approx([2.0, 0.5])


def test_each_encoder_may_have_a_rule_of_its_own() -> None:
    rule = "clip_l=0.4, t5=x2"
    assert norms_after(rule, token("1", 768, 4.0)) == pytest.approx([0.4])
    assert norms_after(rule, token("t5xxl", 4096, 4.0)) == pytest.approx([8.0])
    assert norms_after(rule, token("clip_g", 1280, 4.0)) == pytest.approx([4.0])


def test_only_the_vectors_that_are_named_change() -> None:
    learned = token(None, 768, 4.0, 0.4, 4.0)
    kept = parse_rescaling("published", "inflated").apply(learned, ())
    assert geometry.norms(kept.vectors).tolist() == pytest.approx([0.387, 0.4, 0.387])
    assert torch.equal(kept.vectors[1], learned.vectors[1])
    assert norms_after("1", learned, "1,2") == pytest.approx([4.0, 1.0, 1.0])
    with pytest.raises(EditingError, match="3 vectors, 0 to 2, and --only names 3"):
        norms_after("1", learned, "3")
    for wrong in ("long", "1-2", ""):
        with pytest.raises(EditingError, match="expected inflated, short, or indices"):
            parse_rescaling("1", wrong)


def test_a_row_of_the_vocabulary_is_not_inflated(encoder: TextEncoder) -> None:
    norms = geometry.row_norms(encoder.token_table)
    row = encoder.token_table[norms.argmax()]
    learned = LearnedToken("<x>", None, torch.stack([row, 3 * row]))
    assert outlying_rows(learned, "inflated", encoder) == [1]
    assert outlying_rows(learned, "short", encoder) == []


@pytest.mark.parametrize("rule", ["clip_l=big", "big", "x0", "clip_l=0.4,0.5", "clip_q=0.4"])
def test_a_rule_that_is_none_is_refused_with_the_grammar(rule: str) -> None:
    with pytest.raises(MagnitudeError, match=r"published, ×0\.5"):
        parse_rescaling(rule)
