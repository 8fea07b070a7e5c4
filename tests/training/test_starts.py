from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import DoesNotApply, EmbeddingFileError, TrainingError, UnknownToken
from dti_geom.files import LearnedToken, write_embeddings
from dti_geom.geometry import norms, row_norms
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.training.checks import init_rows
from dti_geom.training.config import ConceptConfig, MethodConfig
from dti_geom.training.methods import METHODS
from dti_geom.training.starts import Start, start_of
from dti_geom.training.token_vectors import TokenVectors
from pipelines import FAMILIES


@pytest.fixture(scope="module")
def model(tiny: Callable[[], TextToImage]) -> TextToImage:
    return tiny()


def start(
    model: TextToImage, method: str = "ti", init: str = "dog", seed: int = 0, **options: Any
) -> Start:
    concept = ConceptConfig("<x>", "nowhere", init, **options)
    return start_of(model, 0, concept, METHODS[method], seed)


def table(model: TextToImage) -> Tensor:
    return model.towers[0].token_table


def test_a_word_starts_from_its_own_row_and_a_phrase_from_each_of_its_rows(
    model: TextToImage,
) -> None:
    (row,) = model.towers[0].vocabulary.rows("dog")
    assert torch.equal(start(model).vectors, table(model)[[row]])
    both = start(model, init="red dog")
    assert torch.equal(both.vectors, table(model)[model.towers[0].vocabulary.rows("red dog")])
    assert torch.equal(both.vectors, both.prior)


def test_more_vectors_than_tokens_repeat_the_words_rows(model: TextToImage) -> None:
    more = start(model, init="red dog", vectors=3).vectors
    assert torch.equal(more[[0, 1]], start(model, init="red dog").vectors)
    assert torch.equal(more[2], more[0])
    with pytest.raises(TrainingError, match="starts from 2 vectors, but 1 were asked for"):
        start(model, init="red dog", vectors=1)


def test_the_mean_start_is_the_mean_of_the_nonzero_rows(model: TextToImage) -> None:
    rows = table(model)[table(model).any(dim=1)]
    torch.testing.assert_close(start(model, start="mean").vectors[0], rows.mean(dim=0))


def test_a_random_start_has_the_mean_norm_is_seeded_and_keeps_the_words_prior(
    model: TextToImage,
) -> None:
    first, again, other = (
        start(model, start="random"),
        start(model, start="random"),
        start(model, start="random", seed=1),
    )
    assert torch.equal(first.vectors, again.vectors)
    assert not torch.equal(first.vectors, other.vectors)
    mean = float(row_norms(table(model))[row_norms(table(model)) > 0].mean())
    assert float(norms(first.vectors)[0]) == pytest.approx(mean, rel=1e-5)
    assert torch.equal(first.prior, start(model).prior)


def special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What a tokenizer puts before a text and after it."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids, mask = encoded["input_ids"], encoded["special_tokens_mask"]
    first = mask.index(0)
    return ids[:first], [row for row, special in zip(ids, mask, strict=True) if special][first:]


@pytest.mark.parametrize("name", FAMILIES)
def test_cross_initialization_starts_from_the_encoders_output_for_the_bare_word(
    pipeline_folder: Callable[[str], Path], name: str
) -> None:
    """As its authors compute it: the output less those of the tokenizer's own special tokens."""
    model = open_text_to_image(str(pipeline_folder(name)), dtype=torch.float32)
    for number, tower in enumerate(model.towers):
        for init in ("cat", "red dog", "phone"):
            pieces = ConceptConfig("<x>", "nowhere", init, vectors=9)  # "phone" is in pieces here
            rows = init_rows(tower.vocabulary, pieces, model.name)
            begin, end = special_ids(tower.tokenizer)
            ids = torch.tensor([[*begin, *rows, *end]])
            if model.unread_blocks(tower):
                with pytest.raises(DoesNotApply):
                    start_of(model, number, pieces, METHODS["crossinit"], 0)
                continue
            answer = tower.module(input_ids=ids, output_hidden_states=True)
            output = getattr(answer, "last_hidden_state", answer.hidden_states[-1])[0]
            expected = output[len(begin) : len(begin) + len(rows)]
            for method, kind in (("crossinit", "word"), ("ti", "output")):
                concept = replace(pieces, start=kind, vectors=len(rows))
                found = start_of(model, number, concept, METHODS[method], 0)
                torch.testing.assert_close(found.vectors, expected)
                assert torch.equal(found.prior, tower.token_table[rows])


def test_cross_initialization_takes_a_row_by_its_number(model: TextToImage) -> None:
    (row,) = model.towers[0].vocabulary.rows("dog")
    named, numbered = (start(model, "crossinit", init).vectors for init in ("dog", f"#{row}"))
    assert torch.equal(named, numbered)


def test_an_embedding_file_is_a_start_if_exactly_one_token_fits(
    model: TextToImage, tmp_path: Path
) -> None:
    stored = torch.randn(2, table(model).shape[1])
    (path,) = write_embeddings(tmp_path, [LearnedToken("<y>", None, stored)])
    assert torch.equal(start(model, start=str(path)).vectors, stored)
    (other,) = write_embeddings(tmp_path / "other", [LearnedToken("<y>", None, torch.randn(1, 5))])
    with pytest.raises(
        EmbeddingFileError, match="0 tokens of width 32; exactly one was expected for text_encoder"
    ):
        start(model, start=str(other))
    with pytest.raises(TrainingError, match="expected word, output, mean, random or the path"):
        start(model, start="wrod")


def test_an_unknown_init_word_is_one_clear_line() -> None:
    with pytest.raises(UnknownToken, match="'2026' is not made of tokens this model knows"):
        start(open_text_to_image("mini"), init="2026")


def test_two_towers_start_from_their_own_tables(sdxl_pipeline: Path) -> None:
    model = open_text_to_image(str(sdxl_pipeline), dtype=torch.float32)
    concept = ConceptConfig("<x>", "nowhere", "dog")
    learned = TokenVectors.build(model, concept, MethodConfig("dti", 0.1), 0)
    for tower, vectors in zip(model.towers, learned.values().values(), strict=True):
        lengths = row_norms(tower.token_table)
        assert norms(vectors).tolist() == pytest.approx([float(lengths[lengths > 0].mean())])
