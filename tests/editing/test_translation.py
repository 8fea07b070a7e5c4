from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.editing.concepts import Concept, concepts_of
from dti_geom.editing.translation import METHODS, shared_words, translate
from dti_geom.errors import EditingError
from dti_geom.files import EmbeddingFile, LearnedToken, read_embeddings

LETTERS = "abcdefghijklmnop"


class Words:
    """A vocabulary of these words."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.special: dict[str, int] = {"<end>": 0}

    def tokens(self, rows: Iterable[int]) -> list[str]:
        return [self.words[row] for row in rows]


class Encoder:
    """All a translation asks for."""

    def __init__(self, table: Tensor, words: list[str], name: str = "tiny") -> None:
        self.token_table, self.vocabulary, self.name = table, Words(words), name


def word(number: int) -> str:
    return "".join(LETTERS[number // 16**place % 16] for place in range(3))


def table(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def rotated(rows: Tensor, width: int, seed: int = 1) -> Tensor:
    """The rows under a planted semi-orthogonal map to another width."""
    rotation: Tensor = torch.linalg.qr(
        table(max(width, rows.shape[1]), max(width, rows.shape[1]), seed)
    ).Q
    return rows @ rotation[: rows.shape[1], :width]


def concept(vectors: Tensor) -> Concept:
    file = EmbeddingFile(
        Path("x.bin"), "diffusers", (LearnedToken("<x>", None, vectors),), None, {}
    )
    return concepts_of([file])[0]


def pair(width: int = 24, rows: int = 600, noise: float = 0.0) -> tuple[Any, Any, Tensor]:
    """Two encoders whose tables are one under a planted rotation, rows in another order."""
    source = table(rows, 16, 0)
    target = 3 * rotated(source, width) + noise * table(rows, width, 2)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(3))
    words = [word(row) for row in range(rows)]
    return (
        Encoder(source, words),
        Encoder(target[order], [words[row] for row in order], "other"),
        order,
    )


def test_shared_words_are_whole_words_of_both() -> None:
    first = Encoder(torch.ones(6, 2), ["end", "cat", "dog", "ca…", "7", "zebra"])
    zero = torch.ones(5, 2)
    zero[3] = 0
    second = Encoder(zero, ["zz", "dog", "cat", "zebra", "ca…"])
    assert shared_words(first, second).tolist() == [[1, 2], [2, 1]]  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("width", [16, 24])
def test_a_planted_rotation_is_found_and_carries_the_token_over(
    tmp_path: Path, method: Any, width: int
) -> None:
    source, target, _ = pair(width)
    learned = table(2, 16, 9)
    result = translate(
        concept(learned), [source], [target], tmp_path / "out", method=method, model="other"
    )
    (quality,) = result.qualities
    assert (quality.median_rank, quality.found, quality.words) == (1, 1, 598)
    assert quality.cosine > 0.999
    (token,) = read_embeddings(result.files[0]).tokens
    wanted = rotated(torch.nn.functional.normalize(learned, dim=1), width)
    assert torch.cosine_similarity(token.vectors, wanted).min() > 0.995
    mean = float(target.token_table.norm(dim=1).mean())
    assert token.vectors.norm(dim=1).tolist() == pytest.approx([mean] * 2, rel=1e-4)


@pytest.mark.parametrize("method", [*METHODS, None])
def test_tables_that_have_nothing_to_do_with_each_other_are_refused(
    tmp_path: Path, method: Any
) -> None:
    source, target, _ = pair()
    target.token_table = table(600, 24, 8)
    with pytest.raises(EditingError, match=r"not translated.*median rank"):
        translate(concept(table(1, 16, 9)), [source], [target], tmp_path / "out", method=method)
    assert not (tmp_path / "out").exists()
    result = translate(
        concept(table(1, 16, 9)), [source], [target], tmp_path / "out", method=method, least=0
    )
    best = next(quality for quality in result.qualities if quality.chosen)
    assert best.found < 0.1  # chance: 10 of 600


def test_a_noisy_map_is_worse_and_the_quality_says_so(tmp_path: Path) -> None:
    found = []
    for noise in (0.0, 3.0, 9.0):
        source, target, _ = pair(noise=noise)
        out = tmp_path / str(noise)
        result = translate(concept(table(1, 16, 9)), [source], [target], out, least=0)
        found.append(max(quality.cosine for quality in result.qualities if quality.chosen))
    assert found == sorted(found, reverse=True)
    assert found[0] - found[2] > 0.3


def test_the_encoder_that_translates_best_is_taken(tmp_path: Path) -> None:
    source, target, _ = pair()
    unrelated = Encoder(table(600, 20, 5), source.vocabulary.words, "unrelated")
    tokens = (
        LearnedToken("<x>", "1", table(1, 20, 6)),
        LearnedToken("<x>", "2", table(1, 16, 9)),
    )
    file = EmbeddingFile(Path("x.bin"), "two-tower", tokens, None, {})
    (both,) = concepts_of([file])
    result = translate(both, [unrelated, source], [target], tmp_path / "out")  # type: ignore[list-item]
    assert {quality.source for quality in result.qualities if quality.chosen} == {"tiny"}
    assert len(result.qualities) == 6


def test_too_few_shared_words_and_other_widths_are_refused(tmp_path: Path) -> None:
    source, target, _ = pair(rows=40)
    with pytest.raises(EditingError, match="share 38 words"):
        translate(concept(table(1, 16, 9)), [source], [target], tmp_path / "out")
    source, target, _ = pair()
    with pytest.raises(EditingError, match="vectors of width 7"):
        translate(concept(table(1, 7, 9)), [source], [target], tmp_path / "out")
