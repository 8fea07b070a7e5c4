import pytest
import torch

from dti_geom.errors import DoesNotApply, ModelFilesError
from dti_geom.models.noising import Diffusion, Flow
from pipelines import library

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def sample(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(count, 4, 8, 8), torch.randn(count, 4, 8, 8)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_diffusion_mixes_and_aims_as_the_ddpm_scheduler_does(prediction: str) -> None:
    scheduler = library("diffusers").DDPMScheduler(**BETAS, prediction_type=prediction)
    noising = Diffusion(scheduler.config)
    x, noise = sample()
    t = torch.tensor([0, 1, 250, 500, 998, 999])
    torch.testing.assert_close(noising.mix(x, noise, t), scheduler.add_noise(x, noise, t))
    target = noise if prediction == "epsilon" else scheduler.get_velocity(x, noise, t)
    torch.testing.assert_close(noising.target(x, noise, t), target)


def test_diffusion_times_are_uniform_and_belong_to_their_generator() -> None:
    noising = Diffusion(library("diffusers").DDPMScheduler(**BETAS).config)
    times = noising.draw_times(generators(4000))
    assert times.min() >= 0
    assert times.max() <= 999
    assert abs(times.float().mean() - 499.5) < 15  # 3 standard errors of a uniform draw are 13.7
    assert torch.equal(noising.draw_times(generators(10)), times[:10])


def test_flow_mixes_linearly_and_aims_at_the_velocity() -> None:
    noising = Flow(3.0)
    x, noise = sample(3)
    t = torch.tensor([0.0, 250.0, 1000.0])
    mixed = noising.mix(x, noise, t)
    torch.testing.assert_close(mixed[0], x[0])
    torch.testing.assert_close(mixed[1], 0.75 * x[1] + 0.25 * noise[1])
    torch.testing.assert_close(mixed[2], noise[2])
    # Following the target from any time reaches the noise at σ = 1 and the image at σ = 0.
    torch.testing.assert_close(mixed[1] + 0.75 * noising.target(x, noise, t)[1], noise[1])


def test_flow_times_are_uniform_and_belong_to_their_generator() -> None:
    noising = Flow(3.0)
    times = noising.draw_times(generators(4000))
    for share in (0.25, 0.5, 0.75):
        assert abs(times.quantile(share) - 1000 * share) < 25  # 3 standard errors are 24
    assert 0 <= times.min() < times.max() <= 1000
    assert torch.equal(noising.draw_times(generators(10)), times[:10])


def test_logit_normal_times_have_the_shifted_median() -> None:
    noising = Flow(3.0).with_times("logit-normal")
    assert noising.times == "logit-normal"
    times = noising.draw_times(generators(4000))
    assert abs(times.median() - 750) < 10  # σ = ½ goes to 3·½ / (1 + 2·½) = ¾
    assert 0 < times.min() < times.max() < 1000


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_diffusers_own_formula(prediction: str) -> None:
    scheduler = library("diffusers").DDPMScheduler(**BETAS, prediction_type=prediction)
    t = torch.tensor([1, 100, 500, 999])
    snr = library("diffusers.training_utils").compute_snr(scheduler, t)
    expected = snr.clamp(max=5.0) / (snr if prediction == "epsilon" else snr + 1)
    torch.testing.assert_close(Diffusion(scheduler.config).min_snr_weights(t, 5.0), expected)


def test_a_diffusion_model_has_no_choice_of_times() -> None:
    noising = Diffusion(library("diffusers").DDPMScheduler(**BETAS).config)
    assert noising.times is None
    with pytest.raises(DoesNotApply, match="'logit-normal' belongs to flow models"):
        noising.with_times("logit-normal")


def test_flow_has_no_snr_and_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(DoesNotApply, match="flow matching"):
        Flow(3.0).min_snr_weights(torch.tensor([1.0]), 5.0)
    with pytest.raises(ModelFilesError, match="'sample'"):
        Diffusion(library("diffusers").DDPMScheduler(prediction_type="sample").config)


def test_quantiles_of_times_are_those_of_the_distribution() -> None:
    half = torch.tensor([0.0, 0.5, 1.0])
    assert Flow(3.0).times_at(half).tolist() == [0, 500, 1000]
    # The logit-normal's median is σ = 1/2, and 3σ / (1 + 2σ) of it 3/4.
    assert Flow(3.0, "logit-normal").times_at(half).tolist() == pytest.approx([0, 750, 1000])
    discrete = Diffusion(library("diffusers").DDPMScheduler(**BETAS).config)
    assert discrete.times_at(half).tolist() == [0, 500, 999]
    flow, generator = Flow(3.0, "logit-normal"), torch.Generator().manual_seed(0)
    drawn = flow.draw_times([generator] * 2000)
    spread = flow.times_at((torch.arange(2000) + 0.5) / 2000)
    quarters = torch.tensor([0.25, 0.5, 0.75])
    torch.testing.assert_close(drawn.quantile(quarters), spread.quantile(quarters), atol=20, rtol=0)
