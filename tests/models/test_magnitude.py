import pytest
import torch

from dti_geom.errors import MagnitudeError, UnknownToken
from dti_geom.geometry import norms, summarize_norms
from dti_geom.models import StoredEncoder, open_encoders
from dti_geom.models.magnitude import Magnitude, parse_magnitude, row_norm, token_norms

GRAMMAR = r"is no magnitude; expected mean, median, min, max, init, token:WORD, a number times"


@pytest.fixture(scope="module")
def encoder(sd15_folder: object) -> StoredEncoder:
    return open_encoders(str(sd15_folder))[0]


def norm(text: str, encoder: StoredEncoder) -> float:
    magnitude = parse_magnitude(text, may_learn=True)
    return magnitude.factor * row_norm(magnitude, encoder.token_table, encoder.vocabulary)


@pytest.mark.parametrize(
    ("text", "magnitude"),
    [
        ("0.4", Magnitude("0.4", "number", 0.4)),
        ("1e-3", Magnitude("1e-3", "number", 1e-3)),
        ("mean", Magnitude("mean", "mean")),
        ("2*mean", Magnitude("2*mean", "mean", 2.0)),
        ("0.5*init", Magnitude("0.5*init", "init", 0.5)),
        ("token:a*b", Magnitude("token:a*b", "token", 1.0, "a*b")),
        ("2*token:#7", Magnitude("2*token:#7", "token", 2.0, "#7")),
        ("learned", Magnitude("learned", "learned")),
    ],
)
def test_a_magnitude_is_a_number_or_a_multiple_of_a_named_norm(
    text: str, magnitude: Magnitude
) -> None:
    assert parse_magnitude(text, may_learn=True) == magnitude
    assert magnitude.needs_vocabulary == (magnitude.name != "number")


@pytest.mark.parametrize(
    "text",
    ["", "-1", "0", "nan", "inf", "average", "tokens:cat", "token:"],
)
def test_what_is_no_magnitude_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(MagnitudeError, match=GRAMMAR):
        parse_magnitude(text, may_learn=True)


@pytest.mark.parametrize(
    "text", ["2*average", "-2*mean", "2*", "*mean", "2*learned", "2*3", "nan*mean", "0*mean"]
)
def test_only_a_named_norm_is_multiplied_and_only_by_a_number_above_zero(text: str) -> None:
    with pytest.raises(MagnitudeError, match=GRAMMAR):
        parse_magnitude(text, may_learn=True)


def test_only_a_training_learns_its_magnitude() -> None:
    with pytest.raises(MagnitudeError, match=GRAMMAR):
        parse_magnitude("learned")


def test_names_of_the_whole_table_are_those_of_its_nonzero_rows(encoder: StoredEncoder) -> None:
    lengths = norms(encoder.token_table)
    lengths = lengths[lengths > 0].double()
    expected = {"mean": lengths.mean(), "learned": lengths.mean(), "2*mean": 2 * lengths.mean()}
    expected |= {"median": lengths.median(), "min": lengths.min(), "max": lengths.max()}
    for text, value in expected.items():
        assert norm(text, encoder) == pytest.approx(float(value), rel=1e-6)


def test_the_median_of_an_even_number_of_rows_is_the_lower_of_the_middle_two() -> None:
    table = torch.diag(torch.tensor([0.0, 3.0, 1.0, 2.0, 7.0]))
    magnitude = parse_magnitude("median")
    assert row_norm(magnitude, table, vocabulary=None) == 2.0  # type: ignore[arg-type]


def test_a_word_lends_its_norm(encoder: StoredEncoder) -> None:
    (row,) = encoder.vocabulary.rows("cat")
    expected = float(encoder.token_table[row].norm())
    assert norm("token:cat", encoder) == pytest.approx(expected, rel=1e-6)
    assert norm(f"token:#{row}", encoder) == norm("token:cat", encoder)
    with pytest.raises(UnknownToken):
        norm("token:#99999", encoder)


def test_a_word_of_several_tokens_is_refused_with_its_pieces(encoder: StoredEncoder) -> None:
    rows = encoder.vocabulary.rows("red dog")
    assert len(rows) == 2
    with pytest.raises(MagnitudeError, match=r"red dog is 2 tokens here \(red dog\)") as refused:
        norm("token:red dog", encoder)
    assert f"token:#{rows[0]}, token:#{rows[1]}" in str(refused.value)


def test_the_start_words_norm_goes_vector_by_vector_and_exists_only_in_training(
    encoder: StoredEncoder,
) -> None:
    init = encoder.token_table[encoder.vocabulary.rows("red dog")]
    for text, factor in (("init", 1.0), ("3*init", 3.0)):
        magnitude = parse_magnitude(text)
        found = token_norms(magnitude, encoder.token_table, encoder.vocabulary, init)
        torch.testing.assert_close(found, factor * norms(init)[:, None])
    with pytest.raises(MagnitudeError, match="token:WORD"):
        norm("init", encoder)


def test_every_vector_of_a_token_gets_the_norm(encoder: StoredEncoder) -> None:
    table = encoder.token_table
    found = token_norms(
        parse_magnitude("2*mean"),
        table=table,
        vocabulary=encoder.vocabulary,
        init=table[:3],
        summary=summarize_norms(table),
    )
    assert found.shape == (3, 1)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([2 * summarize_norms(table).mean] * 3)
