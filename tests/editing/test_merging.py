from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.editing import Merged, merge
from dti_geom.editing.merging import BlendMethod, Term, parse_expression
from dti_geom.errors import EditingError, FileExists, GeometryError, UnknownToken
from dti_geom.files import EmbeddingFile, LearnedToken, from_json, read_embeddings, to_json
from dti_geom.models import TextEncoder, open_encoders


@pytest.fixture(scope="module")
def encoders(sd15_folder: Path) -> Sequence[TextEncoder]:
    return open_encoders(str(sd15_folder))


def row(encoder: TextEncoder, word: str) -> Tensor:
    return encoder.token_table[encoder.vocabulary.rows(word)[0]]


def in_files(tokens: Sequence[LearnedToken]) -> list[EmbeddingFile]:
    """One file of all these tokens."""
    return [EmbeddingFile(Path("a.bin"), "diffusers", tuple(tokens), None, {})]


def merged_vectors(result: Merged) -> list[Tensor]:
    files = [read_embeddings(file) for file in result.files]
    return [token.vectors for file in files for token in file.tokens]


# --- The grammar ---


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("0.7*<a> + 0.3*cat", [(0.7, "<a>"), (0.3, "cat")]),
        ("cat", [(1, "cat")]),
        ("-cat+.5*dog", [(-1, "cat"), (0.5, "dog")]),
        (" 2 * <my-token> - #320 ", [(2, "<my-token>"), (-1, "#320")]),
        ('"a red cat" + well-known', [(1, "a red cat"), (1, "well-known")]),
        ("-0.5*a/b.bin:<x> + c.pt:<y>", [(-0.5, "a/b.bin:<x>"), (1, "c.pt:<y>")]),
        ('"my dir/b.bin:<x>" + x', [(1, "my dir/b.bin:<x>"), (1, "x")]),
        ("1e3", [(1, "1e3")]),
        ("3", [(1, "3")]),
    ],
)
def test_a_blend_is_a_sum_of_weighted_names(text: str, terms: list[tuple[float, str]]) -> None:
    assert parse_expression(text) == tuple(Term(*term) for term in terms)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "cat dog",
        "cat +",
        "+",
        "0.5*",
        "0*cat",
        "cat ** 2",
        "cat + + dog",
        "<a b>",
        '"cat',
        "cat * 2",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(EditingError):
        parse_expression(text)


def test_code_in_a_blend_is_only_a_name_that_no_model_knows(
    tmp_path: Path, encoders: Sequence[TextEncoder]
) -> None:
    with pytest.raises((EditingError, UnknownToken)):
        merge("#__import__('os').getcwd()", encoders, (), tmp_path / "x")
    assert not list(tmp_path.iterdir())


# --- The blend ---


def test_slerp_of_two_words_lies_on_the_great_circle_between_them(
    tmp_path: Path, encoders: Sequence[TextEncoder]
) -> None:
    (encoder,) = encoders
    result = merge("0.7*cat + 0.3*dog", encoders, (), tmp_path / "x")
    (found,) = merged_vectors(result)
    cat, dog = (geometry.normalize(row(encoder, word)) for word in ("cat", "dog"))
    torch.testing.assert_close(
        geometry.normalize(found[0]), geometry.slerp(cat, dog, 0.3), rtol=0, atol=1e-6
    )


def test_the_norm_is_the_weighted_mean_of_the_terms_norms(
    tmp_path: Path, encoders: Sequence[TextEncoder]
) -> None:
    (encoder,) = encoders
    low, *_, high = geometry.summarize_norms(encoder.token_table).percentiles
    norms = [min(max(float(row(encoder, word).norm()), low), high) for word in ("cat", "dog")]
    for method in ("slerp", "lerp"):
        result = merge("3*cat + 1*dog", encoders, (), tmp_path / method, method=method)
        assert result.vectors[0].norm == pytest.approx(0.75 * norms[0] + 0.25 * norms[1], rel=1e-5)


@pytest.mark.parametrize("method", ["slerp", "lerp"])
def test_an_inflated_token_lends_its_direction_and_not_its_length(
    tmp_path: Path, encoders: Sequence[TextEncoder], method: BlendMethod
) -> None:
    (encoder,) = encoders
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    results = [
        merge(
            "<a>",
            encoders,
            in_files([LearnedToken("<a>", None, scale * direction[None])]),
            tmp_path / str(scale),
            method=method,
        )
        for scale in (1.0, 1000.0)
    ]
    high = geometry.summarize_norms(encoder.token_table).percentiles[-1]
    for result in results:
        assert result.vectors[0].norm == pytest.approx(high, rel=1e-5)
        assert result.vectors[0].similarities == pytest.approx((1.0,))


def test_lerp_may_subtract_and_slerp_may_not(
    tmp_path: Path, encoders: Sequence[TextEncoder]
) -> None:
    (encoder,) = encoders
    result = merge("cat - dog + house", encoders, (), tmp_path / "x", method="lerp")
    wanted = row(encoder, "cat") - row(encoder, "dog") + row(encoder, "house")
    (found,) = merged_vectors(result)
    assert torch.cosine_similarity(found[0], wanted, dim=-1) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(EditingError, match="--method lerp"):
        merge("cat - dog", encoders, (), tmp_path / "y")


def test_terms_that_cancel_have_no_direction(
    tmp_path: Path, encoders: Sequence[TextEncoder]
) -> None:
    with pytest.raises(GeometryError, match="cancel"):
        merge("cat - cat", encoders, (), tmp_path / "x", method="lerp")


def test_a_single_vector_goes_with_each_of_several(
    tmp_path: Path, encoders: Sequence[TextEncoder]
) -> None:
    several = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    learned = [LearnedToken("<a>", None, several)]
    result = merge("<a> + cat", encoders, in_files(learned), tmp_path / "x", token="<new>")
    (found,) = merged_vectors(result)
    assert found.shape == (3, 32)
    assert [one.index for one in result.vectors] == [0, 1, 2]
    learned.append(LearnedToken("<b>", None, several[:2]))
    with pytest.raises(EditingError, match="2 vectors in text_encoder, and another term has 3"):
        merge("<a> + <b>", encoders, in_files(learned), tmp_path / "y")


def test_each_tower_is_blended_from_its_own_rows(tmp_path: Path, sdxl_folder: Path) -> None:
    encoders = open_encoders(str(sdxl_folder))
    learned = [
        LearnedToken("<a>", "clip_l", torch.ones(1, 32)),
        LearnedToken("<a>", "clip_g", torch.ones(1, 48)),
    ]
    result = merge(
        "<a> + cat", encoders, in_files(learned), tmp_path / "x.safetensors", layout="sdxl"
    )
    assert [one.encoder for one in result.vectors] == ["text_encoder", "text_encoder_2"]
    assert sorted(each.shape[1] for each in merged_vectors(result)) == [32, 48]
    assert from_json(Merged, to_json(result)) == result


def test_a_token_of_another_width_is_refused(
    tmp_path: Path, encoders: Sequence[TextEncoder]
) -> None:
    with pytest.raises(EditingError, match="<a> has width 7, and text_encoder has 32"):
        merge(
            "<a>",
            encoders,
            in_files([LearnedToken("<a>", None, torch.ones(1, 7))]),
            tmp_path / "x",
        )


def test_an_existing_file_is_kept_unless_asked(
    tmp_path: Path, encoders: Sequence[TextEncoder]
) -> None:
    merge("cat", encoders, (), tmp_path / "x")
    with pytest.raises(FileExists):
        merge("dog", encoders, (), tmp_path / "x")
    merge("dog", encoders, (), tmp_path / "x", overwrite=True)


def test_a_token_that_several_files_have_is_named_with_its_path(
    tmp_path: Path, encoders: Sequence[TextEncoder]
) -> None:
    directions = torch.eye(32)[:2]
    files = [
        EmbeddingFile(Path(name), "diffusers", (LearnedToken("<a>", None, row[None]),), None, {})
        for name, row in zip(("one/a.bin", "two/b.bin"), directions, strict=True)
    ]
    with pytest.raises(EditingError, match=r"(?s)<a> is in 2 files.*one/a.bin:<a>.*two/b.bin:<a>"):
        merge("<a> + cat", encoders, files, tmp_path / "x")
    for name in ("two/b.bin:<a>", "b.bin:<a>"):
        for order in (files, files[::-1]):
            result = merge(name, encoders, order, tmp_path / "x", overwrite=True)
            assert merged_vectors(result)[0][0].argmax() == 1
    # A file for another encoder is no rival.
    other = EmbeddingFile(
        Path("c.bin"), "diffusers", (LearnedToken("<a>", None, torch.ones(1, 7)),), None, {}
    )
    merge("<a> + cat", encoders, [files[0], other], tmp_path / "y")
