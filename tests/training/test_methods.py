import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import TrainingError
from dti_geom.geometry import angle, normalize, norms, summarize_norms
from dti_geom.models.pipelines import TrainingDefaults
from dti_geom.training.config import MethodConfig
from dti_geom.training.methods import METHODS, method_named
from dti_geom.training.methods.base import VocabularyStats, decide
from dti_geom.training.token_vectors import TowerVectors

DIM = 16
TABLE = 0.1 * torch.randn(50, DIM, generator=torch.Generator().manual_seed(7))
STATS = VocabularyStats(summarize_norms(TABLE), float(TABLE.std()))

LEARNING = [name for name, method in METHODS.items() if method.learns]


def build(name: str = "dti", **options: Any) -> TowerVectors:
    config = MethodConfig(name, **({"learning_rate": 0.05} | options))
    method = METHODS[name]
    return TowerVectors(
        start=TABLE[:2],
        prior=TABLE[:2],
        magnitude=None if method.magnitude is None else torch.full((2, 1), 0.4),
        stats=STATS,
        settings=decide(method, config),
        learn_magnitude=config.magnitude == "learned",
    )


def pull_toward(
    learned: TowerVectors, target: Tensor, steps: int, share: float = 1.0
) -> list[Tensor]:
    """Minimise the squared distance to `target`. Returns the vectors after every step."""
    path = []
    for _ in range(steps):
        (learned.vectors() - target).square().sum().backward()
        learned.step(share)
        path.append(learned.vectors().detach().clone())
    return path


def target() -> Tensor:
    return torch.randn(2, DIM, generator=torch.Generator().manual_seed(1))


def test_dti_makes_the_step_of_the_equations_on_an_example_by_hand() -> None:
    # e = 2v, v = e1, μ = e2, κ = 4, ∂L/∂e = (7, 3.5, −1.5): ∂L/∂v = (14, 7, −3),
    # less κμ (14, 3, −3), tangent (0, 3, −3), unit g = (0, 1, −1)/√2,
    # v − ¾·g = (1, −¾/√2, ¾/√2), of norm 5/4.
    v, mu = torch.eye(3)[:1], torch.eye(3)[1:2]
    learned = TowerVectors(
        start=5 * v,
        prior=mu,
        magnitude=torch.tensor([[2.0]]),
        stats=STATS,
        settings=decide(METHODS["dti"], MethodConfig("dti", 0.75, kappa=4.0)),
    )
    loss = (learned.vectors() * torch.tensor([7.0, 3.5, -1.5])).sum()
    loss.backward()
    learned.step(1.0)
    side = 0.75 / math.sqrt(2)
    torch.testing.assert_close(
        learned.vectors().detach(), 2 / 1.25 * torch.tensor([[1.0, -side, side]])
    )


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam"}, {"momentum": 0.9}, {"beta": 0.99}])
def test_dti_keeps_its_norm_to_a_millionth_at_every_step(options: dict[str, Any]) -> None:
    for vectors in pull_toward(build("dti", **options), target(), 300):
        assert (norms(vectors) / 0.4 - 1).abs().max() < 1e-6


def test_ti_is_adamw_on_the_rows_alone() -> None:
    learned = build("ti", learning_rate=0.02)
    theirs = learned.parameter.detach().clone().requires_grad_()
    optimizer = torch.optim.AdamW([theirs], lr=0.02, weight_decay=1e-2)
    for _ in range(20):
        (theirs - target()).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(pull_toward(learned, target(), 20)[-1], theirs.detach())


@pytest.mark.parametrize("name", ["median-projection", "adamw-sphere", "category-norm"])
def test_the_fixed_norm_policies_have_the_asked_norm_after_every_step(name: str) -> None:
    for vectors in pull_toward(build(name), target(), 50):
        torch.testing.assert_close(norms(vectors), torch.full((2,), 0.4), rtol=1e-6, atol=0)


def test_norm_decay_draws_the_norm_by_its_share_of_the_gap() -> None:
    learned, free = build("norm-decay", learning_rate=1e-3), build("ti", learning_rate=1e-3)
    before = pull_toward(free, target(), 1)[0]
    after = pull_toward(learned, target(), 1)[0]
    torch.testing.assert_close(norms(after), norms(before) + 0.1 * (0.4 - norms(before)))
    torch.testing.assert_close(normalize(after), normalize(before))


def test_with_a_large_rate_norm_decay_is_a_projection() -> None:
    assert norms(
        pull_toward(build("norm-decay", learning_rate=0.02), target(), 1)[0]
    ) == pytest.approx([0.4, 0.4])


def test_a_strength_is_the_pull_the_share_or_the_exponent_and_has_no_effect_elsewhere() -> None:
    weak = build("crossinit", strength=0.5)
    pull_toward(weak, target(), 3)
    expected = torch.nn.functional.mse_loss(weak.vectors(), TABLE[:2])
    torch.testing.assert_close(weak.pull(), 0.5 * expected)
    free = pull_toward(build("ti"), target(), 1)[0]
    retracted = pull_toward(build("std-retraction", strength=0.7), target(), 1)[0]
    torch.testing.assert_close(retracted, free * (STATS.std / free.std()) ** 0.7)
    halved = pull_toward(build("norm-decay", learning_rate=0.02, strength=25), target(), 1)[0]
    before = pull_toward(build("ti", learning_rate=0.02), target(), 1)[0]
    torch.testing.assert_close(norms(halved), norms(before) + 0.5 * (0.4 - norms(before)))
    with pytest.raises(TrainingError, match="strength has no effect on method 'ti'"):
        build("ti", strength=1.0)


def test_std_retraction_scales_by_the_tenth_power_of_the_ratio() -> None:
    free = pull_toward(build("ti"), target(), 1)[0]
    retracted = pull_toward(build("std-retraction"), target(), 1)[0]
    torch.testing.assert_close(retracted, free * (STATS.std / free.std()) ** 0.1)


def test_the_pull_of_crossinit_is_the_mean_squared_distance_to_its_start() -> None:
    learned = build("crossinit")
    assert learned.pull().item() == 0
    pull_toward(learned, target(), 3)
    expected = torch.nn.functional.mse_loss(learned.vectors(), TABLE[:2])
    torch.testing.assert_close(learned.pull() / 1e-5, expected)


def test_a_learned_magnitude_moves_stays_positive_and_survives_the_retraction() -> None:
    learned = build("dti", magnitude="learned")
    path = pull_toward(learned, 1e-3 * target(), 400)  # what is asked for is nearly zero
    assert norms(path[-1]).max() < 0.2  # half of where it started
    assert norms(path[-1]).min() > 0
    torch.testing.assert_close(norms(learned.parameter.detach()).float(), torch.ones(2))


def test_without_a_prior_dti_goes_where_the_data_are_and_a_strong_prior_holds_it() -> None:
    aim = target()
    free = pull_toward(build("dti", kappa=0.0, learning_rate=0.02), aim, 200)[-1]
    strong = pull_toward(build("dti", kappa=1e3, learning_rate=0.02), aim, 200)[-1]
    assert angle(normalize(free), normalize(aim)).max() < 0.03
    assert angle(normalize(strong), normalize(TABLE[:2])).max() < 0.03


@pytest.mark.parametrize("name", LEARNING)
def test_state_goes_out_and_in_without_changing_the_path(name: str) -> None:
    through = build(name)
    expected = pull_toward(through, target(), 8)[-1]
    first, second = build(name), build(name)
    pull_toward(first, target(), 4)
    second.load_state({key: value.clone() for key, value in first.state().items()})
    assert torch.equal(pull_toward(second, target(), 4)[-1], expected)


@pytest.mark.parametrize("name", LEARNING)
def test_vectors_gradients_and_moments_are_float32_for_every_method(name: str) -> None:
    learned = build(name)
    learned.vectors().bfloat16().float().square().sum().backward()
    assert learned.parameter.grad is not None
    assert learned.parameter.grad.dtype == torch.float32
    learned.step(1.0)
    assert {
        value.dtype
        for value in learned.state().values()
        if value.is_floating_point() and value.ndim
    } == {torch.float32}


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("ti", {"kappa": 1e-3}, "kappa"),
        ("ti", {"magnitude": "mean"}, "magnitude"),
        ("ti", {"momentum": 0.9}, "momentum"),
        ("dti", {"weight_decay": 0.1}, "weight_decay"),
        ("dti", {"optimizer": "adam", "beta": 0.5}, "beta"),
        ("median-projection", {"magnitude": "learned"}, "magnitude learned"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    name: str, options: dict[str, Any], word: str
) -> None:
    with pytest.raises(TrainingError, match=f"{word} has no effect on method '{name}'"):
        build(name, **options)


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(TrainingError, match=r"'dit'\. Did you mean 'dti'\? Known: dti, ti"):
        method_named("dit")


def test_a_method_may_have_its_own_value_of_every_option() -> None:
    method = replace(METHODS["dti"], schedule="cosine", warmup=3, average_last=5, beta=0.9)
    settings = decide(method, MethodConfig("dti", warmup=7))
    assert (settings.schedule, settings.average_last, settings.beta) == ("cosine", 5, 0.9)
    assert settings.warmup == 7


@pytest.mark.parametrize("name", LEARNING)
def test_the_run_decides_before_the_method_and_the_method_before_the_model(name: str) -> None:
    defaults = TrainingDefaults(direction_rate=0.3, vector_rate=0.2, kappa=7.0, weight_decay=0.5)
    method = METHODS[name]
    on_sphere = method.optimizer == "sphere"
    settings = decide(method, MethodConfig(name), defaults)
    rate = method.learning_rate or (0.3 if on_sphere else 0.2)
    assert settings.learning_rate == rate
    assert settings.kappa == (method.kappa or 7.0)
    assert settings.weight_decay == (method.weight_decay or 0.5)
    asked = (
        MethodConfig(name, 0.1, kappa=3.0) if on_sphere else MethodConfig(name, 0.1, weight_decay=0)
    )
    settings = decide(method, asked, defaults)
    assert settings.learning_rate == 0.1
    assert (settings.kappa if on_sphere else settings.weight_decay) == (3.0 if on_sphere else 0.0)


def test_every_method_is_registered_under_its_own_name() -> None:
    assert {name: method.name for name, method in METHODS.items()} == {
        name: name for name in METHODS
    }
