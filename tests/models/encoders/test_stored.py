import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dti_geom.errors import DoesNotApply, ModelFilesError
from dti_geom.models import open_encoders
from dti_geom.models.encoders.base import Tap
from dti_geom.models.pipelines import View, open_text_to_image

SEEING = ["qwen2_5_vl", "qwen3_vl", "mistral3"]  # their language model is nested
CAUSAL = ["llama", "qwen2", "qwen3", "smollm3", *SEEING]
T5 = ["t5", "umt5", "byt5", "t5gemma"]
FAMILIES = [*CAUSAL, *T5, "bert", "roberta", "clip"]
IDS = torch.tensor([[5, 6, 7, 8], [9, 5, 5, 6]])


def test_a_pipeline_gives_one_encoder_per_tower_in_order(sdxl_folder: Path) -> None:
    first, second = open_encoders(str(sdxl_folder))
    assert (first.name, second.name) == ("text_encoder", "text_encoder_2")
    assert (first.token_table.shape, second.token_table.shape) == ((528, 32), (528, 48))
    assert first.position_table is not None
    assert second.position_table is not None
    assert (first.position_table.shape, second.position_table.shape) == ((12, 32), (12, 48))


def test_tables_are_those_of_the_loaded_module(
    sd15_folder: Path, single_encoders: dict[str, Path]
) -> None:
    for folder in (
        sd15_folder,
        single_encoders["clip"],
        single_encoders["bert"],
        single_encoders["t5"],
    ):
        (encoder,) = open_encoders(str(folder))
        module: Any = encoder.module
        assert torch.equal(encoder.token_table, module.get_input_embeddings().weight)
    (encoder,) = open_encoders(str(single_encoders["roberta"]))
    module = encoder.module
    positions = module.embeddings.position_embeddings.weight
    assert encoder.position_table is not None
    # No token has RoBERTa's first two positions.
    assert torch.equal(encoder.position_table, positions[2:])


@pytest.mark.parametrize("family", FAMILIES)
def test_geometry_needs_no_module_and_no_tokenizer(
    single_encoders: dict[str, Path], family: str
) -> None:
    (encoder,) = open_encoders(str(single_encoders[family]))
    assert encoder.token_table.ndim == 2
    assert (encoder.position_table is not None) == (family in ("bert", "roberta", "clip"))
    assert encoder.vocabulary.token(3) == "#3"
    assert "module" not in vars(encoder)


@pytest.mark.parametrize("family", [*CAUSAL, *T5, "clip", "sd15", "sana"])
def test_each_state_is_the_one_before_plus_the_branches_outputs(
    single_encoders: dict[str, Path], sd15_folder: Path, sana_folder: Path, family: str
) -> None:
    folders = single_encoders | {"sd15": sd15_folder, "sana": sana_folder}
    (encoder,) = open_encoders(str(folders[family]), dtype=torch.float32)
    updates = []
    hooks = [
        branch.output.register_forward_hook(
            lambda _m, _i, out: updates.append(out[0] if isinstance(out, tuple) else out)
        )
        for block in encoder.blocks
        for branch in block.branches
    ]
    found = encoder.hidden_states(IDS)
    for hook in hooks:
        hook.remove()
    assert len(found.states) == len(encoder.blocks) + 1
    for number in range(len(encoder.blocks)):
        rebuilt = found.states[number] + updates[2 * number] + updates[2 * number + 1]
        torch.testing.assert_close(rebuilt, found.states[number + 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_models_own_rows_passed_as_embeddings_change_nothing(
    single_encoders: dict[str, Path], family: str
) -> None:
    (encoder,) = open_encoders(str(single_encoders[family]))
    plain = encoder.hidden_states(IDS)
    given = encoder.hidden_states(IDS, encoder.token_table[IDS])
    for before, after in zip(plain.states, given.states, strict=True):
        assert torch.equal(before, after)
    assert torch.equal(plain.last, given.last)
    other = encoder.hidden_states(IDS, encoder.token_table[IDS + 1])
    assert not torch.allclose(plain.last, other.last)


def test_byt5_names_its_rows_after_bytes(single_encoders: dict[str, Path], tmp_path: Path) -> None:
    """Its tokenizer comes without a file of names."""
    folder = tmp_path / "byt5"
    shutil.copytree(single_encoders["byt5"], folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    (encoder,) = open_encoders(str(folder))
    assert encoder.vocabulary.rows("cat") == [3 + byte for byte in b"cat"]
    assert encoder.vocabulary.token(3 + ord("c")).strip("…") == "c"


def test_gemma_still_scales_embeddings_that_are_passed_in(sana_folder: Path) -> None:
    (encoder,) = open_encoders(str(sana_folder))
    plain, given = encoder.hidden_states(IDS), encoder.hidden_states(IDS, encoder.token_table[IDS])
    assert torch.equal(plain.states[0], given.states[0])
    assert torch.equal(plain.last, given.last)


def test_embeddings_of_another_shape_are_refused(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    with pytest.raises(ValueError, match=r"embeddings of shape \(1, 4, 32\)"):
        encoder.hidden_states(IDS, torch.zeros(1, 4, 32))


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_post_norm_encoder_says_that_pre_norm_probes_do_not_apply(
    single_encoders: dict[str, Path], family: str
) -> None:
    (encoder,) = open_encoders(str(single_encoders[family]))
    with pytest.raises(DoesNotApply, match="post-norm"):
        _ = encoder.blocks


def test_the_module_is_frozen_and_in_evaluation_mode(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    assert not encoder.module.training
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())


def test_a_weight_file_that_lacks_a_tensor_is_refused_instead_of_filled_with_noise(
    sd15_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(sd15_folder, tmp_path / "model")
    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    del tensors["text_model.encoder.layers.1.mlp.fc1.weight"]
    save_file(tensors, file, {"format": "pt"})
    (encoder,) = open_encoders(str(folder))
    assert encoder.token_table.shape == (528, 32)
    with pytest.raises(ModelFilesError, match=r"lacks 1 tensors.*mlp\.fc1\.weight"):
        _ = encoder.module


def test_a_folder_without_a_token_table_says_so(sd15_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sd15_folder / "text_encoder", tmp_path / "encoder")
    save_file({"something.else": torch.ones(2)}, folder / "model.safetensors")
    (encoder,) = open_encoders(str(folder))
    with pytest.raises(ModelFilesError, match="holds no token table"):
        _ = encoder.token_table


def test_what_sdxl_reads_is_known_before_a_weight_is_loaded(sdxl_folder: Path) -> None:
    for encoder in open_encoders(str(sdxl_folder)):
        assert encoder.tap == Tap((1,), final_norm=False)
        assert "module" not in vars(encoder)


def test_what_sdxl_reads_is_its_pipelines_conditioning(sdxl_pipeline: Path) -> None:
    model = open_text_to_image(str(sdxl_pipeline), dtype=torch.float32)
    states = model.encode_prompts(["a red cat"], [View((64, 64), (0, 0), (64, 64))])["states"]
    encoders = open_encoders(str(sdxl_pipeline), dtype=torch.float32)
    read = []
    for encoder in encoders:
        assert encoder.position_table is not None
        assert encoder.tokenizer is not None
        length = encoder.position_table.shape[0]
        tokens = encoder.tokenizer("a red cat", padding="max_length", max_length=length)
        read.append(encoder.hidden_states(torch.tensor([tokens["input_ids"]])).read)
    torch.testing.assert_close(states, torch.cat(read, dim=-1))


def test_modules_are_float32_whatever_is_stored_unless_another_dtype_is_asked_for(
    sd15_pipeline: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(sd15_pipeline, folder)
    weights = folder / "text_encoder" / "model.safetensors"
    half = {name: value.half() for name, value in load_file(weights).items()}
    save_file(half, weights, {"format": "pt"})
    (encoder,) = open_encoders(str(folder))
    assert encoder.token_table.dtype == torch.float16
    assert {parameter.dtype for parameter in encoder.module.parameters()} == {torch.float32}
    (chosen,) = open_encoders(str(folder), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in chosen.module.parameters()} == {torch.bfloat16}
