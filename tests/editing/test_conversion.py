from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dti_geom import __version__
from dti_geom.editing import Conversion, Converted, convert
from dti_geom.errors import EditingError, EmbeddingFileError, FileExists
from dti_geom.files import EmbeddingFile, from_json, read_embeddings, to_json, write_embeddings
from dti_geom.files.embeddings import LearnedToken
from dti_geom.models import open_encoders


def saved(path: Path, content: object) -> EmbeddingFile:
    path.parent.mkdir(exist_ok=True, parents=True)
    torch.save(content, path)
    return read_embeddings(path)


def header(path: str) -> dict[str, str]:
    with safe_open(path, "pt") as opened:
        metadata: dict[str, str] = opened.metadata()
        return metadata


def test_a_file_keeps_its_bits_and_tells_where_it_came_from(tmp_path: Path) -> None:
    stored = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    content = {
        "string_to_param": {"*": stored},
        "name": "doll",
        "step": 249,
        "sd_checkpoint_name": "v2-1",
    }
    (result,) = convert(
        [saved(tmp_path / "doll.pt", content)], "diffusers", tmp_path / "out"
    ).written
    assert result.files == (str(tmp_path / "out" / "doll" / "learned_embeds.safetensors"),)
    file = read_embeddings(result.files[0])
    assert torch.equal(file.tokens[0].vectors, stored)
    norms = " ".join(f"{norm:.6g}" for norm in stored.norm(dim=-1).tolist())
    assert header(result.files[0]) == {
        "format": "pt",
        "name": "doll",
        "token": "doll",
        "step": "249",
        "sd_checkpoint_name": "v2-1",
        "converted_from": "web-ui",
        "norm_before": norms,
        "norm_after": norms,
        "tool": f"dti-geom {__version__}",
    }


def test_rescaling_is_told_in_the_result_and_in_the_file(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.bin", {"<x>": torch.full((4,), 3.0)})
    (result,) = convert([file], "kohya", tmp_path / "out", rescale_to="0.5").written
    (vector,) = result.vectors
    assert (vector.norm_before, vector.norm_after) == pytest.approx((6.0, 0.5))
    told = header(result.files[0])
    assert (told["norm_before"], told["norm_after"], told["rescaled_to"]) == ("6", "0.5", "0.5")
    assert read_embeddings(result.files[0]).tokens[0].vectors.tolist() == [[0.25] * 4]
    assert from_json(Converted, to_json(result)) == result


def test_each_tower_takes_the_mean_of_its_own_encoder(tmp_path: Path, sdxl_folder: Path) -> None:
    encoders = open_encoders(str(sdxl_folder))
    content = {"<x>": [torch.full((2, 32), 9.0), torch.full((2, 48), 9.0)]}
    file = saved(tmp_path / "x.bin", content)
    (result,) = convert(
        [file], "sdxl", tmp_path / "out", rescale_to="mean", encoders=encoders
    ).written
    means = [float(encoder.token_table.norm(dim=-1).double().mean()) for encoder in encoders]
    assert [one.norm_after for one in result.vectors] == pytest.approx(
        [means[0]] * 2 + [means[1]] * 2, rel=1e-5
    )
    assert abs(means[0] - means[1]) > 1e-3 * means[0]


def test_the_two_files_of_a_diffusers_folder_are_one_token(tmp_path: Path) -> None:
    tokens = [
        LearnedToken("<x>", tower, torch.ones(2, width)) for tower, width in (("1", 8), ("2", 12))
    ]
    files = [read_embeddings(path) for path in write_embeddings(tmp_path / "toy", tokens)]
    (result,) = convert(files[::-1], "sdxl", tmp_path / "out").written
    assert result.files == (str(tmp_path / "out" / "toy.safetensors"),)
    assert [one.tower for one in result.vectors] == ["1", "1", "2", "2"]
    assert {
        each.tower: each.vectors.shape[1] for each in read_embeddings(result.files[0]).tokens
    } == {
        "clip_l": 8,
        "clip_g": 12,
    }


def test_the_second_file_is_known_without_our_header(tmp_path: Path) -> None:
    files = [
        saved(tmp_path / f"learned_embeds{suffix}.bin", {"<x>": torch.ones(width)})
        for suffix, width in (("", 8), ("_2", 12))
    ]
    (result,) = convert(files, "sdxl", tmp_path / "out").written
    assert [one.dim for one in result.vectors] == [8, 12]


def test_numbered_files_of_other_names_stay_apart(tmp_path: Path) -> None:
    files = [saved(tmp_path / name, {"<x>": torch.ones(8)}) for name in ("cat.bin", "cat_2.bin")]
    assert len(convert(files, "kohya", tmp_path / "out").written) == 2


def test_a_file_of_several_tokens_becomes_several_files(tmp_path: Path) -> None:
    file = saved(
        tmp_path / "zoo.bin",
        {"<cat>": torch.ones(8), "<cat>_1": torch.ones(8), "<../dog>": torch.ones(8)},
    )
    results = convert([file], "webui", tmp_path / "out").written
    assert [Path(result.files[0]).name for result in results] == ["zoo-cat.pt", "zoo-..dog.pt"]
    assert [len(result.vectors) for result in results] == [2, 1]
    with pytest.raises(EditingError, match="these files hold 2"):
        convert([file], "webui", tmp_path / "renamed", token="<y>")


def test_a_token_can_be_renamed(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.bin", {"<x>": torch.ones(8)})
    (result,) = convert([file], "diffusers", tmp_path / "out", token="<new>").written
    assert read_embeddings(result.files[0]).tokens[0].token == "<new>"


def test_what_can_be_written_is_and_the_rest_is_reported(tmp_path: Path) -> None:
    good = saved(tmp_path / "a.bin", {"<x>": [torch.ones(8), torch.ones(12)]})
    bad = saved(tmp_path / "b.bin", {"<y>": torch.ones(8)})
    result = convert([good, bad], "sdxl", tmp_path / "out")
    assert [Path(each.files[0]).name for each in result.written] == ["a.safetensors"]
    (failure,) = result.failures
    assert (failure.source, failure.token) == (str(tmp_path / "b.bin"), "<y>")
    assert "SDXL has two" in failure.reason
    assert from_json(Conversion, to_json(result)) == result


def test_where_nothing_can_be_written_the_reasons_are_raised(tmp_path: Path) -> None:
    bad = saved(tmp_path / "b.bin", {"<y>": torch.ones(8)})
    other = saved(tmp_path / "c.bin", {"<z>": torch.full((8,), 2.0)})
    with pytest.raises(EmbeddingFileError, match="SDXL has two"):
        convert([bad], "sdxl", tmp_path / "out")
    with pytest.raises(EditingError, match=r"(?s)<y>.*SDXL has two.*<z>"):
        convert([bad, other], "sdxl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_keep_their_places_below_the_folder_they_were_found_in(tmp_path: Path) -> None:
    tokens = [LearnedToken("<x>", "1", torch.ones(1, 8))]
    steps = [write_embeddings(tmp_path / "run" / f"step-{step}", tokens)[0] for step in (100, 200)]
    flat = [
        saved(tmp_path / "run" / f"learned_embeds-steps-{step}.bin", {"<x>": torch.ones(8)})
        for step in (100, 200)
    ]
    files = [*map(read_embeddings, steps), *flat]
    folders = {file.path: file.path.relative_to(tmp_path / "run").parent for file in files}
    result = convert(files, "webui", tmp_path / "out", folders=folders)
    assert not result.failures
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").iterdir()} == {
        "step-100.pt",
        "step-200.pt",
        "learned_embeds-steps-100.pt",
        "learned_embeds-steps-200.pt",
    }


def test_two_files_for_one_place_are_told_and_the_first_is_kept(tmp_path: Path) -> None:
    first = saved(tmp_path / "b.bin", {"<y>": torch.ones(8)})
    second = saved(tmp_path / "other" / "b.bin", {"<z>": torch.ones(8)})
    result = convert([first, second], "webui", tmp_path / "out", overwrite=True)
    assert [each.token for each in result.written] == ["<y>"]
    assert f"b.pt holds {tmp_path / 'b.bin'}:<y> already" in result.failures[0].reason


@pytest.mark.parametrize(
    ("content", "suffix", "layout"),
    [
        ({"string_to_param": {"*": torch.ones(2, 8)}}, ".pt", "webui"),
        ({"<x>": torch.ones(2, 8)}, ".bin", "diffusers"),
        ({"clip_g": torch.ones(2, 8)}, ".pt", "comfyui"),
        ({"clip_l": torch.ones(8), "clip_g": torch.ones(8)}, ".pt", "sdxl"),
        ({"clip_l": torch.ones(8), "t5": torch.ones(8)}, ".pt", "onetrainer"),
    ],
)
def test_a_file_keeps_its_layout(tmp_path: Path, content: object, suffix: str, layout: str) -> None:
    (result,) = convert([saved(tmp_path / f"x{suffix}", content)], "same", tmp_path / "out").written
    assert result.layout == layout


def test_vectors_behind_an_encoder_are_named_as_left_out(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.pt", {"clip_l": torch.ones(8), "clip_l_out": torch.ones(8)})
    (result,) = convert([file], "same", tmp_path / "out").written
    assert result.left_out == ("clip_l_out",)


def test_an_only_without_a_rule_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.bin", {"<x>": torch.ones(8)})
    with pytest.raises(EditingError, match="--rescale"):
        convert([file], "same", tmp_path / "out", only="inflated")


def test_an_existing_file_is_kept_unless_asked(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.bin", {"<x>": torch.ones(8)})
    convert([file], "kohya", tmp_path / "out")
    with pytest.raises(FileExists):
        convert([file], "kohya", tmp_path / "out", rescale_to="1")
    (result,) = convert([file], "kohya", tmp_path / "out", rescale_to="1", overwrite=True).written
    assert header(result.files[0])["norm_after"] == "1"
