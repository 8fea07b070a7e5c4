import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import DoesNotApply, GeometryError
from dti_geom.geometry import normalize
from dti_geom.geometry.layout import Layout, kept_neighbors, lay_out

GROUPS, EACH = 4, 30


@pytest.fixture(scope="module")
def grouped() -> Tensor:
    """Unit vectors near four orthogonal ones, group by group."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(GROUPS, 32).repeat_interleave(EACH, dim=0)
    return normalize(centres + 0.05 * torch.randn(GROUPS * EACH, 32, generator=generator))


@pytest.fixture(scope="module")
def layout(grouped: Tensor) -> Layout:
    return lay_out(grouped)


def group_at(layout: Layout, point: Tensor) -> int:
    """Return the group of the row that lies nearest to a point of the map."""
    return int((layout.positions - point).norm(dim=1).argmin()) // EACH


def test_the_neighbours_are_exact_ones_whatever_the_map_shows(
    layout: Layout, grouped: Tensor
) -> None:
    cosines = grouped.double() @ grouped.double().T
    cosines.fill_diagonal_(-2)
    exact = cosines.topk(10)
    torch.testing.assert_close(layout.similarities.double(), exact.values, atol=1e-6, rtol=0)
    assert torch.equal(layout.neighbors, exact.indices)


def test_far_groups_stay_apart_and_most_neighbours_are_kept(layout: Layout) -> None:
    apart = torch.cdist(layout.positions, layout.positions).fill_diagonal_(torch.inf)
    same = apart.argmin(dim=1) // EACH == torch.arange(GROUPS * EACH) // EACH
    assert same.all()
    assert kept_neighbors(layout.neighbors, layout.positions) > 0.5


def test_a_vector_of_a_group_is_placed_in_it_as_if_alone(layout: Layout) -> None:
    generator = torch.Generator().manual_seed(1)
    others = normalize(torch.eye(GROUPS, 32) + 0.05 * torch.randn(GROUPS, 32, generator=generator))
    before = layout.positions.clone()
    together = layout.place(others)
    assert [group_at(layout, point) for point in together] == list(range(GROUPS))
    torch.testing.assert_close(layout.place(others[2:3])[0], together[2])
    assert torch.equal(layout.positions, before)
    assert layout.place(others[:0]).shape == (0, 2)


def test_the_same_seed_gives_the_same_map(layout: Layout, grouped: Tensor) -> None:
    steps: list[tuple[str, int, int]] = []
    again = lay_out(grouped, progress=lambda *step: steps.append(step))
    assert torch.equal(again.positions, layout.positions)
    assert steps[-1] == ("map", 750, 750)


def test_equal_directions_are_laid_out_too(grouped: Tensor) -> None:
    twice = torch.cat([grouped[:20], grouped[:20]]).to(torch.float64)
    layout = lay_out(twice, 5)
    assert layout.positions.isfinite().all()
    assert torch.equal(layout.neighbors[:20, 0], torch.arange(20, 40))


def test_kept_neighbours_of_known_maps() -> None:
    line = torch.arange(20.0)
    true = torch.cdist(line[:, None], line[:, None]).fill_diagonal_(torch.inf)
    neighbors = (true + 1e-3 * torch.arange(20)).topk(2, largest=False).indices
    on_a_line = torch.stack([line, torch.zeros(20)], dim=1)
    assert kept_neighbors(neighbors[1:-1] - 1, on_a_line[1:-1]) > 0.9
    # All at one place: nothing is told apart, and no row counts as its own neighbour.
    assert 0 <= kept_neighbors(neighbors, torch.zeros(20, 2)) < 0.5
    # Every row has moved to the other end, so none of its neighbours is near.
    far = on_a_line.clone()
    far[::2, 0] += 100
    assert kept_neighbors(neighbors[1:-1] - 1, far[1:-1]) < 0.1


@pytest.mark.parametrize(
    ("directions", "k", "message"),
    [
        (2 * torch.eye(20), 3, "is not unit"),
        (torch.eye(20)[:5], 3, "5 directions and k = 3"),
        (torch.eye(20), 20, "20 directions and k = 20"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(directions: Tensor, k: int, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        lay_out(directions, k)


def test_without_the_library_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, *arguments: Any) -> Any:
        return None if name == "openTSNE" else find(name, *arguments)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(DoesNotApply, match=r"pip install 'dti-geom\[map\]'"):
        lay_out(torch.eye(20))
