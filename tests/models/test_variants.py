from pathlib import Path

import pytest
import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import UnknownModel
from dti_geom.models import open_encoders
from dti_geom.models.catalog import find_source, profile_of, variant_of
from dti_geom.models.encoders.stored import StoredEncoder
from dti_geom.models.pipelines import TextToImage, TrainingDefaults, open_text_to_image
from dti_geom.training import ConceptConfig, MethodConfig, PreviewConfig, RunConfig, train

PROMPT = "a photo of a fox on the beach"


@pytest.fixture(scope="module")
def base() -> StoredEncoder:
    (encoder,) = open_encoders("mini")
    return encoder


@pytest.fixture(scope="module")
def scaled() -> StoredEncoder:
    (encoder,) = open_encoders("mini:gain=64")
    return encoder


@pytest.fixture(scope="module")
def pipeline() -> TextToImage:
    return open_text_to_image("mini:gain=64", dtype=torch.bfloat16)


def ids_of(encoder: StoredEncoder) -> Tensor:
    assert encoder.tokenizer is not None
    ids: Tensor = encoder.tokenizer([PROMPT], return_tensors="pt").input_ids
    return ids


def test_a_gain_multiplies_both_tables(base: StoredEncoder, scaled: StoredEncoder) -> None:
    assert torch.equal(scaled.token_table, 64 * base.token_table.float())
    assert base.position_table is not None
    assert scaled.position_table is not None
    assert torch.equal(scaled.position_table, 64 * base.position_table.float())


def test_the_state_before_the_blocks_is_a_multiple_and_its_normalised_form_is_kept(
    base: StoredEncoder, scaled: StoredEncoder
) -> None:
    before = [encoder.hidden_states(ids_of(base)).states[0] for encoder in (base, scaled)]
    torch.testing.assert_close(before[1], 64 * before[0])
    normalised = [
        encoder.blocks[0].branches[0].norm(state)
        for encoder, state in zip((base, scaled), before, strict=True)
    ]
    # The ε of layer norm, 1e-5, is small beside a variance of 1e-3, and nothing beside 64² of it.
    torch.testing.assert_close(normalised[1], normalised[0], rtol=0.01, atol=0.01)


def test_blocks_add_less_beside_longer_tokens(base: StoredEncoder, scaled: StoredEncoder) -> None:
    ratios = []
    for encoder in (base, scaled):
        states = encoder.hidden_states(ids_of(base)).states
        ratios.append((states[-1] - states[0]).norm() / states[0].norm())
    assert ratios[1] < ratios[0] / 30


def test_a_gain_of_one_is_the_model_itself(base: StoredEncoder) -> None:
    (same,) = open_encoders("mini:gain=1")
    states = [encoder.hidden_states(ids_of(base)).last for encoder in (base, same)]
    assert torch.equal(*states)
    assert same.identity == base.identity


def test_the_pipeline_has_the_encoders_tables(scaled: StoredEncoder, pipeline: TextToImage) -> None:
    assert torch.equal(pipeline.towers[0].token_table.float(), scaled.token_table.bfloat16())


def test_another_gain_is_another_model_for_stored_results(
    base: StoredEncoder, scaled: StoredEncoder
) -> None:
    (other,) = open_encoders("mini:gain=32")
    assert len({base.identity, scaled.identity, other.identity}) == 3


def test_a_variant_keeps_profile_and_files_of_its_model() -> None:
    assert profile_of("mini:gain=64") == profile_of("mini")
    assert find_source("mini:gain=64") == find_source("mini")


def test_free_vectors_move_by_the_same_share_of_their_norm(pipeline: TextToImage) -> None:
    usual = TrainingDefaults()
    assert pipeline.training.vector_rate == pytest.approx(64 * usual.vector_rate)
    decay = pipeline.training.weight_decay * pipeline.training.vector_rate
    assert decay == pytest.approx(usual.weight_decay * usual.vector_rate)
    assert pipeline.training.direction_rate == usual.direction_rate


def test_a_variant_trains_and_keeps_its_name(pipeline: TextToImage, tmp_path: Path) -> None:
    fox = profile_of("mini").concepts()["green-fox"]
    config = RunConfig(
        "mini:gain=64",
        (ConceptConfig("<x>", str(fox.images), fox.init),),
        MethodConfig("dti"),
        preview=PreviewConfig(every=0),
        steps=2,
        dtype="bfloat16",
    )
    result = train(config, tmp_path / "run", model=pipeline)
    assert result.config.model == "mini:gain=64"
    mean = geometry.summarize_norms(pipeline.towers[0].token_table).mean
    assert result.vectors[0].norm == pytest.approx(mean, rel=1e-3)
    assert mean == pytest.approx(64 * 0.432, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mini:gane=64", "no variant 'gane=64'.*Did you mean 'gain'"),
        ("mini:gain", "gain is ''; expected a number above 0"),
        ("mini:gain=0", "gain is '0'; expected"),
        ("mini:gain=inf", "gain is 'inf'; expected"),
        ("sdxl:gain=2", "sdxl has no variants.*--model mini:gain=2"),
    ],
)
def test_a_variant_that_does_not_exist_says_which_do(name: str, found: str) -> None:
    with pytest.raises(UnknownModel, match=f"(?s){found}"):
        find_source(name)


def test_a_colon_in_another_name_is_no_variant() -> None:
    assert variant_of("./my:folder").gain == 1


def test_the_sdxl_like_variant_is_gain_64_with_the_weight_decay_of_the_model_as_trained() -> None:
    named = open_text_to_image("mini:sdxl-like", dtype=torch.bfloat16)
    usual = TrainingDefaults()
    assert named.training.vector_rate == 64 * usual.vector_rate
    assert named.training.weight_decay == usual.weight_decay
    (encoder,) = open_encoders("mini:sdxl-like")
    (scaled,) = open_encoders("mini:gain=64")
    assert torch.equal(encoder.token_table, scaled.token_table)


def test_an_unknown_variant_is_answered_with_those_there_are() -> None:
    with pytest.raises(UnknownModel, match="Known names: sdxl-like") as error:
        variant_of("mini:sdxl-lik")
    assert "sdxl-like" in str(error.value).splitlines()[0]
