import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry import RiemannianAdam, RiemannianSGD, angle, normalize, norms

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])


def directions(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def step_with(optimizer: torch.optim.Optimizer, parameter: Tensor, gradient: Tensor) -> None:
    parameter.grad = gradient.clone()
    optimizer.step()


def test_one_step_by_hand() -> None:
    # v = e1, ∂L/∂v = (5, 3, 0), κμ = (0, 0, 4): g = (5, 3, −4). Its tangent part is (0, 3, −4), of
    # norm 5, and as a unit vector (0, 0.6, −0.8).
    # v − 0.75·g = (1, −0.45, 0.6), of norm √(1 + 0.2025 + 0.36) = 1.25.
    v = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = RiemannianSGD(
        [v], lr=0.75, kappa=4.0, prior_direction=torch.tensor([0.0, 0.0, 1.0]), eps=0
    )
    step_with(optimizer, v, torch.tensor([5.0, 3.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(v.detach(), torch.tensor([0.8, -0.36, 0.48], dtype=torch.float64))


def test_two_steps_with_a_second_moment_by_hand() -> None:
    # In the plane only the tangent size counts. Step 1: |g| = 2, s = 0.25·4 = 1, ŝ = 1/0.25 = 4,
    # so the unit step.
    # Step 2: |g| = 1, s = 0.75·1 + 0.25·1 = 1, ŝ = 1/(1 − 0.75²) = 16/7, step size 0.1·√7/4.
    v = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = RiemannianSGD([v], lr=0.1, beta=0.75, eps=0)
    turned = 0.0
    for size, step in ((2.0, 0.1), (1.0, 0.1 * math.sqrt(7) / 4)):
        across = torch.tensor([math.sin(turned), -math.cos(turned)], dtype=torch.float64)
        step_with(optimizer, v, size * across)
        turned += math.atan(step)
        expected = torch.tensor([math.cos(turned), math.sin(turned)], dtype=torch.float64)
        torch.testing.assert_close(v.detach(), expected)


@dtypes
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_by_default_each_step_turns_by_the_arctangent_of_the_rate_whatever_the_gradient(
    dtype: torch.dtype, scale: float
) -> None:
    v = directions(5, 32, dtype=dtype).requires_grad_()
    before = v.detach().clone()
    step_with(RiemannianSGD([v], lr=0.1), v, scale * torch.randn(5, 32).to(dtype))
    assert v.dtype == dtype
    turned = angle(before, v.detach()).double()
    torch.testing.assert_close(
        turned,
        torch.full((5,), math.atan(0.1)).double(),
        atol=1e-2 if dtype == torch.bfloat16 else 2e-5,
        rtol=0,
    )


@dtypes
def test_rows_stay_unit_over_many_steps(dtype: torch.dtype) -> None:
    v = directions(2, 3, 16, dtype=dtype).requires_grad_()
    optimizer = RiemannianSGD([v], lr=0.05, kappa=0.1, prior_direction=directions(16), beta=0.9)
    for i in range(200):
        step_with(optimizer, v, directions(2, 3, 16, seed=i, dtype=dtype))
    assert (norms(v.detach()) - 1).abs().max() < (4e-3 if dtype == torch.bfloat16 else 1e-6)


def test_descent_finds_the_direction_of_least_loss() -> None:
    target = directions(8, seed=3)
    v = directions(8, seed=4).requires_grad_()
    optimizer = RiemannianSGD([v], lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        (-(v * target).sum()).backward()
        optimizer.step()
    assert angle(v.detach(), target) < 0.011


def test_the_prior_alone_pulls_a_row_to_its_direction() -> None:
    prior = directions(8, seed=3)
    v = directions(8, seed=4).requires_grad_()
    optimizer = RiemannianSGD([v], lr=0.01, kappa=1.0, prior_direction=prior)
    start = angle(v.detach(), prior)
    for _ in range(50):
        step_with(optimizer, v, torch.full((8,), 1e-12))
    assert angle(v.detach(), prior).item() == pytest.approx(
        start.item() - 50 * math.atan(0.01), abs=1e-4
    )


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_a_row_without_gradient_neither_moves_nor_ages(beta: float) -> None:
    options: dict[str, Any] = {
        "lr": 0.1,
        "beta": beta,
        "kappa": 0.5,
        "prior_direction": directions(6, seed=9),
    }
    both = directions(2, 6).requires_grad_()
    alone = both.detach()[1].clone().requires_grad_()
    still = both.detach()[1].clone()
    optimizer, reference = RiemannianSGD([both], **options), RiemannianSGD([alone], **options)
    # Row 1 has no gradient in the first two steps: it must then go as if they had never been.
    for i in range(2):
        step_with(optimizer, both, torch.stack([directions(6, seed=i), torch.zeros(6)]))
        assert torch.equal(both.detach()[1], still)
    for i in range(3):
        gradient = (i + 1) * directions(6, seed=10 + i)
        step_with(optimizer, both, torch.stack([gradient, gradient]))
        step_with(reference, alone, gradient)
        torch.testing.assert_close(both.detach()[1], alone.detach(), rtol=0, atol=1e-7)


def test_a_parameter_without_gradient_stays() -> None:
    v = directions(3, 4).requires_grad_()
    before = v.detach().clone()
    RiemannianSGD([v], lr=0.1, kappa=1.0, prior_direction=directions(4, seed=1)).step()
    assert torch.equal(v, before)


def test_rows_are_stepped_independently() -> None:
    v = directions(4, 5)
    together = v.clone().requires_grad_()
    gradient = directions(4, 5, seed=1) * torch.tensor([[1.0], [10.0], [0.1], [3.0]])
    step_with(RiemannianSGD([together], lr=0.2, beta=0.5), together, gradient)
    for row in range(4):
        alone = v[row].clone().requires_grad_()
        step_with(RiemannianSGD([alone], lr=0.2, beta=0.5), alone, gradient[row])
        torch.testing.assert_close(together.detach()[row], alone.detach(), rtol=0, atol=1e-7)


def test_each_row_can_have_a_prior_of_its_own() -> None:
    v = directions(2, 5).requires_grad_()
    priors = directions(2, 5, seed=1)
    before = angle(v.detach(), priors)
    step_with(
        RiemannianSGD([v], lr=0.1, kappa=1.0, prior_direction=priors), v, torch.full((2, 5), 1e-12)
    )
    torch.testing.assert_close(
        before - angle(v.detach(), priors), torch.full((2,), math.atan(0.1)), rtol=0, atol=1e-5
    )


@dtypes
def test_a_restored_optimizer_continues_bit_for_bit(dtype: torch.dtype) -> None:
    options: dict[str, Any] = {
        "lr": 0.05,
        "beta": 0.9,
        "kappa": 0.1,
        "prior_direction": directions(7, seed=2),
    }
    v = directions(3, 7, dtype=dtype).requires_grad_()
    optimizer = RiemannianSGD([v], **options)
    gradients = [directions(3, 7, seed=i, dtype=dtype) for i in range(10)]
    for gradient in gradients[:5]:
        step_with(optimizer, v, gradient)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    w = v.detach().clone().requires_grad_()
    restored = RiemannianSGD([w], lr=0.7)
    restored.load_state_dict(torch.load(file))
    saved = copy.deepcopy(optimizer.state_dict()["state"])
    for name, value in restored.state_dict()["state"][0].items():
        assert value.dtype == saved[0][name].dtype
    for gradient in gradients[5:]:
        step_with(optimizer, v, gradient)
        step_with(restored, w, gradient)
        assert torch.equal(v, w)


def test_a_closure_is_called_and_its_loss_returned() -> None:
    v = directions(4).requires_grad_()
    optimizer = RiemannianSGD([v], lr=0.1)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = v.sum()
        loss.backward()
        return loss

    before = v.sum().item()
    loss: Any = optimizer.step(closure)
    assert loss.item() == before
    assert v.sum().item() < before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr is -1.0"),
        ({"kappa": -1.0}, "kappa is -1.0"),
        ({"beta": 1.0}, "beta is 1.0"),
        ({"eps": -1.0}, "eps is -1.0"),
        ({"kappa": 1.0}, "prior_direction is None"),
        ({"prior_direction": 2 * directions(4)}, "prior_direction is not unit"),
        ({"prior_direction": directions(5)}, "dimension 4 and prior_direction has dimension 5"),
        ({"prior_direction": directions(2, 4)}, "more rows than the parameter"),
    ],
)
def test_options_that_make_no_sense_are_refused_when_built(options: Any, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        RiemannianSGD([directions(4).requires_grad_()], **options)


def test_parameters_off_the_sphere_are_refused_when_built() -> None:
    with pytest.raises(GeometryError, match="a parameter is not unit"):
        RiemannianSGD([torch.ones(4, requires_grad=True)])


def test_a_gradient_with_nan_raises_and_moves_nothing() -> None:
    v = directions(2, 4).requires_grad_()
    before = v.detach().clone()
    with pytest.raises(GeometryError, match="the gradient holds NaN"):
        step_with(RiemannianSGD([v]), v, torch.full((2, 4), math.nan))
    assert torch.equal(v, before)


def test_riemannian_adam_walks_as_geoopts_does() -> None:
    geoopt = pytest.importorskip("geoopt")
    start = directions(1, 16).double()
    target = directions(1, 16, seed=1).double()
    ours = start.clone().requires_grad_()
    theirs = geoopt.ManifoldParameter(start.clone(), manifold=geoopt.Sphere())
    optimizers = (RiemannianAdam([ours], lr=0.05), geoopt.optim.RiemannianAdam([theirs], lr=0.05))
    for _ in range(30):
        for v, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (3 * (v - target) ** 2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.detach(), theirs.detach(), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "make",
    [RiemannianAdam, lambda params, **options: RiemannianSGD(params, momentum=0.9, **options)],
)
@dtypes
def test_with_momentum_rows_stay_unit_and_resting_rows_rest(make: Any, dtype: torch.dtype) -> None:
    v = directions(3, 32, dtype=dtype).requires_grad_()
    resting = v.detach()[1].clone()
    optimizer = make([v], lr=0.1)
    for step in range(50):
        gradient = torch.randn(3, 32, generator=torch.Generator().manual_seed(step)).to(dtype)
        gradient[1] = 0
        step_with(optimizer, v, gradient)
    assert torch.equal(v.detach()[1], resting)
    torch.testing.assert_close(
        norms(v.detach()).float(),
        torch.ones(3),
        atol=1e-2 if dtype == torch.bfloat16 else 1e-6,
        rtol=0,
    )


def test_momentum_repeats_a_steady_gradient_in_growing_steps() -> None:
    # On the circle, with a unit tangent gradient and tiny steps, the sizes add up: 1, ½ + 1, ¾ + 1.
    v = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = RiemannianSGD([v], lr=1e-4, momentum=0.5)
    turned = []
    for _ in range(3):
        x, y = v.detach()
        before = v.detach().clone()
        step_with(optimizer, v, torch.stack([y, -x]))
        turned.append(float(angle(before, v.detach())) / 1e-4)
    assert turned == pytest.approx([1, 1.5, 1.75], rel=1e-4)


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"momentum": -0.1}])
def test_a_momentum_outside_its_range_is_refused(options: Any) -> None:
    with pytest.raises(GeometryError, match="momentum"):
        RiemannianSGD([directions(4).requires_grad_()], **options)


def test_betas_outside_their_range_are_refused() -> None:
    with pytest.raises(GeometryError, match="betas"):
        RiemannianAdam([directions(4).requires_grad_()], betas=(0.9, 1.0))
