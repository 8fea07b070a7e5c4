"""What every registered pipeline must do. Facts about a family are an entry of `FAMILIES`."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dti_geom.files.adapters import Adapter, AdapterShape, read_adapter, write_adapter
from dti_geom.models import open_encoders
from dti_geom.models.adapters import AdapterLayers
from dti_geom.models.encoders.base import Tap
from dti_geom.models.noising import Flow
from dti_geom.models.pipelines import (
    PIPELINES,
    TextToImage,
    Tower,
    View,
    family_of,
    open_text_to_image,
)
from dti_geom.models.pipelines.base import ZERO_PAD, lay_channels_last
from dti_geom.models.pipelines.blueprint import keep_masks_unread
from dti_geom.training import RunConfig
from dti_geom.training.objectives.text_states import text_states
from pipelines import FAMILIES, Family, Sample, library, published

VIEW = View((640, 480), (10, 0), (64, 64))
SIDE = 64  # pixels of the tiny pipelines
Folders = Callable[[str], Path]
Opened = Callable[..., TextToImage]

EXACT = [name for name, family in FAMILIES.items() if family.answer is not None]
FLOWS = ("sd35", "flux1", "chroma", "wan", "sana")

per_family = pytest.mark.parametrize("name", FAMILIES)
per_flow = pytest.mark.parametrize(
    "name", [name for name, family in FAMILIES.items() if family.shift is not None]
)


@pytest.fixture(scope="module")
def opened(pipeline_folder: Folders) -> Opened:
    """Open a family's tiny pipeline once for each dtype; no learned token is placed in it."""

    @cache
    def pipeline_of(name: str, dtype: torch.dtype) -> TextToImage:
        family = FAMILIES[name]
        kind = getattr(library("diffusers"), family.pipeline_class)
        dtypes = {"vae": torch.float32, "default": dtype}
        pipeline = kind.from_pretrained(pipeline_folder(name), dtype=dtypes)
        return family_of(family.pipeline_class)(pipeline, name)

    def model_of(name: str, dtype: torch.dtype = torch.float32) -> TextToImage:
        model = pipeline_of(name, dtype)
        model.forget()
        return model

    return model_of


@dataclass(frozen=True)
class Step:
    """What a pipeline's sampler reads and follows in a step, for two prompts."""

    prompts: list[str]
    noisy: Tensor  # (2, c, h, w)
    t: Tensor  # (2,)
    velocity: Tensor  # (2, c, h, w)


@pytest.fixture(scope="module")
def sampled(opened: Opened) -> Callable[[str], Step]:
    """The second step of a family's own sampler, without guidance, computed once.

    The prompts differ in length. Sign, time, positions and mask are those of the pipeline's call.
    """

    @cache
    def step_of(name: str) -> Step:
        model, family = opened(name), FAMILIES[name]
        prompts = ["a red cat in a red house", "a dog"]
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        scheduler = model.pipeline.scheduler
        own_step = scheduler.step

        def keep(velocity: Tensor, t: Tensor, latents: Tensor, **options: Any) -> Any:
            steps.append((velocity, t, latents))
            return own_step(velocity, t, latents, **options)

        scheduler.step = keep
        model.pipeline(
            prompt=list(prompts),
            num_inference_steps=2,
            height=SIDE,
            width=SIDE,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            **family.unguided,
        )
        del scheduler.step
        velocity, t, latents = steps[1]
        assert 0 < float(t) < 1000
        noisy = family.unpacked(latents)
        return Step(prompts, noisy, t.expand(2), family.unpacked(velocity))

    return step_of


def rows_of(model: TextToImage, word: str) -> list[Tensor]:
    """For each tower (1, d): the table's row of a word of one token."""
    return [tower.token_table[tower.vocabulary.rows(word)] for tower in model.towers]


def random_vectors(model: TextToImage, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """For each tower (1, d), of about a vocabulary row's norm."""
    generator = torch.Generator().manual_seed(0)
    vectors = []
    for tower in model.towers:
        rows = 0.1 * torch.randn(1, tower.token_table.shape[1], generator=generator)
        vectors.append(rows.to(dtype))
    return vectors


def sample_of(model: TextToImage, prompts: Sequence[str]) -> Sample:
    """Seeded latents, noise and times for these prompts."""
    generator = torch.Generator().manual_seed(1)
    x = model.encode_images(torch.rand(1, 3, SIDE, SIDE, generator=generator) * 2 - 1).mean
    x = x.repeat(len(prompts), 1, 1, 1)
    noise = torch.randn(x.shape, generator=generator)
    t = model.noising.draw_times([generator] * len(prompts))
    sizes = (*VIEW.original, *VIEW.corner, *VIEW.size)
    return Sample(x, noise, t, prompts, sizes)


def losses_of(model: TextToImage, sample: Sample) -> Tensor:
    """(n,): the model's loss through its hooks, as training computes it."""
    conditioning = model.encode_prompts(sample.prompts, [VIEW] * len(sample.prompts))
    noisy = model.noising.mix(sample.x, sample.noise, sample.t)
    prediction = model.predict(noisy, sample.t, conditioning)
    target = model.noising.target(sample.x, sample.noise, sample.t)
    return (prediction - target).square().flatten(1).mean(dim=1)


class _KeptInFloat64(TorchDispatchMode):
    """Inside, no float64 is cast to float32.

    Norms and softmaxes of the models compute in float32, whose rounding would be larger than the
    finite differences.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        cast = func is torch.ops.aten._to_copy.default
        if cast and args[0].dtype == torch.float64 and options.get("dtype") == torch.float32:
            options["dtype"] = torch.float64
        return func(*args, **options)


# The checks that a wrong hook must fail.


def check_latents(model: TextToImage, family: Family) -> None:
    """Latents have the published scale, and decode to what the autoencoder itself decodes."""
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        encoded = model.vae.encode(pixels[:, :, None] if family.film else pixels)
        raw = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latent
        reconstructed = model.vae.decode(raw).sample
        if family.film:
            raw, reconstructed = raw[:, :, 0], reconstructed[:, :, 0]
    latents = model.encode_images(pixels)
    expected = family.latents(raw, published(family.autoencoder)["config"], model.vae)
    torch.testing.assert_close(latents.mean, expected)
    decoded = model.decode_latents(latents.mean)
    assert decoded.shape == pixels.shape
    torch.testing.assert_close(decoded, reconstructed, atol=3e-5, rtol=1e-4)


def check_tap(model: TextToImage, family: Family, folder: Path) -> None:
    """Each state of the conditioning is one that the towers' taps name, for generation's input."""
    inputs: dict[str, tuple[Tensor, Tensor | None]] = {}
    hooks = []
    for tower in model.towers:

        def keep(_module: Any, args: Any, kwargs: Any, name: str = tower.name) -> None:
            ids = args[0] if args else kwargs["input_ids"]
            # The negative prompt comes second.
            mask = args[1] if len(args) > 1 else kwargs.get("attention_mask")
            inputs.setdefault(name, (ids, mask))

        hooks.append(tower.module.register_forward_pre_hook(keep, with_kwargs=True))
    model.generate(["a red cat"], [0], steps=2, size=SIDE)  # one step is none of Qwen-Image's
    for hook in hooks:
        hook.remove()
    states = model.encode_prompts(["a red cat"], [VIEW])["states"]
    read = []
    for encoder in open_encoders(str(folder), dtype=torch.float32):
        ids, mask = inputs[encoder.name]
        encoder.tap = model.taps.get(encoder.name, Tap())
        read.append(encoder.hidden_states(ids, attention_mask=mask).read)
    candidates = family.states(read)[0]
    # Some pipelines drop positions, as SANA most of its instruction: compare each with the nearest.
    # Others write zeros behind a prompt, as Wan.
    assert candidates.shape[-1] == states.shape[-1]
    live = states[0][states[0].any(dim=-1)]
    distances = (live[:, None] - candidates).abs().amax(dim=-1)
    size = max(1, float(live.abs().max()))
    assert distances.min(dim=1).values.max() < 1e-5 * size


def check_step(model: TextToImage, step: Step) -> None:
    """The pipeline's own sampler follows the velocity that training learns."""
    with torch.no_grad():
        conditioning = model.encode_prompts(step.prompts, [VIEW, VIEW])
        found = model.predict(step.noisy, step.t, conditioning)
    torch.testing.assert_close(found, step.velocity)


def check_shift(model: TextToImage, family: Family) -> None:
    """Half of the logit-normal times lie below the shifted 1/2."""
    noising = model.noising_at(1024).with_times("logit-normal")
    middle = noising.times_at(torch.tensor([0.5]))
    assert family.shift is not None
    assert float(middle) == pytest.approx(1000 * family.shift / (1 + family.shift))


def check_loss(model: TextToImage, family: Family) -> None:
    """The loss equals the published formula on the pipeline's own modules."""
    sample = sample_of(model, ["a red cat", "a dog", "a red cat"])
    with torch.no_grad():
        torch.testing.assert_close(losses_of(model, sample), family.loss(model.pipeline, sample))


def check_exact_step(model: TextToImage, family: Family) -> None:
    """A denoiser that answers exactly predicts the target, and samples the image in one step."""
    generator = torch.Generator().manual_seed(1)
    assert family.answer is not None
    x = model.encode_images(torch.rand(1, 3, SIDE, SIDE, generator=generator) * 2 - 1).mean
    start = torch.randn(x.shape, generator=generator)
    targets: list[Tensor] = []

    def first_time() -> Tensor:
        """The sampler's; some round it to whole numbers where they name it."""
        scheduler = model.pipeline.scheduler
        return 1000 * scheduler.sigmas[:1] if model.flow else scheduler.timesteps[:1]  # type: ignore[no-any-return]

    def answer(_module: Any, _args: Any, _output: Any) -> tuple[Tensor]:
        t = first_time()
        kept, added = (model.noising.mix(*pair, t) for pair in ((x, 0 * x), (0 * x, x)))
        noise = (start - kept) / (added / x)
        targets.append(model.noising.target(x, noise, t))
        return (family.answer(targets[-1]),)  # type: ignore[misc]

    hook = model.denoiser.register_forward_hook(answer)
    with torch.no_grad():
        latents = model.pipeline(
            prompt=["a red cat"],
            num_inference_steps=1,
            height=SIDE,
            width=SIDE,
            latents=family.sampled(start),
            output_type="latent",
            **model.call_options(1.0),
        )[0]
        conditioning = model.encode_prompts(["a red cat"], [VIEW])
        prediction = model.predict(start, first_time(), conditioning)
    hook.remove()
    torch.testing.assert_close(latents, family.sampled(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(prediction, targets[-1])


def check_shift_of_sampler(model: TextToImage) -> None:
    """Without the shift, the times that the sampler visits are evenly spaced."""
    model.generate(["a red cat"], [0], steps=4, size=SIDE)
    noising = model.noising_at(SIDE)
    assert isinstance(noising, Flow)
    sigma = model.pipeline.scheduler.sigmas[:-1].double()
    plain = sigma / (noising.shift - (noising.shift - 1) * sigma)
    gaps = plain.diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(len(gaps)), atol=1e-5, rtol=0)
    assert len(gaps) == 3


def test_every_registered_pipeline_is_among_the_tests_facts() -> None:
    assert {family.pipeline_class for family in FAMILIES.values()} == set(PIPELINES)


@per_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_that_equals_a_word_gives_bit_identical_conditioning(
    opened: Opened, name: str, dtype: torch.dtype
) -> None:
    model, family = opened(name, dtype), FAMILIES[name]
    word = model.encode_prompts([family.prompt.format(family.word)], [VIEW])
    model.place("<x>", rows_of(model, family.word))
    learned = model.encode_prompts([family.prompt.format("<x>")], [VIEW])
    assert set(learned) == set(word)
    for part in set(word) - set(family.pooled_at_token):
        assert torch.equal(learned[part], word[part]), part


@per_family
def test_zero_vectors_stand_right_before_the_words_and_are_exactly_zero(
    opened: Opened, name: str
) -> None:
    """In every tower the tokens are those of the prompt alone, with the zero vectors among them."""
    model, family = opened(name), FAMILIES[name]
    model.place_zero_pad()
    model.place("<x>", random_vectors(model))
    prompt = family.prompt.format("<x>")
    for tower in model.towers:
        plain, _ = _looked_up(model, tower, prompt)
        padded, states = _looked_up(model, tower, model.padded(prompt, 3))
        zero = tower.tokenizer.convert_tokens_to_ids(ZERO_PAD)
        places = [place for place, row in enumerate(padded) if row == zero]
        first = places[0]
        assert places == [first, first + 1, first + 2]
        assert states[places].abs().max() == 0
        assert states[first + 3].abs().max() > 0
        rest = padded[first + 3 :]
        assert padded[:first] + rest == plain[: len(padded) - 3]
        read = tower.tokenizer.decode(rest, skip_special_tokens=False)
        assert read.replace(" ", "").startswith(prompt.replace(" ", ""))


def _looked_up(model: TextToImage, tower: Tower, prompt: str) -> tuple[list[int], Tensor]:
    """Return the tokens that a tower looks up for a prompt, and what it finds, (n, d)."""
    seen: dict[str, Any] = {}

    def keep_ids(_module: Any, args: Any, kwargs: Any) -> None:
        seen["ids"] = (args[0] if args else kwargs["input_ids"])[0].tolist()

    def keep_states(_module: Any, _args: Any, output: Tensor) -> None:
        seen["states"] = output[0]

    hooks = [tower.module.register_forward_pre_hook(keep_ids, with_kwargs=True)]
    hooks += [lookup.register_forward_hook(keep_states) for lookup in tower.lookups()]
    with torch.no_grad():
        model.encode_prompts([prompt], [VIEW])
    for hook in hooks:
        hook.remove()
    return seen["ids"], seen["states"]


@per_family
def test_a_token_is_cut_off_where_the_room_before_its_prompt_ends(
    opened: Opened, name: str
) -> None:
    model = opened(name)
    token = "<three>"
    width = [tower.token_table.shape[1] for tower in model.towers]
    model.place_zero_pad()
    model.place(token, [torch.ones(3, size) for size in width])
    room = model.room_before(f"a {token} cat", token)
    for count, there in ((room, True), (room + 1, False)):
        found = []
        for tower in model.towers:
            ids, _ = _looked_up(model, tower, model.padded(f"a {token} cat", count))
            found.append(tower.tokenizer.convert_tokens_to_ids(f"{token}_2") in ids)
        assert all(found) == there  # the shortest tower decides


@per_family
def test_gradients_into_the_vectors_agree_with_finite_differences(
    opened: Opened, name: str
) -> None:
    model = opened(name, torch.float64)
    model.denoiser.double()  # some parts of Wan stay in float32
    vectors = [rows.requires_grad_() for rows in random_vectors(model, torch.float64)]
    prompt = FAMILIES[name].prompt.format("<x>")
    drawn = sample_of(model, [prompt, prompt])
    sample = Sample(drawn.x.double(), drawn.noise.double(), drawn.t, drawn.prompts, drawn.sizes)

    def loss_at(placed: Sequence[Tensor]) -> Tensor:
        model.place("<x>", placed)
        with _KeptInFloat64():  # type: ignore[no-untyped-call]
            loss = losses_of(model, sample).mean()
        assert loss.dtype == torch.float64
        return loss

    loss_at(vectors).backward()
    generator, step = torch.Generator().manual_seed(2), 1e-5
    for place, rows in enumerate(vectors):
        direction = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
        shifted = [[*(other.detach() for other in vectors)] for _ in range(2)]
        shifted[0][place] = rows.detach() + step * direction
        shifted[1][place] = rows.detach() - step * direction
        with torch.no_grad():
            slope = (loss_at(shifted[0]) - loss_at(shifted[1])) / (2 * step)
        assert rows.grad is not None
        found = float((rows.grad * direction).sum())
        print(f"{name}, tower {place + 1}: {abs(found / float(slope) - 1):.1e}")  # pytest -rP
        assert found == pytest.approx(float(slope), rel=1e-5)
        assert abs(float(slope)) > 1e-12


@per_family
def test_the_loss_is_the_published_formula(opened: Opened, name: str) -> None:
    check_loss(opened(name), FAMILIES[name])


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_denoiser_predicts_the_target_and_paints_the_image_in_one_step(
    opened: Opened, name: str
) -> None:
    check_exact_step(opened(name), FAMILIES[name])


@pytest.mark.parametrize("name", FLOWS)
def test_times_are_shifted_as_the_pipelines_sampler_shifts_them(opened: Opened, name: str) -> None:
    check_shift_of_sampler(opened(name))


@per_family
def test_a_list_of_prompts_stays_as_it_is(opened: Opened, name: str) -> None:
    model, prompts = opened(name), ["a red cat", "A Dog "]
    model.encode_text(prompts)
    model.generate(prompts, [0, 1], steps=2, size=SIDE)  # one step is none of Qwen-Image's
    assert prompts == ["a red cat", "A Dog "]


@per_flow
def test_the_pipelines_sampler_follows_the_velocity_that_training_learns(
    opened: Opened, sampled: Callable[[str], Step], name: str
) -> None:
    check_step(opened(name), sampled(name))


@per_flow
def test_times_are_shifted_as_published(opened: Opened, name: str) -> None:
    check_shift(opened(name), FAMILIES[name])


@per_family
def test_rates_prior_decay_and_steps_are_those_of_the_launchers(opened: Opened, name: str) -> None:
    defaults, launcher = opened(name).training, FAMILIES[name].launcher
    images = launcher.batch_size * launcher.accumulate
    assert images == RunConfig.batch_size
    assert defaults.direction_rate == pytest.approx(launcher.learning_rate * images)
    assert defaults.vector_rate == pytest.approx(launcher.vector_rate * images)
    assert (defaults.kappa, defaults.weight_decay) == (launcher.kappa, launcher.weight_decay)
    assert defaults.steps == launcher.steps


@per_family
def test_a_tiny_model_is_trained_at_its_own_resolution(opened: Opened, name: str) -> None:
    model = opened(name)
    assert model.training_resolution == model.resolution == FAMILIES[name].side


@per_family
def test_weights_laid_out_for_a_gpu_are_the_same_model(pipeline_folder: Folders, name: str) -> None:
    model = open_text_to_image(str(pipeline_folder(name)), dtype=torch.float32)
    lay_channels_last(model)
    check_loss(model, FAMILIES[name])
    check_latents(model, FAMILIES[name])
    weights = [part for part in model.vae.parameters() if part.ndim == 4 and part.shape[2] > 1]
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in weights)


@per_family
def test_decoded_latents_have_the_shape_and_scale_of_the_images(opened: Opened, name: str) -> None:
    check_latents(opened(name), FAMILIES[name])


@per_family
def test_the_conditioning_is_made_of_the_states_the_taps_name(
    opened: Opened, pipeline_folder: Folders, name: str
) -> None:
    model = opened(name)
    check_tap(model, FAMILIES[name], pipeline_folder(name))
    for encoder in open_encoders(str(pipeline_folder(name))):
        assert encoder.tap == model.taps.get(encoder.name, Tap())


@per_family
def test_training_changes_the_vectors_and_no_other_byte(opened: Opened, name: str) -> None:
    model = opened(name)
    vectors = [rows.requires_grad_() for rows in random_vectors(model)]
    starts = [rows.detach().clone() for rows in vectors]
    before = _bytes_of(model)
    optimizer = torch.optim.Adam(vectors, lr=0.01)
    for _ in range(2):
        model.place("<x>", vectors)
        sample = sample_of(model, [FAMILIES[name].prompt.format("<x>")] * 2)
        optimizer.zero_grad()
        losses_of(model, sample).mean().backward()
        optimizer.step()
    assert _bytes_of(model) == before
    for rows, start in zip(vectors, starts, strict=True):
        assert not torch.equal(rows, start)


@per_family
def test_generation_paints_what_the_pipeline_paints_from_the_same_noise(
    opened: Opened, name: str
) -> None:
    model, family = opened(name), FAMILIES[name]
    pictures = model.generate(["a red cat", "a dog"], [3, 4], steps=2, size=SIDE)
    # Slices are single pictures, as ours are decoded.
    model.vae.enable_slicing()
    # The same object, not a second one: two copies in memory differ in the last digit.
    options = {"guidance_scale": model.guidance, **family.call_options}
    expected = model.pipeline(
        prompt=["a red cat", "a dog"],
        num_inference_steps=2,
        height=SIDE,
        width=SIDE,
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
        output_type="pil",
        **options,
    )[0]
    model.vae.disable_slicing()
    if isinstance(expected[0], list):  # films of one frame
        expected = [frame for (frame,) in expected]
    assert [picture.tobytes() for picture in pictures] == [image.tobytes() for image in expected]


def _published_cases() -> list[Any]:
    cases = []
    for name, family in FAMILIES.items():
        cases += [pytest.param(name, denoiser, id=denoiser) for denoiser in family.denoisers]
    return cases


@pytest.mark.slow
@pytest.mark.parametrize(("name", "denoiser"), _published_cases())
def test_at_published_size_gradients_reach_the_vectors_alone(
    pipeline_folder: Folders, name: str, denoiser: str
) -> None:
    """On meta tensors: every shape is checked, nothing is computed."""
    diffusers, transformers = library("diffusers"), library("transformers")
    family = FAMILIES[name]
    pipeline = diffusers.DiffusionPipeline.from_pretrained(pipeline_folder(name))
    model_class = family_of(family.pipeline_class)
    with torch.device("meta"):
        for number, encoder in enumerate(family.towers_of(denoiser), 1):
            facts = published(encoder)
            cls = getattr(transformers, facts["cls"])
            part = "text_encoder" if number == 1 else f"text_encoder_{number}"
            setattr(pipeline, part, cls(cls.config_class(**facts["config"])))
        for part, facts in (
            ("vae", published(family.autoencoder)),
            (model_class.denoiser_name, published(denoiser)),
        ):
            setattr(pipeline, part, getattr(diffusers, facts["cls"]).from_config(facts["config"]))
    model = model_class(pipeline, name)
    for tower in model.towers:
        # The fused kernel looks into the mask, whose numbers a meta tensor does not have.
        tower.module.set_attn_implementation("eager")  # type: ignore[operator]
        keep_masks_unread(tower.module)
    vectors = [rows.to("meta").requires_grad_() for rows in random_vectors(model)]
    model.place("<x>", vectors)
    conditioning = model.encode_prompts(["a photo of a <x>"] * 2, [VIEW] * 2)
    side = model.training_resolution
    assert side == family.launcher.resolution
    noisy = model.encode_images(torch.empty(2, 3, side, side, device="meta")).mean
    t = model.noising.draw_times([torch.Generator()] * 2).to("meta")
    prediction = model.predict(noisy, t, conditioning)
    assert prediction.shape == noisy.shape
    prediction.mean().backward()
    for rows in vectors:
        assert rows.grad is not None
        assert rows.grad.shape == rows.shape
    for module in (model.denoiser, *(tower.module for tower in model.towers)):
        for parameter in module.parameters():
            assert not parameter.requires_grad
            assert parameter.grad is None


# A wrong hook makes its check fail.


class _WrongTarget:
    """A noising whose target has the wrong sign."""

    def __init__(self, right: Any) -> None:
        self._right = right

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return -self._right.target(x, noise, t)  # type: ignore[no-any-return]


def _wrong(model: TextToImage, **hooks: Any) -> TextToImage:
    """An adapter of the same pipeline, some of whose hooks are replaced."""
    family = type(model)
    wrong = type(f"Wrong{family.__name__}", (family,), hooks)
    return wrong(model.pipeline, model.name)  # type: ignore[no-any-return]


@per_family
def test_a_wrong_scale_of_latents_is_noticed(opened: Opened, name: str) -> None:
    model = opened(name)
    shift, scale = model.latent_statistics()
    wrong = _wrong(model, latent_statistics=lambda _self: (shift, 2 * scale))
    with pytest.raises(AssertionError):
        check_latents(wrong, FAMILIES[name])


@per_family
def test_latents_decoded_without_their_scale_are_noticed(opened: Opened, name: str) -> None:
    model = opened(name)

    def decode_unscaled(self: TextToImage, latents: Tensor) -> Tensor:
        return self.autodecode(self.restore_latents(latents))

    wrong = _wrong(model, decode_latents=decode_unscaled)
    with pytest.raises(AssertionError):
        check_latents(wrong, FAMILIES[name])


@per_family
def test_a_wrong_tap_is_noticed(opened: Opened, pipeline_folder: Folders, name: str) -> None:
    model = opened(name)
    taps = {}
    for tower in model.towers:
        right = model.taps.get(tower.name, Tap())
        taps[tower.name] = Tap((1,), final_norm=False) if right == Tap() else Tap()
    with pytest.raises(AssertionError):
        check_tap(_wrong(model, taps=taps), FAMILIES[name], pipeline_folder(name))


@per_family
def test_a_wrong_target_is_noticed(opened: Opened, name: str) -> None:
    model = opened(name)
    right = model.noising
    wrong = _wrong(model, noising_at=lambda _self, _resolution: _WrongTarget(right))
    with pytest.raises(AssertionError):
        check_loss(wrong, FAMILIES[name])


@pytest.mark.parametrize("name", EXACT)
def test_a_wrong_sign_is_noticed(opened: Opened, name: str) -> None:
    model = opened(name)

    def negated(self: TextToImage, *inputs: Any) -> Tensor:
        return -type(model).predict(self, *inputs)

    with pytest.raises(AssertionError):
        check_exact_step(_wrong(model, predict=negated), FAMILIES[name])


@pytest.mark.parametrize("name", FLOWS)
def test_a_shift_that_the_sampler_has_not_is_noticed(opened: Opened, name: str) -> None:
    model = opened(name)
    right = model.noising_at(SIDE)
    assert isinstance(right, Flow)
    wrong = Flow(1.1 * right.shift)
    with pytest.raises(AssertionError):
        check_shift_of_sampler(_wrong(model, noising_at=lambda _self, _resolution: wrong))


def test_half_the_time_is_noticed(opened: Opened) -> None:
    model = opened("pixart")

    def scaled(self: TextToImage, noisy: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        return type(model).predict(self, noisy, t // 2, conditioning)

    with pytest.raises(AssertionError):
        check_loss(_wrong(model, predict=scaled), FAMILIES["pixart"])


@pytest.mark.parametrize(
    ("name", "part", "change"),
    [
        ("sd35", "pooled", lambda pooled: pooled.roll(16, dims=1)),  # the towers change places
        ("sd35", "states", lambda states: states.index_fill(1, torch.arange(77, 333), 0)),
        ("sd35", "states", lambda states: states.roll(16, dims=2)),
        ("flux1", "pooled", torch.zeros_like),
        ("flux1", "states", lambda states: states[:, :256]),
        ("chroma", "mask", torch.ones_like),
        ("chroma", "mask", lambda mask: mask.roll(-1, dims=1)),  # no padding token is seen
        ("pixart", "mask", torch.ones_like),
        ("wan", "states", lambda states: states[:, :226]),
    ],
)
def test_a_wrong_mask_tower_or_length_is_noticed(
    opened: Opened, name: str, part: str, change: Callable[[Tensor], Tensor]
) -> None:
    model = opened(name)

    def changed(self: TextToImage, prompts: list[str]) -> dict[str, Tensor]:
        right = type(model).encode_text(self, prompts)
        return right | {part: change(right[part])}

    with pytest.raises(AssertionError):
        check_loss(_wrong(model, encode_text=changed), FAMILIES[name])


@per_flow
@pytest.mark.parametrize(
    "wrong_time", [lambda t: 1000 - t, lambda t: t / 1000], ids=["reversed", "unscaled"]
)
def test_a_wrong_time_is_noticed(
    opened: Opened,
    sampled: Callable[[str], Step],
    name: str,
    wrong_time: Callable[[Tensor], Tensor],
) -> None:
    model = opened(name)

    def predict(_self: TextToImage, noisy: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        return model.predict(noisy, wrong_time(t), conditioning)

    with pytest.raises(AssertionError):
        check_step(_wrong(model, predict=predict), sampled(name))


@per_flow
def test_a_wrong_mask_is_noticed(opened: Opened, sampled: Callable[[str], Step], name: str) -> None:
    """Padding is read as text; where it is read anyhow, one place of it is missing."""
    model = opened(name)

    def encode_text(_self: TextToImage, prompts: list[str]) -> Any:
        encoded = model.encode_text(prompts)
        if "lengths" in encoded:
            longest = torch.full_like(encoded["lengths"], encoded["states"].shape[1])
            return encoded | {"lengths": longest}
        if "mask" in encoded:
            return encoded | {"mask": torch.ones_like(encoded["mask"])}
        return encoded | {"states": encoded["states"][:, :-1]}

    with pytest.raises(AssertionError):
        check_step(_wrong(model, encode_text=encode_text), sampled(name))


@per_flow
def test_a_wrong_shift_is_noticed(opened: Opened, name: str) -> None:
    wrong = _wrong(opened(name), noising_at=lambda _self, _resolution: Flow(1.0))
    with pytest.raises(AssertionError):
        check_shift(wrong, FAMILIES[name])


def _bytes_of(model: TextToImage) -> dict[str, str]:
    """A digest of every parameter and buffer of the pipeline."""
    digests = {}
    for part, module in model.pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                data = tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
                digests[f"{part}.{name}"] = hashlib.sha256(data.tobytes()).hexdigest()
    return digests


@per_family
@pytest.mark.parametrize("shape", [AdapterShape(), AdapterShape("oft")], ids=["lora", "oft"])
def test_an_adapter_gets_gradients_and_comes_back_from_its_file(
    opened: Opened, tmp_path: Path, name: str, shape: AdapterShape
) -> None:
    model = opened(name)
    frozen = {key: x.clone() for key, x in model.denoiser.state_dict().items()}
    sample = sample_of(model, ["a red cat"])
    with torch.no_grad():
        plain = losses_of(model, sample)
    layers = AdapterLayers(model.denoiser, shape)
    layers.start(0)
    model.put_adapter_in(layers)
    for parameter in layers.parameters.values():
        parameter.requires_grad_()
    losses = losses_of(model, sample)
    # A rotation lays out its result anew, and SANA's sums are then rounded otherwise.
    torch.testing.assert_close(losses, plain, rtol=0 if shape.kind == "lora" else 1e-5, atol=0)
    losses.sum().backward()
    last = [x for key, x in layers.parameters.items() if not key.endswith("lora_A")]
    assert any(x.grad is not None and x.grad.any() for x in last)
    with torch.no_grad():
        for parameter in layers.parameters.values():
            parameter.add_(0.5)
        adapted = losses_of(model, sample)
    weights = {key: x.detach() for key, x in layers.parameters.items()}
    write_adapter(tmp_path, Adapter(model.denoiser_name, shape, weights))
    model.take_adapter_out()
    kept = model.denoiser.state_dict()
    assert kept.keys() == frozen.keys()
    assert all(torch.equal(kept[key], x) for key, x in frozen.items())
    with torch.no_grad():
        model.put_adapter_in(AdapterLayers.holding(model.denoiser, read_adapter(tmp_path)))
        assert torch.equal(losses_of(model, sample), adapted)
        model.take_adapter_out()
        assert not torch.allclose(adapted, plain)
        if shape.kind == "lora" and hasattr(model.pipeline, "load_lora_weights"):
            model.pipeline.load_lora_weights(str(tmp_path))
            torch.testing.assert_close(losses_of(model, sample), adapted)
            model.pipeline.unload_lora_weights()


@per_family
def test_text_states_are_those_of_the_prompts_tokens_and_lead_back_to_the_vectors(
    opened: Opened, name: str
) -> None:
    model = opened(name)
    vectors = [rows.requires_grad_() for rows in random_vectors(model)]
    model.place("<x>", vectors)
    prompts = ["a <x> cat", "a red <x>"]
    towers = text_states(model, prompts)
    assert [states.tower for states in towers] == list(model.towers)
    for states, rows in zip(towers, vectors, strict=True):
        for prompt in range(2):
            place = states.place_of(prompt, "<x>")
            assert len(states.states[prompt]) == len(states.ids[prompt])
            (gradient,) = torch.autograd.grad(
                states.states[prompt][place].square().sum(), rows, retain_graph=True
            )
            assert gradient.any()
        # The prompts have as many tokens, and padding would follow their end.
        assert len(states.ids[0]) == len(states.ids[1])
        assert states.ids[0] != states.ids[1]
