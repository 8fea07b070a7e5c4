from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dti_geom import __version__
from dti_geom.editing import Converted, convert
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
    (result,) = convert([saved(tmp_path / "doll.pt", content)], "diffusers", tmp_path / "out")
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
    (result,) = convert([file], "kohya", tmp_path / "out", rescale_to="0.5")
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
    (result,) = convert([file], "sdxl", tmp_path / "out", rescale_to="mean", encoders=encoders)
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
    (result,) = convert(files[::-1], "sdxl", tmp_path / "out")
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
    (result,) = convert(files, "sdxl", tmp_path / "out")
    assert [one.dim for one in result.vectors] == [8, 12]


def test_numbered_files_of_other_names_stay_apart(tmp_path: Path) -> None:
    files = [saved(tmp_path / name, {"<x>": torch.ones(8)}) for name in ("cat.bin", "cat_2.bin")]
    assert len(convert(files, "kohya", tmp_path / "out")) == 2


def test_a_file_of_several_tokens_becomes_several_files(tmp_path: Path) -> None:
    file = saved(
        tmp_path / "zoo.bin",
        {"<cat>": torch.ones(8), "<cat>_1": torch.ones(8), "<../dog>": torch.ones(8)},
    )
    results = convert([file], "webui", tmp_path / "out")
    assert [Path(result.files[0]).name for result in results] == ["zoo-cat.pt", "zoo-..dog.pt"]
    assert [len(result.vectors) for result in results] == [2, 1]
    with pytest.raises(EditingError, match="these files hold 2"):
        convert([file], "webui", tmp_path / "renamed", token="<y>")


def test_a_token_can_be_renamed(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.bin", {"<x>": torch.ones(8)})
    (result,) = convert([file], "diffusers", tmp_path / "out", token="<new>")
    assert read_embeddings(result.files[0]).tokens[0].token == "<new>"


def test_nothing_is_written_unless_all_can_be(tmp_path: Path) -> None:
    good = saved(tmp_path / "a.bin", {"<x>": [torch.ones(8), torch.ones(12)]})
    bad = saved(tmp_path / "b.bin", {"<y>": torch.ones(8)})
    with pytest.raises(EmbeddingFileError, match="SDXL has two"):
        convert([good, bad], "sdxl", tmp_path / "out")
    same = saved(tmp_path / "other" / "b.bin", {"<y>": torch.ones(8)})
    with pytest.raises(EditingError, match=r"two of these would be written to .*b\.pt"):
        convert([bad, same], "webui", tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out").exists()


def test_an_existing_file_is_kept_unless_asked(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.bin", {"<x>": torch.ones(8)})
    convert([file], "kohya", tmp_path / "out")
    with pytest.raises(FileExists):
        convert([file], "kohya", tmp_path / "out", rescale_to="1")
    (result,) = convert([file], "kohya", tmp_path / "out", rescale_to="1", overwrite=True)
    assert header(result.files[0])["norm_after"] == "1"
