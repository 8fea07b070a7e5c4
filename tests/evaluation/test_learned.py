from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dti_geom.errors import EmbeddingFileError
from dti_geom.evaluation import load_tokens
from dti_geom.evaluation.learned import token_files
from dti_geom.files import LearnedToken, write_embeddings
from dti_geom.models.pipelines import TextToImage

TWO_TOWERS = [
    LearnedToken("<x>", "text_encoder", torch.full((1, 32), 0.25)),
    LearnedToken("<x>", "text_encoder_2", torch.full((2, 48), 0.5)),
]


@pytest.mark.parametrize("layout", ["diffusers", "sdxl"])
def test_the_towers_of_a_token_are_joined_from_two_files_or_from_one(
    layout: str, sdxl: TextToImage, tmp_path: Path
) -> None:
    path = tmp_path if layout == "diffusers" else tmp_path / "any.safetensors"
    write_embeddings(path, TWO_TOWERS, layout)
    files = token_files([tmp_path])
    assert len(files) == (2 if layout == "diffusers" else 1)
    (name,) = load_tokens(sdxl, files)
    first, second = (tower.learned[name] for tower in sdxl.towers)
    assert torch.equal(first, torch.full((1, 32), 0.25))
    assert torch.equal(second, torch.full((2, 48), 0.5))


def test_the_order_of_the_files_does_not_matter(sdxl: TextToImage, tmp_path: Path) -> None:
    paths = write_embeddings(tmp_path, TWO_TOWERS)
    assert load_tokens(sdxl, reversed(paths)) == ("<x>",)
    assert [tower.learned["<x>"].shape for tower in sdxl.towers] == [(1, 32), (2, 48)]


def test_a_token_that_lacks_a_tower_is_refused_with_what_is_missing(
    sdxl: TextToImage, tmp_path: Path
) -> None:
    (first, _) = write_embeddings(tmp_path, TWO_TOWERS)
    with pytest.raises(
        EmbeddingFileError, match=r"<x> has no vectors for text_encoder_2 .* \(width 48\)"
    ):
        load_tokens(sdxl, [first])


def test_a_token_of_another_width_is_refused_with_both_widths(
    sd15: TextToImage, tmp_path: Path
) -> None:
    save_file({"<x>": torch.ones(768)}, tmp_path / "x.safetensors")
    with pytest.raises(
        EmbeddingFileError, match=r"<x> has width 768; .* takes 32 \(text_encoder\)"
    ):
        load_tokens(sd15, [tmp_path / "x.safetensors"])


def test_two_tokens_of_one_name_need_names_of_their_own(sd15: TextToImage, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_embeddings(
            tmp_path / name, [LearnedToken("<x>", None, torch.full((2, 32), float(ord(name))))]
        )
    with pytest.raises(
        EmbeddingFileError, match=r"came from .*a/learned_embeds.safetensors already.*'<name>="
    ):
        load_tokens(sd15, [tmp_path / "a", tmp_path / "b"])
    assert load_tokens(sd15, [f"<a>={tmp_path / 'a'}", f"<b>={tmp_path / 'b'}"]) == ("<a>", "<b>")
    assert (sd15.towers[0].learned["<b>"] == ord("b")).all()


def test_a_name_for_a_file_of_two_tokens_is_refused(tmp_path: Path) -> None:
    save_file({"<x>": torch.ones(32), "<y>": torch.ones(32)}, tmp_path / "two.safetensors")
    with pytest.raises(EmbeddingFileError, match="hold 2 tokens"):
        token_files([f"<a>={tmp_path / 'two.safetensors'}"])


def test_a_path_with_an_equals_sign_is_a_path_where_it_exists(tmp_path: Path) -> None:
    save_file({"<x>": torch.ones(32)}, tmp_path / "lr=0.1.safetensors")
    (file,) = token_files([tmp_path / "lr=0.1.safetensors"])
    assert file.tokens[0].token == "<x>"


def test_of_a_run_the_tokens_it_ended_with_are_taken_and_not_its_checkpoints(
    tmp_path: Path,
) -> None:
    run, many = tmp_path / "run", tmp_path / "many"
    for place in (
        run,
        run / "checkpoints" / "step-000100",
        many / "00-a",
        many / "checkpoints" / "step-000100" / "00-a",
    ):
        write_embeddings(place, [LearnedToken("<x>", None, torch.ones(1, 32))])
    found = [file.path.relative_to(tmp_path).as_posix() for file in token_files([run, many])]
    assert found == ["run/learned_embeds.safetensors", "many/00-a/learned_embeds.safetensors"]
