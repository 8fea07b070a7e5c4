"""The von Mises–Fisher distribution: directions spread around a mean direction.

Two functions of κ are behind all methods. g(κ) = log 0F1(; d/2; κ²/4) is the log of the normaliser
relative to that of the uniform distribution. Its derivative A(κ) = I_{d/2}(κ) / I_{d/2−1}(κ) is the
length of the mean vector. Both are written so that nothing cancels as κ → 0 and nothing overflows
as κ grows.
"""

import math
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry._checks import check_same_space, check_unit, check_vectors, working_dtype
from dti_geom.geometry.sphere import _tangent, _unit

# The expansion for large orders is used from this order on, with this many terms. Its errors
# against mpmath are then near 1e-15.
_LOWEST_ORDER = 40
_TERMS = 9


class VonMisesFisher:
    """Distribution with density C(κ)·exp(κ μᵀx) relative to the area of the unit sphere of R^d.

    mean_direction μ: (..., d), unit norm, d ≥ 2. concentration κ ≥ 0: a number or (...). Leading
    shapes broadcast. κ = 0 is the uniform distribution.

    Computes in float64. Results are at least float32; samples have the dtype of μ. Gradients reach
    μ and κ, except through samples.
    """

    def __init__(self, mean_direction: Tensor, concentration: float | Tensor) -> None:
        """Check that μ is unit and κ finite and ≥ 0. Raises GeometryError."""
        check_vectors(mean_direction, "mean_direction")
        check_unit(mean_direction, "mean_direction")
        if mean_direction.shape[-1] < 2:
            raise GeometryError(
                "mean_direction has dimension 1; expected 2 or more, since the sphere of R^1 is "
                "only two points."
            )
        if not isinstance(concentration, Tensor):
            concentration = torch.tensor(concentration, dtype=torch.float64)
        kappa = concentration.to(mean_direction.device)
        if not torch.isfinite(kappa).all() or (kappa < 0).any():
            raise GeometryError(
                f"concentration is {concentration}; expected finite numbers, 0 or more."
            )
        check_same_space(
            mean_direction,
            kappa[..., None].expand(*kappa.shape, mean_direction.shape[-1]),
            "μ",
            "κ",
        )
        self.mean_direction = mean_direction
        self.concentration = kappa
        self._mu = _unit(mean_direction.double())
        self._kappa = kappa.double()
        self._dtype = working_dtype(mean_direction)

    @property
    def dim(self) -> int:
        """Dimension d of the space around the sphere."""
        return self.mean_direction.shape[-1]

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density at x, in nats.

        x: (..., d), unit norm; broadcasts with μ. Returns (...).
        """
        check_vectors(x, "x")
        check_same_space(x, self.mean_direction, "x", "mean_direction")
        check_unit(x, "x")
        # κ(μᵀx − 1), written as −κ|x − μ|²/2: near the mode μᵀx − 1 would cancel, and κ = 1e6 would
        # multiply its rounding error.
        from_mode = -self._kappa / 2 * (_unit(x.double()) - self._mu).square().sum(dim=-1)
        excess, _ = _log_relative_normalizer(self.dim, self._kappa)
        return (from_mode + (self._kappa - excess) - _log_sphere_area(self.dim)).to(
            working_dtype(x, self.mean_direction)
        )

    def grad_log_prob(self, x: Tensor) -> Tensor:
        """Return the Euclidean gradient of the log-density at x, which is κμ for every x.

        x: (..., d), unit norm. Returns κμ in the shape that x and μ broadcast to. The gradient
        along the sphere is project_tangent(x, κμ).
        """
        check_vectors(x, "x")
        check_same_space(x, self.mean_direction, "x", "mean_direction")
        check_unit(x, "x")
        gradient = self._kappa[..., None] * self._mu
        shape = torch.broadcast_shapes(x.shape, gradient.shape)
        return gradient.expand(shape).to(working_dtype(x, self.mean_direction))

    def entropy(self) -> Tensor:
        """Return the differential entropy relative to the area of the sphere, in nats: (...).

        At κ = 0 it is the log of that area.
        """
        excess, mean_length = _log_relative_normalizer(self.dim, self._kappa)
        entropy = _log_sphere_area(self.dim) + excess - self._kappa * mean_length
        return entropy.expand(self._batch_shape()).to(self._dtype)

    @torch.no_grad()
    def sample(
        self, shape: int | tuple[int, ...] = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return independent samples.

        shape: how many, a number or a shape. Returns (*shape, ..., d), unit norm.
        generator: the same state gives the same samples, bit for bit.

        Wood (1994), algorithm VM*, with 1 − w in place of w so that κ = 1e6 keeps its digits.
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        full = (*shape, *self._batch_shape())
        mu = self._mu.expand(*full, self.dim).reshape(-1, self.dim)
        kappa = self._kappa.expand(full).reshape(-1)
        out = torch.empty_like(mu)
        pending = torch.arange(len(mu), device=mu.device)
        # Rejection sampling: rows whose proposal was rejected get another one in the next pass.
        while pending.numel():
            centre = mu[pending]
            gap, across, accept = _propose(centre, kappa[pending], generator)
            gap, centre, turn = gap[accept, None], centre[accept], _unit(across[accept])
            # w·μ + √(1 − w²)·turn, where 1 − w² = gap·(2 − gap).
            out[pending[accept]] = _unit(
                (1 - gap) * centre + torch.sqrt(gap * (2 - gap)) * _tangent(centre, turn)
            )
            pending = pending[~accept]
        return out.reshape(*full, self.dim).to(self.mean_direction.dtype)

    @classmethod
    def fit(cls, samples: Tensor) -> "VonMisesFisher":
        """Return the maximum-likelihood distribution of unit vectors.

        samples: (n, d), unit norm. Raises GeometryError if they are all equal or balance out to
        zero. With the mean r of the samples, μ = r/|r| and κ, float64, is the root of A(κ) = |r|.

        Newton's method, from the approximation of Banerjee et al. (2005), eq. 4.4, which alone is
        off by up to a few per cent. A is concave, so after the first step Newton approaches the
        root from below.
        """
        check_vectors(samples, "samples")
        if samples.dim() != 2 or samples.shape[0] == 0 or samples.shape[1] < 2:
            raise GeometryError(
                f"samples has shape {tuple(samples.shape)}; expected (n, d) with n ≥ 1 and d ≥ 2."
            )
        check_unit(samples, "samples")
        dim = samples.shape[1]
        mean = _unit(samples.detach().double()).mean(dim=0)
        length = float(torch.linalg.vector_norm(mean))
        if length <= torch.finfo(samples.dtype).eps or length >= 1 - 1e-13:
            balance, limit = (
                ("balance out to zero", "0") if length < 0.5 else ("are all the same", "infinite")
            )
            raise GeometryError(
                f"the {len(samples)} samples {balance}; expected a spread around one direction, "
                f"since the most likely concentration is {limit} here. Set it by hand: "
                "VonMisesFisher(direction, concentration)."
            )
        kappa = _solve_concentration(dim, length, samples.device)
        return cls(_unit(mean).to(samples.dtype), kappa)

    def _batch_shape(self) -> torch.Size:
        shape: torch.Size = torch.broadcast_shapes(self._mu.shape[:-1], self._kappa.shape)
        return shape


def _propose(
    centre: Tensor, kappa: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return one proposal of Wood's algorithm per row: 1 − w, a sideways vector, and acceptance.

    centre: μ, (n, d); kappa: (n,), both float64. w is the proposed μᵀx.

    One Gaussian vector gives both random parts, which are independent: the beta variate comes from
    its part along μ, and the direction to turn to from the rest.
    """
    device, m = centre.device, centre.shape[-1] - 1
    gauss = torch.randn(centre.shape, dtype=torch.float64, device=device, generator=generator)
    uniform = torch.rand(kappa.shape, dtype=torch.float64, device=device, generator=generator)
    along = (gauss * centre).sum(dim=-1)
    across = gauss - along[:, None] * centre
    # A coordinate c of a uniform direction gives (1 + c)/2 ~ Beta((d − 1)/2, (d − 1)/2).
    z = (1 + along / torch.linalg.vector_norm(gauss, dim=-1)) / 2
    z = z.clamp(0, 1)
    # Wood's b = (√(4κ² + m²) − 2κ)/m, with the cancelling difference moved to the denominator.
    b = m / (2 * kappa + torch.sqrt(4 * kappa * kappa + m * m))
    gap = 2 * b * z / (1 - (1 - b) * z)  # 1 − w
    gap0 = 2 * b / (1 + b)  # 1 − w0, where w0 maximises the ratio of target to proposal
    # κw + m·log(1 − w0·w) − κw0 − m·log(1 − w0²) of Wood, written in terms of the gaps.
    log_ratio = kappa * (gap0 - gap) + m * torch.log(
        (gap0 + gap - gap0 * gap) / (gap0 * (2 - gap0))
    )
    # A draw exactly along μ has no direction to turn to. It happens if μ came from the same seed.
    accept = (log_ratio >= torch.log(uniform)) & across.any(dim=-1)
    return gap, across, accept


def _solve_concentration(dim: int, length: float, device: torch.device) -> Tensor:
    """Return the root κ of A(κ) = length, float64, by Newton's method."""
    kappa = torch.tensor(
        length * (dim - length**2) / (1 - length**2), dtype=torch.float64, device=device
    )
    for _ in range(100):
        with torch.enable_grad():
            point = kappa.requires_grad_()
            _, value = _log_relative_normalizer(dim, point)
            (slope,) = torch.autograd.grad(value, point)
        step = ((length - value) / slope).detach()
        # The first step may overshoot below zero, where A is not defined.
        kappa = torch.maximum(kappa.detach() + step, kappa.detach() / 10)
        if abs(step) <= 1e-12 * kappa:
            break
    return kappa


def _log_sphere_area(dim: int) -> float:
    """Return the log surface area of the unit sphere of R^dim."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def _log_relative_normalizer(dim: int, kappa: Tensor) -> tuple[Tensor, Tensor]:
    """Return g(κ) = log 0F1(; d/2; κ²/4) and A(κ) = g'(κ) = I_{d/2}(κ)/I_{d/2−1}(κ).

    Both have the shape of κ and are float64.

    At orders ν ≥ 40, g is Debye's uniform expansion (DLMF 10.41.3) divided by its own value at
    κ → 0:
        g = (s − ν) − ν·log((s + ν)/2ν) − ½ log(s/ν) + log U(ν/s)/U(1)
        s = √(ν² + κ²),  U(t) = Σ u_k(t)/ν^k
    and A is its derivative, term by term. Lower orders follow by the three-term recurrence (DLMF
    10.29.1) downwards, which is its stable direction. It is written for ρ_ν = A_ν·2(ν + 1)/κ,
    which is 1 at κ → 0. Each order adds −log ρ to log I_ν.
    """
    order = dim / 2 - 1
    steps = max(0, math.ceil(_LOWEST_ORDER - order))
    nu = order + steps
    s = torch.sqrt(nu * nu + kappa * kappa)
    excess = kappa * kappa / (s + nu)  # s − ν, without cancellation for small κ
    t = nu / s
    # U(t), its derivative U'(t), and U(1), where t = 1 is the limit κ → 0.
    series, slope, limit = torch.zeros_like(s), torch.zeros_like(s), 0.0
    for k, polynomial in enumerate(_debye_polynomials()):
        for power, coefficient in polynomial.items():
            c = float(coefficient) / nu**k
            series = series + c * t**power
            # For power = 0 the factor is 0; the exponent is only kept from becoming −1.
            slope = slope + c * power * t ** max(power - 1, 0)
            limit += c
    # log1p, since both arguments go to 1 as κ → 0.
    g = (
        excess
        - nu * torch.log1p(excess / (2 * nu))
        - torch.log1p(excess / nu) / 2
        + torch.log(series / limit)
    )
    ratio = 1 / (s + nu) - 1 / (2 * s * s) - nu / s**3 * slope / series  # A_ν/κ
    for _ in range(steps):
        # ρ_{ν−1} = 1/(1 + κ²ρ_ν/4ν(ν + 1)), with ρ_ν/(2ν + 2) = ratio.
        growth = kappa * kappa * ratio / (2 * nu)
        g = g + torch.log1p(growth)
        ratio = 1 / ((1 + growth) * 2 * nu)
        nu -= 1
    return g, kappa * ratio


@cache
def _debye_polynomials() -> tuple[dict[int, Fraction], ...]:
    """Return u_0(t), u_1(t), … of DLMF 10.41.9, each as {power: coefficient}.

    u_{k+1} = ½t²(1 − t²)·u_k' + ⅛∫₀ᵗ(1 − 5x²)·u_k(x) dx, in exact fractions.
    """
    polynomials = [{0: Fraction(1)}]
    for _ in range(_TERMS - 1):
        following: dict[int, Fraction] = {}
        # Every term c·t^p of u_k contributes to the powers p + 1 and p + 3 of u_{k+1}.
        for p, c in polynomials[-1].items():
            for power, share in (
                (p + 1, c * p / 2 + c / (8 * (p + 1))),
                (p + 3, -c * p / 2 - 5 * c / (8 * (p + 3))),
            ):
                following[power] = following.get(power, Fraction(0)) + share
        polynomials.append(following)
    return tuple(polynomials)
