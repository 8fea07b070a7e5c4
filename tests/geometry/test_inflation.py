import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.files import read_embeddings
from dti_geom.geometry.inflation import Walk, implied_rate, rate_within

WIDTH = 512
Gradient = Callable[[Tensor, torch.Generator], Tensor]  # (vector, random numbers) → gradient


def white(vector: Tensor, generator: torch.Generator) -> Tensor:
    """A random gradient of constant size that does not point along the vector."""
    gradient = torch.randn(len(vector), generator=generator)
    return gradient - (gradient @ vector) / (vector @ vector) * vector


def of_direction(vector: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient of a loss that sees only the direction of the vector."""
    leaf = vector.clone().requires_grad_()
    loss = torch.randn(len(vector), generator=generator) @ (leaf / leaf.norm())
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def trained_norm(walk: Walk, steps: int, beta_1: float, gradient: Gradient) -> float:
    """The norm of a vector after updates of torch's AdamW."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(walk.width, generator=generator)
    vector = torch.nn.Parameter(walk.start_norm * start / start.norm())
    optimizer = torch.optim.AdamW(
        [vector],
        lr=walk.learning_rate,
        betas=(beta_1, 0.999),
        weight_decay=walk.weight_decay,
    )
    for _ in range(steps):
        vector.grad = gradient(vector.detach(), generator)
        optimizer.step()
    return float(vector.detach().norm())


@pytest.mark.parametrize("beta_1", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("rate", "decay"), [(2e-3, 0.0), (2e-3, 0.01), (5e-3, 1.0), (3e-4, 0.01)])
def test_adamw_on_white_gradients_follows_the_law_whatever_beta_1(
    rate: float, decay: float, beta_1: float
) -> None:
    walk = Walk(WIDTH, 0.4, rate, decay)
    assert trained_norm(walk, 600, beta_1, white) == pytest.approx(walk.norm(600), rel=0.03)


@pytest.mark.parametrize("rate", [5e-4, 2e-3, 5e-3])
def test_a_loss_of_directions_slows_the_walk_as_its_gradient_shrinks(rate: float) -> None:
    walk = Walk(WIDTH, 0.4, rate, 0.01)
    found = trained_norm(walk, 1000, 0.9, of_direction)
    assert found == pytest.approx(walk.slowed_norms(1000)[-1], rel=0.08)
    assert found < walk.norm(1000)


def test_decay_as_fast_as_the_memory_of_beta_1_lowers_the_plateau_by_a_known_factor() -> None:
    walk, kept, beta_1 = Walk(WIDTH, 0.4, 5e-3, 20), 0.9, 0.9
    factor = (1 - beta_1) * (1 + kept * beta_1) / ((1 + beta_1) * (1 - kept * beta_1))
    assert walk.plateau is not None
    expected = walk.plateau * math.sqrt(factor)
    norms = [trained_norm(walk, steps, beta_1, white) for steps in (600, 700, 800)]
    assert sum(norms) / len(norms) == pytest.approx(expected, rel=0.06)


def recursion(walk: Walk, steps: int) -> list[float]:
    squares = [walk.start_norm**2]
    for _ in range(steps):
        kept = (1 - walk.learning_rate * walk.weight_decay) ** 2
        squares.append(kept * squares[-1] + walk.learning_rate**2 * walk.width)
    return [math.sqrt(square) for square in squares]


@pytest.mark.parametrize("walk", [Walk(8, 0.4, 0.01), Walk(8, 0.4, 0.01, 2), Walk(8, 3, 0.1, 5)])
def test_the_closed_form_is_the_recursion(walk: Walk) -> None:
    assert [walk.norm(step) for step in range(200)] == pytest.approx(recursion(walk, 199))


def test_the_norm_without_decay_is_a_known_root() -> None:
    assert Walk(768, 0.0, 1e-3).norm(3000) == pytest.approx(math.sqrt(768 * 3e-3))
    assert Walk(4, 3.0, 1.0).norm(4) == pytest.approx(5)


def test_a_small_decay_changes_little_and_a_long_run_reaches_the_plateau() -> None:
    free, barely = Walk(768, 0.4, 1e-3), Walk(768, 0.4, 1e-3, 1e-12)
    assert barely.norm(5000) == pytest.approx(free.norm(5000))
    decaying = Walk(768, 0.4, 1e-3, 0.5)
    assert decaying.norm(100_000) == pytest.approx(decaying.plateau)
    assert free.plateau is None


@pytest.mark.parametrize("decay", [0.0, 0.01, 0.5])
def test_the_walk_leaves_a_range_at_the_first_update_above_it(decay: float) -> None:
    walk, limit = Walk(768, 0.4, 2e-3, decay), 0.9
    update = walk.leaves(limit)
    assert update is not None
    assert walk.norm(update - 1) <= limit < walk.norm(update)


def test_a_walk_below_its_plateau_never_leaves_and_one_from_outside_is_out_at_once() -> None:
    walk = Walk(768, 0.4, 1e-3, 1.0)
    assert walk.plateau is not None
    assert walk.leaves(1.01 * walk.plateau) is None
    assert walk.leaves(0.3) == 0


@pytest.mark.parametrize("decay", [0.0, 0.01, 0.5])
def test_the_rate_within_a_range_ends_at_its_border(decay: float) -> None:
    rate = rate_within(768, 0.4, 0.5, 3000, decay)
    assert rate is not None
    assert Walk(768, 0.4, rate, decay).norm(3000) == pytest.approx(0.5)
    assert rate_within(768, 0.5, 0.5, 3000, decay) is None


def test_slowed_norms_start_as_the_law_and_stay_below_it() -> None:
    walk = Walk(768, 0.4, 1e-3)
    slowed = walk.slowed_norms(3000)
    assert slowed[:2] == pytest.approx([0.4, walk.norm(1)])
    assert all(before < after for before, after in pairwise(slowed))
    assert all(slowed[step] < walk.norm(step) for step in range(2, 3001))


def test_norms_of_the_law_imply_its_own_rate() -> None:
    steps, walk = [100, 200, 500, 900], Walk(768, 0.4, 7e-4)
    implied = implied_rate(steps, [walk.norm(step) for step in steps], 768)
    assert implied is not None
    assert implied.rate == pytest.approx(7e-4)
    assert (implied.low, implied.high) == pytest.approx((7e-4, 7e-4), rel=1e-6)
    assert (implied.r_squared, implied.start_norm) == pytest.approx((1, 0.4))


def test_norms_that_do_not_grow_imply_no_rate() -> None:
    assert implied_rate([1, 2, 3], [0.5, 0.5, 0.5], 8) is None
    assert implied_rate([1, 2, 3], [0.5, 0.4, 0.3], 8) is None
    with pytest.raises(GeometryError, match="2 different"):
        implied_rate([1, 2, 2], [0.5, 0.6, 0.7], 8)


def test_a_published_run_grows_as_the_law_says(shared_data: Path) -> None:
    steps, norms = [], []
    for path in sorted((shared_data / "embeddings" / "trajectory").glob("*.bin")):
        file = read_embeddings(path)
        steps.append(int(path.stem.removeprefix("step-")))
        norms.append(float(file.tokens[0].vectors.norm()))
    assert len(steps) == 20
    implied = implied_rate(steps, norms, 768)
    assert implied is not None
    assert implied.r_squared > 0.99
    assert implied.rate == pytest.approx(4.3e-4, abs=5e-6)
    assert implied.low < implied.rate < implied.high
    usual = Walk(768, 0.387, 5e-4, 0.01)  # diffusers' rate, from the mean token of CLIP-L
    slowed = usual.slowed_norms(5000)
    assert slowed[-1] < norms[-1] < usual.norm(5000)
    expected = implied_rate(steps, [slowed[step] for step in steps], 768)
    assert expected is not None
    assert expected.rate == pytest.approx(4.27e-4, abs=1e-6)
    assert implied.low < expected.rate < implied.high


def test_public_tokens_of_sdxl_end_below_the_law_and_near_the_slowed_walk() -> None:
    for width, start, found in ((768, 0.3870, 1.84), (1280, 0.4515, 2.67)):
        walk = Walk(width, start, 5e-3, 0.01)
        assert found < walk.norm(400)
        assert walk.slowed_norms(400)[-1] == pytest.approx(found, rel=0.12)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ((0, 0.4, 1e-3, 0), "width"),
        ((8, -1, 1e-3, 0), "start_norm"),
        ((8, 0.4, 0, 0), "learning_rate"),
        ((8, 0.4, math.nan, 0), "learning_rate"),
        ((8, 0.4, 0.1, 10), "weight_decay"),
    ],
)
def test_what_no_run_could_do_is_refused(
    values: tuple[int, float, float, float], name: str
) -> None:
    with pytest.raises(GeometryError, match=name):
        Walk(*values)


def test_shrinking_gradients_need_a_length_to_start_from() -> None:
    with pytest.raises(GeometryError, match="start_norm is 0"):
        Walk(8, 0, 1e-3).slowed_norms(3)


def test_a_schedule_of_full_rates_is_the_law() -> None:
    walk = Walk(width=32, start_norm=0.4, learning_rate=0.02, weight_decay=0.3)
    assert walk.scheduled_norms([1.0] * 50) == pytest.approx([walk.norm(t) for t in range(51)])


def test_an_update_without_rate_changes_nothing() -> None:
    walk = Walk(width=32, start_norm=0.4, learning_rate=0.02, weight_decay=0.3)
    assert walk.scheduled_norms([0.0, 0.0]) == pytest.approx([0.4, 0.4, 0.4])


def test_half_of_the_rate_is_a_walk_at_half_of_the_rate() -> None:
    walk = Walk(width=32, start_norm=0.4, learning_rate=0.02, weight_decay=0.3)
    slower = Walk(width=32, start_norm=0.4, learning_rate=0.01, weight_decay=0.3)
    expected = [slower.norm(update) for update in range(51)]
    assert walk.scheduled_norms([0.5] * 50) == pytest.approx(expected)
