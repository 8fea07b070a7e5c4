import math
from typing import Any

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry import VonMisesFisher, angle, normalize, norms
from dti_geom.geometry.von_mises_fisher import _log_relative_normalizer, _log_sphere_area

# d, κ, log C(κ), A(κ), from mpmath 1.3 with 50 digits:
#   v = mpf(d)/2 - 1; i = besseli(v, k, maxterms=10**7)
#   log C = v*log(k) - d/2*log(2*pi) - log(i);  A = besseli(v + 1, k, maxterms=10**7)/i
REFERENCE = [
    (2, 1e-06, -1.8378770664095956, 4.999999999999375e-07),
    (2, 1.0, -2.073791424916524, 0.4463899658965345),
    (2, 37.0, -36.11690495176146, 0.9863926006740762),
    (2, 1000000.0, -999994.0111833792, 0.999999499999875),
    (3, 0.001, -2.531024413635952, 0.0003333333111111132),
    (3, 10.0, -9.535291971354146, 0.9000000041223073),
    (3, 1000000.0, -999988.0223665085, 0.999999),
    (10, 10.0, -7.090957108908095, 0.6336683916233053),
    (10, 100000.0, -99956.46220345609, 0.9999550007875079),
    (50, 37.0, 14.065900459243844, 0.5338173723479865),
    (81, 1.0, 61.412195131093384, 0.012343843210763596),
    (82, 100.0, 20.009697774426556, 0.6727195471075174),
    (83, 370.0, -200.6823397228724, 0.8951771918158544),
    (128, 10000.0, -9531.650133330118, 0.9936698455377106),
    (768, 1e-06, 1458.7211511177081, 1.3020833333333334e-09),
    (768, 0.1, 1458.7211446072915, 0.00013020833113148794),
    (768, 370.0, 1377.6521965085074, 0.4034852969009929),
    (768, 1000000.0, -995406.5042115779, 0.9996165733444456),
    (1280, 3700.0, 433.91584832307126, 0.8419696078961177),
    (2304, 100.0, 5644.54588318871, 0.04332139229996088),
    (4096, 1e-06, 11219.226399984545, 2.44140625e-10),
    (4096, 1.0, 11219.226277914237, 0.00024414061045518846),
    (4096, 3700.0, 9912.425829689533, 0.5894910254304573),
    (4096, 1000000.0, -975473.7003213504, 0.9979545951042754),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def direction(dim: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(x).to(dtype)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("dim", "kappa", "log_c", "mean_length"), REFERENCE)
def test_normalizer_and_mean_length_equal_mpmath(
    dim: int, kappa: float, log_c: float, mean_length: float
) -> None:
    excess, ratio = _log_relative_normalizer(dim, torch.tensor(kappa, dtype=torch.float64))
    assert -_log_sphere_area(dim) - excess.item() == pytest.approx(log_c, rel=1e-13, abs=1e-13)
    assert ratio.item() == pytest.approx(mean_length, rel=1e-13)
    mu = direction(dim)
    assert VonMisesFisher(mu, kappa).log_prob(mu).item() == pytest.approx(
        log_c + kappa, rel=1e-10, abs=1e-9
    )


@given(st.integers(2, 4096), st.floats(-6, 6))
def test_everything_is_finite_and_ordered_over_the_whole_range(dim: int, log_kappa: float) -> None:
    kappa = 10**log_kappa
    mu = direction(dim)
    vmf = VonMisesFisher(mu, kappa)
    values = torch.stack([vmf.log_prob(mu), vmf.log_prob(-mu), vmf.entropy()])
    assert torch.isfinite(values).all()
    assert values[0] >= values[1]
    assert values[0] - values[1] == pytest.approx(2 * kappa, rel=1e-9, abs=1e-10)
    assert values[2] <= _log_sphere_area(dim) + 1e-9
    assert -values[2] <= values[0] + 1e-9
    sample = vmf.sample(2, generator=generator())
    assert torch.allclose(norms(sample), torch.ones(2, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("dim", [2, 3, 5, 20, 100])
@pytest.mark.parametrize("kappa", [0.01, 1.0, 20.0, 500.0])
def test_density_and_entropy_equal_scipy(dim: int, kappa: float) -> None:
    mu = direction(dim)
    x = normalize(torch.stack([direction(dim, seed=i) for i in range(1, 6)]) + mu)
    reference = scipy.stats.vonmises_fisher(mu.numpy(), kappa)
    vmf = VonMisesFisher(mu, kappa)
    assert vmf.log_prob(x).numpy() == pytest.approx(
        reference.logpdf(x.numpy()), rel=1e-10, abs=1e-10
    )
    assert vmf.entropy().item() == pytest.approx(reference.entropy(), rel=1e-8, abs=1e-8)


def test_density_on_the_ordinary_sphere_has_its_closed_form() -> None:
    # C_3(κ) = κ / (4π sinh κ)
    mu, x = direction(3), direction(3, seed=1)
    log_c = math.log(2.5 / (4 * math.pi * math.sinh(2.5)))
    assert VonMisesFisher(mu, 2.5).log_prob(x).item() == pytest.approx(
        log_c + 2.5 * (mu @ x).item(), rel=1e-13
    )


def test_density_integrates_to_one_on_the_circle() -> None:
    turn = torch.arange(4096, dtype=torch.float64) * (2 * math.pi / 4096)
    circle = torch.stack([turn.cos(), turn.sin()], dim=1)
    for kappa in (0.0, 1e-6, 3.0, 1e4):
        total = VonMisesFisher(direction(2), kappa).log_prob(circle).exp().sum() * (
            2 * math.pi / 4096
        )
        assert total.item() == pytest.approx(1, abs=1e-11)


@pytest.mark.parametrize("dim", [2, 3, 768, 4096])
def test_no_concentration_is_the_uniform_distribution(dim: int) -> None:
    mu = direction(dim)
    area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
    for kappa in (0.0, 1e-6):
        vmf = VonMisesFisher(mu, kappa)
        assert vmf.entropy().item() == pytest.approx(area, rel=1e-12)
        assert vmf.log_prob(-mu).item() == pytest.approx(-area - kappa, rel=1e-12)


@given(st.integers(2, 4096), st.floats(-3, 5))
def test_derivative_of_the_normalizer_is_the_mean_length(dim: int, log_kappa: float) -> None:
    kappa = torch.tensor(10**log_kappa, dtype=torch.float64, requires_grad=True)
    excess, ratio = _log_relative_normalizer(dim, kappa)
    (slope,) = torch.autograd.grad(excess, kappa)
    assert slope.item() == pytest.approx(ratio.item(), rel=1e-10)


def test_gradients_reach_point_mean_and_concentration() -> None:
    x = direction(5, seed=1)
    mu, kappa = (
        direction(5).requires_grad_(),
        torch.tensor(3.0, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda m, k: VonMisesFisher(m, k).log_prob(x), (mu, kappa))
    assert torch.autograd.gradcheck(lambda k: VonMisesFisher(mu, k).entropy(), (kappa,))


@dtypes
def test_gradient_of_the_log_density_is_kappa_mu(dtype: torch.dtype) -> None:
    mu, x = direction(4, dtype=dtype), direction(4, seed=1, dtype=dtype).expand(3, 4)
    gradient = VonMisesFisher(mu, 7.0).grad_log_prob(x)
    assert gradient.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(gradient, 7 * normalize(mu.to(gradient.dtype)).expand(3, 4))


@dtypes
def test_results_have_the_promised_dtypes(dtype: torch.dtype) -> None:
    mu = direction(16, dtype=dtype)
    vmf = VonMisesFisher(mu, 30.0)
    scalar = torch.promote_types(dtype, torch.float32)
    assert vmf.log_prob(mu).dtype == vmf.entropy().dtype == scalar
    sample = vmf.sample(3, generator=generator())
    assert sample.dtype == dtype
    assert (norms(sample) - 1).abs().max() < 4e-3
    assert VonMisesFisher.fit(vmf.sample(50, generator=generator())).mean_direction.dtype == dtype


@pytest.mark.parametrize("dim", [2, 3, 10, 400])
@pytest.mark.parametrize("kappa", [0.0, 1e-6, 1.0, 50.0, 1e3, 1e6])
def test_samples_have_the_theoretical_mean_and_spread(dim: int, kappa: float) -> None:
    n = 2000
    mu = direction(dim)
    along = VonMisesFisher(mu, kappa).sample(n, generator=generator()) @ mu
    k = torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
    _, expected = _log_relative_normalizer(dim, k)
    (variance,) = torch.autograd.grad(expected, k)  # A'(κ) is the variance of μᵀx
    assert (along.mean() - expected).abs() < 4 * (variance / n).sqrt()
    assert along.var().item() == pytest.approx(variance.item(), rel=0.25)


def test_samples_on_the_circle_follow_the_von_mises_law() -> None:
    mu = torch.tensor([1.0, 0.0], dtype=torch.float64)
    x = VonMisesFisher(mu, 2.0).sample(3000, generator=generator())
    assert (
        scipy.stats.kstest(
            torch.atan2(x[:, 1], x[:, 0]).numpy(), scipy.stats.vonmises(2.0).cdf
        ).pvalue
        > 0.01
    )


def test_samples_spread_evenly_around_the_mean_direction() -> None:
    mu = direction(6)
    x = VonMisesFisher(mu, 4.0).sample(10000, generator=generator())
    sideways = normalize(x - (x @ mu)[:, None] * mu)
    covariance = sideways.T @ sideways / len(x)
    torch.testing.assert_close(
        covariance, (torch.eye(6).double() - torch.outer(mu, mu)) / 5, rtol=0, atol=0.015
    )


def test_samples_repeat_bit_for_bit_from_a_generator() -> None:
    vmf = VonMisesFisher(direction(32), 10.0)
    assert torch.equal(
        vmf.sample((4, 5), generator=generator(7)), vmf.sample((4, 5), generator=generator(7))
    )
    assert not torch.equal(
        vmf.sample(4, generator=generator(7)), vmf.sample(4, generator=generator(8))
    )


@pytest.mark.parametrize("dim", [2, 3, 768])
def test_a_generator_of_the_same_seed_as_the_mean_direction_does_no_harm(dim: int) -> None:
    mu = normalize(torch.randn(dim, generator=generator(0), dtype=torch.float64))
    sample = VonMisesFisher(mu, 0.1).sample(5, generator=generator(0))
    torch.testing.assert_close(norms(sample), torch.ones(5, dtype=torch.float64))


def test_batches_of_distributions_broadcast() -> None:
    mu = torch.stack([direction(5, seed=i) for i in range(3)])
    kappa = torch.tensor([1.0, 10.0, 1e5])
    vmf = VonMisesFisher(mu, kappa)
    assert vmf.entropy().shape == (3,)
    assert vmf.log_prob(mu[:, None]).shape == (3, 3)
    assert vmf.sample((2, 4), generator=generator()).shape == (2, 4, 3, 5)
    assert angle(vmf.sample(50, generator=generator())[:, 2], mu[2]).max() < 0.02
    for i in range(3):
        assert vmf.entropy()[i] == VonMisesFisher(mu[i], kappa[i]).entropy()


@pytest.mark.parametrize(
    ("dim", "kappa"), [(2, 0.5), (3, 10.0), (50, 200.0), (768, 1e3), (768, 1e5), (4096, 5e4)]
)
def test_fit_recovers_the_distribution_that_was_sampled(dim: int, kappa: float) -> None:
    mu = direction(dim)
    fitted = VonMisesFisher.fit(VonMisesFisher(mu, kappa).sample(1500, generator=generator()))
    assert fitted.concentration.item() == pytest.approx(kappa, rel=0.15)
    assert fitted.concentration.dtype == torch.float64
    assert fitted.mean_direction @ mu > 0.7


@given(st.integers(2, 4096), st.floats(0.01, 1 - 1e-6))
def test_fit_solves_the_likelihood_equation(dim: int, length: Any) -> None:
    # Two unit vectors whose mean has exactly this length.
    tilt = math.sqrt(1 - length**2)
    samples = torch.zeros(2, dim, dtype=torch.float64)
    samples[:, 0], samples[0, 1], samples[1, 1] = length, tilt, -tilt
    kappa = VonMisesFisher.fit(samples).concentration
    assert _log_relative_normalizer(dim, kappa)[1].item() == pytest.approx(length, rel=1e-12)


def test_fit_equals_scipy() -> None:
    x = VonMisesFisher(direction(10), 25.0).sample(500, generator=generator())
    mu, kappa = scipy.stats.vonmises_fisher.fit(x.numpy())
    fitted = VonMisesFisher.fit(x)
    assert fitted.concentration.item() == pytest.approx(kappa, rel=1e-6)
    assert fitted.mean_direction.numpy() == pytest.approx(mu)


def test_fit_refuses_samples_without_a_likeliest_concentration() -> None:
    v = direction(4)
    with pytest.raises(GeometryError, match="balance out to zero"):
        VonMisesFisher.fit(torch.stack([v, -v]))
    with pytest.raises(GeometryError, match="are all the same"):
        VonMisesFisher.fit(v.expand(3, 4))
    with pytest.raises(GeometryError, match=r"expected \(n, d\)"):
        VonMisesFisher.fit(v)
    with pytest.raises(GeometryError, match="not unit"):
        VonMisesFisher.fit(2 * v.expand(3, 4))


@pytest.mark.parametrize("kappa", [-1.0, math.nan, math.inf])
def test_concentrations_that_make_no_sense_are_refused(kappa: float) -> None:
    with pytest.raises(GeometryError, match="concentration is"):
        VonMisesFisher(direction(4), kappa)


def test_vectors_off_the_sphere_are_refused() -> None:
    with pytest.raises(GeometryError, match="mean_direction is not unit"):
        VonMisesFisher(2 * direction(4), 1.0)
    with pytest.raises(GeometryError, match="x is not unit"):
        VonMisesFisher(direction(4), 1.0).log_prob(2 * direction(4))
    with pytest.raises(GeometryError, match="dimension"):
        VonMisesFisher(direction(4), 1.0).log_prob(direction(5))
