from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from dti_geom.errors import DoesNotApply, TrainingError
from dti_geom.files.adapters import Adapter, AdapterShape
from dti_geom.models.adapters import AdapterLayers, cayley, combined

SHAPES = (AdapterShape(rank=2, alpha=6.0), AdapterShape("oft"))
per_kind = pytest.mark.parametrize("shape", SHAPES, ids=["lora", "oft"])


class Attention(nn.Module):
    """Two of the three layers that adapters change by default."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.out = (nn.Linear(8, size) for size in (6, 4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.to_q(x), self.to_k(x), self.out(x)], dim=-1)


@pytest.fixture
def frozen() -> Attention:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Attention().eval().requires_grad_(False)


def targeted(shape: AdapterShape) -> AdapterShape:
    return AdapterShape(shape.kind, ("to_q", "to_k"), shape.rank, shape.alpha, shape.block_size)


def moved(frozen: nn.Module, shape: AdapterShape, seed: int = 0, by: float = 0.3) -> AdapterLayers:
    """An adapter with seeded weights that are not zero."""
    layers = AdapterLayers(frozen, targeted(shape))
    layers.start(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layers.parameters.values():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return layers


def kept(layers: AdapterLayers) -> Adapter:
    weights = {name: weight.detach().clone() for name, weight in layers.parameters.items()}
    return Adapter("unet", layers.shape, weights)


X = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


@per_kind
def test_a_new_adapter_changes_no_bit_and_leaves_none(
    frozen: Attention, shape: AdapterShape
) -> None:
    before, weights = frozen(X), save(frozen.state_dict())
    layers = AdapterLayers(frozen, targeted(shape))
    layers.start(0)
    assert torch.equal(frozen(X), before)
    assert float(layers.update_norm()) == 0
    layers.remove()
    assert save(frozen.state_dict()) == weights
    assert type(frozen.to_q) is nn.Linear


@per_kind
def test_it_changes_its_own_layers_and_without_it_nothing(
    frozen: Attention, shape: AdapterShape
) -> None:
    before = frozen(X)
    layers = moved(frozen, shape)
    after = frozen(X)
    assert not torch.allclose(after[:, :10], before[:, :10])
    assert torch.equal(after[:, 10:], before[:, 10:])
    with layers.without():
        assert torch.equal(frozen(X), before)
    assert torch.equal(frozen(X), after)


def test_a_lora_is_the_product_of_its_matrices_times_alpha_over_rank(frozen: Attention) -> None:
    layers = moved(frozen, SHAPES[0])
    weights = kept(layers).weights
    update = 3 * weights["to_q.lora_B"] @ weights["to_q.lora_A"]
    expected = nn.functional.linear(X, frozen.to_q.weight + update, frozen.to_q.bias)
    torch.testing.assert_close(frozen(X)[:, :6], expected)


@per_kind
def test_the_norm_is_that_of_the_whole_update(frozen: Attention, shape: AdapterShape) -> None:
    plain = [frozen.to_q.weight.clone(), frozen.to_k.weight.clone()]
    layers = moved(frozen, shape)
    whole = [layer(torch.eye(8)).T - layer.bias[:, None] for layer in (frozen.to_q, frozen.to_k)]
    changes = torch.cat([after - w for after, w in zip(whole, plain, strict=True)])
    expected = changes.norm() / torch.cat(plain).norm()
    torch.testing.assert_close(layers.update_norm(), expected)


def test_an_oft_is_orthogonal_however_far_it_went(frozen: Attention) -> None:
    layers = moved(frozen, SHAPES[1], by=3.0)
    rotations = torch.cat([layers.rotations(layer) for layer in layers.layers.values()])
    identity = torch.eye(4).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.mT, identity, atol=1e-6, rtol=0)
    torch.testing.assert_close(cayley(torch.zeros(1, 6), 4), torch.eye(4)[None])
    # The layers compute with these rotations.
    turned = X.unflatten(-1, (2, 4)).unsqueeze(-2) @ layers.rotations(layers.layers["to_q"])
    expected = nn.functional.linear(turned.flatten(1), frozen.to_q.weight, frozen.to_q.bias)
    torch.testing.assert_close(frozen(X)[:, :6], expected)


@per_kind
def test_it_is_float32_in_a_bfloat16_model_and_only_it_gets_gradients(
    frozen: Attention, shape: AdapterShape
) -> None:
    frozen.bfloat16()
    layers = moved(frozen, shape)
    layers.put({n: p.requires_grad_() for n, p in layers.parameters.items()})
    frozen(X.bfloat16()).float().square().sum().backward()
    learned = set(layers.parameters.values())
    for parameter in frozen.parameters():
        assert (parameter.grad is not None) == (parameter in learned)
    assert all(p.dtype == torch.float32 and p.grad.any() for p in learned)  # type: ignore[union-attr]


@per_kind
def test_a_start_depends_on_the_seed_and_not_on_the_global_generator(
    frozen: Attention, shape: AdapterShape
) -> None:
    state = torch.get_rng_state()
    starts = []
    for seed in (0, 0, 1):
        layers = AdapterLayers(frozen, targeted(shape))
        layers.start(seed)
        starts.append(torch.cat([p.detach().flatten() for p in layers.parameters.values()]))
        layers.remove()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(starts[0], starts[1])
    assert torch.equal(starts[0], starts[2]) == (shape.kind == "oft")  # it starts at zero


@per_kind
def test_a_scale_of_zero_is_the_frozen_model_and_one_the_whole_adapter(
    frozen: Attention, shape: AdapterShape
) -> None:
    before = frozen(X)
    layers = moved(frozen, shape)
    after, adapter = frozen(X), kept(layers)
    layers.remove()
    outputs = []
    for scale in (0.0, 0.5, 1.0):
        layers = AdapterLayers.holding(frozen, combined([(adapter, scale)]))
        outputs.append(frozen(X))
        layers.remove()
    assert torch.equal(outputs[2], after)
    assert torch.equal(outputs[0], before)
    if shape.kind == "lora":
        torch.testing.assert_close(outputs[1], (before + after) / 2)


def test_two_loras_add_up_and_an_oft_refuses_company(frozen: Attention) -> None:
    before, changes, adapters = frozen(X), [], []
    for seed, rank in ((0, 2), (1, 3)):
        layers = moved(frozen, AdapterShape(rank=rank, alpha=5.0), seed)
        changes.append(frozen(X) - before)
        adapters.append(kept(layers))
        layers.remove()
    only_q = {name: x for name, x in adapters[1].weights.items() if name.startswith("to_q")}
    changes[1][:, 6:] = 0
    both = combined([(adapters[0], 0.5), (Adapter("unet", adapters[1].shape, only_q), 2.0)])
    AdapterLayers.holding(frozen, both)
    torch.testing.assert_close(frozen(X), before + 0.5 * changes[0] + 2 * changes[1])
    oft = Adapter("unet", SHAPES[1], {})
    with pytest.raises(DoesNotApply, match="2 adapters"):
        combined([(oft, 1.0), (adapters[0], 1.0)])


def test_what_does_not_fit_is_refused(frozen: Attention) -> None:
    with pytest.raises(TrainingError, match=r"called to_v.*end with out, to_k, to_q"):
        AdapterLayers(frozen, AdapterShape())
    with pytest.raises(TrainingError, match=r"block_size is 3.*Try 8"):
        AdapterLayers(frozen, AdapterShape("oft", ("to_q",), block_size=3))
    layers = moved(frozen, SHAPES[0])
    adapter = kept(layers)
    layers.remove()
    frozen.to_q = nn.Linear(10, 6)
    with pytest.raises(DoesNotApply, match="to_q and others"):
        AdapterLayers.holding(frozen, adapter)


def test_tokens_paint_with_their_own_adapters_and_other_prompts_without(
    sd15_pipeline: Path, tmp_path: Path
) -> None:
    from dti_geom.models.pipelines import open_text_to_image

    model = open_text_to_image(str(sd15_pipeline), dtype=torch.float32)
    for token in ("<x>", "<y>"):
        model.place(token, [tower.token_table[5:6] for tower in model.towers])
    prompts, seeds = ["a cat", "a <x>", "a <y>"], [0, 0, 0]
    paint: Callable[[], list[bytes]] = lambda: [  # noqa: E731
        picture.tobytes() for picture in model.generate(prompts, seeds, steps=1, size=64)
    ]
    plain = paint()
    layers = AdapterLayers(model.denoiser, AdapterShape())
    layers.start(0)
    with torch.no_grad():
        for name, weight in layers.parameters.items():
            weight.add_(float(name.endswith("lora_B")))
    adapter = kept(layers)
    layers.remove()
    model.place_adapters("<x>", [(adapter, 1.0)])
    adapted = paint()
    assert [a == b for a, b in zip(adapted, plain, strict=True)] == [True, False, True]
    model.place_adapters("<y>", [(adapter, 1.0)])
    assert paint()[1] == paint()[2] == adapted[1]
    model.place_adapters("<y>", [(adapter, 0.0)])
    assert paint() == adapted
    model.forget()
    assert not model.adapters
