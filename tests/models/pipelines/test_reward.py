from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dti_geom.errors import DoesNotApply
from dti_geom.files.adapters import AdapterShape
from dti_geom.models.adapters import AdapterLayers
from dti_geom.models.pipelines.reward import reward_guided

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Denoiser(nn.Module):
    """One layer, answering with a tuple, as diffusers' denoisers do."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(8, 8).requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.to_q(x),)


@pytest.fixture
def adapted() -> tuple[Denoiser, AdapterLayers, Tensor, Tensor]:
    """A denoiser, its adapter, and the answers to X without and with it."""
    denoiser = Denoiser()
    plain = denoiser(X)[0]
    layers = AdapterLayers(denoiser, AdapterShape(targets=("to_q",)))
    layers.put({name: torch.full_like(x, 0.1) for name, x in layers.parameters.items()})
    return denoiser, layers, plain, denoiser(X)[0].detach()


@pytest.mark.parametrize(("w", "r"), [(5.0, 0.0), (5.0, 2.0), (1.0, 0.7)])
def test_classifier_free_guidance_of_its_answers_is_the_formula(
    adapted: tuple[Denoiser, AdapterLayers, Tensor, Tensor], w: float, r: float
) -> None:
    denoiser, layers, plain, with_adapter = adapted
    prompts = 2 if w > 1 else 4
    with reward_guided(denoiser, layers, r, guidance=w, prompts=prompts):
        (answer,) = denoiser(X)
    if w > 1:
        without, conditioned = plain.chunk(2)
        guided = answer[:2] + w * (answer[2:] - answer[:2])
        expected = without + w * (conditioned - without) + r * (with_adapter[2:] - conditioned)
    else:
        guided, expected = answer, plain + r * (with_adapter - plain)
    torch.testing.assert_close(guided, expected)
    assert torch.equal(denoiser(X)[0], with_adapter)


def test_a_sampler_that_asks_otherwise_is_refused(
    adapted: tuple[Denoiser, AdapterLayers, Tensor, Tensor],
) -> None:
    denoiser, layers, _, _ = adapted
    guided: Any = reward_guided(denoiser, layers, 1.0, guidance=5.0, prompts=4)
    with guided, pytest.raises(DoesNotApply, match="4 answers to 4 prompts"):
        denoiser(X)


def test_a_reward_of_w_is_the_adapter_in_the_conditioned_answer_alone(sd15_pipeline: Path) -> None:
    from dti_geom.models.pipelines import open_text_to_image

    model = open_text_to_image(str(sd15_pipeline), dtype=torch.float32)
    asked: dict[str, Any] = {"steps": 1, "size": 64, "guidance": 3.0}
    (plain,) = model.generate(["a cat"], [0], **asked)
    layers = AdapterLayers(model.denoiser, AdapterShape())
    # Not constant: a normalised input sums to 0.
    shapes = layers.parameters.items()
    layers.put({name: torch.linspace(-1, 1, x.numel()).view_as(x) for name, x in shapes})
    model.put_adapter_in(layers)
    (adapted,) = model.generate(["a cat"], [0], **asked)
    (none,) = model.generate(["a cat"], [0], reward=0.0, **asked)
    (whole,) = model.generate(["a cat"], [0], reward=3.0, **asked)
    assert none.tobytes() == plain.tobytes()
    assert len({picture.tobytes() for picture in (plain, adapted, whole)}) == 3
