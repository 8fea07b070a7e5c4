import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from dti_geom.geometry.effects import CELLS, cell_rows

SCALE = 10.0


@pytest.fixture
def parts() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    e, p = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    return e, p


def test_a_row_and_its_position_make_the_input_of_its_cell(parts: tuple[Tensor, Tensor]) -> None:
    e, p = parts
    inputs = {name: row + p for name, row in cell_rows(e, p, SCALE).items()}
    expected = {
        "neither": e + p,
        "I": e + p / SCALE,
        "II": SCALE * e + SCALE * p,
        "both": SCALE * e + p,
    }
    assert tuple(inputs) == CELLS
    for name, value in expected.items():
        torch.testing.assert_close(inputs[name], value)


def test_a_normalisation_sees_one_effect_and_length_the_other(
    parts: tuple[Tensor, Tensor],
) -> None:
    """Only Effect I changes what the first normalisation gives; only II makes the state longer."""
    e, p = parts
    inputs = {name: row + p for name, row in cell_rows(e, p, SCALE).items()}
    seen = {name: layer_norm(x, (16,), eps=0) for name, x in inputs.items()}
    torch.testing.assert_close(seen["neither"], seen["II"])
    torch.testing.assert_close(seen["I"], seen["both"])
    assert (seen["I"] - seen["neither"]).norm(dim=-1).min() > 0.1
    for short, long in (("neither", "II"), ("I", "both")):
        lengths = inputs[long].norm(dim=-1) / inputs[short].norm(dim=-1)
        torch.testing.assert_close(lengths, torch.full_like(lengths, SCALE))


def test_a_token_stands_at_several_positions(parts: tuple[Tensor, Tensor]) -> None:
    e, p = parts
    at_once = cell_rows(e[0], p, SCALE)
    for name, rows in at_once.items():
        assert rows.shape == p.shape
        for place in range(len(p)):
            alone = cell_rows(e[0], p[place], SCALE)[name]
            torch.testing.assert_close(rows[place], alone)
