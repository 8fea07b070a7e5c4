from collections.abc import Callable

import pytest

from dti_geom.probes.ask import AskResult
from dti_geom.reporting.blocks import tables
from dti_geom.reporting.sections.ask import ask_finding, ask_section

Make = Callable[..., AskResult]


@pytest.mark.parametrize(("gain", "says"), [(2.0, "heard 1 of 1"), (0.5, "heard none of 1")])
def test_a_token_is_heard_if_it_gains_more_than_each_random_direction(
    make_ask: Make, gain: float, says: str
) -> None:
    assert says in ask_finding(make_ask(gain=gain))


def test_tokens_words_and_random_directions_have_their_tables(make_ask: Make) -> None:
    shown = [(table.title, len(table.rows)) for _, table in tables(ask_section(make_ask()))]
    assert shown == [("Answers", 1), ("Known words", 1), ("Random directions, norm 0.900", 2)]
    (_, answers), *_ = tables(ask_section(make_ask()))
    ((_, question, answer, *_, verdict),) = answers.rows
    assert (question, answer, verdict) == ("{} is a kind of", "a small red fox", "heard")
