from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dti_geom.models.pipelines import TextToImage, View, open_text_to_image

VIEW = View((64, 64), (0, 0), (64, 64))


@pytest.fixture
def model(pipeline_folder: Callable[[str], Path]) -> TextToImage:
    """Its table has eight rows more than its tokenizer has tokens."""
    return open_text_to_image(str(pipeline_folder("flux2-klein")), dtype=torch.float32)


def test_a_learned_token_takes_the_number_of_a_spare_row_and_not_its_vector(
    model: TextToImage,
) -> None:
    (tower,) = model.towers
    table = tower.token_table
    assert len(tower.tokenizer) < len(table)
    before = table.clone()
    vectors = torch.randn(1, table.shape[1], generator=torch.Generator().manual_seed(0))
    model.place("<x>", [vectors])
    (row,) = tower.learned_ids()
    assert row < len(table)
    states = tower.module.get_input_embeddings()(torch.tensor([[row]]))  # type: ignore[operator]
    assert torch.equal(states[0], vectors)
    assert torch.equal(tower.token_table, before)
    assert tower.token_table.shape == before.shape


def test_spare_rows_are_no_words_of_the_model(model: TextToImage) -> None:
    (tower,) = model.towers
    model.place("<x>", [torch.ones(1, tower.token_table.shape[1])])
    (row,) = tower.learned_ids()
    model.forget()
    assert not tower.vocabulary.is_word("<x>")
    assert tower.vocabulary.token(row) == f"#{row}"


def test_more_vectors_than_spare_rows_leave_the_table_as_it_is(model: TextToImage) -> None:
    (tower,) = model.towers
    rows = len(tower.token_table)
    vectors = torch.ones(12, tower.token_table.shape[1], requires_grad=True)
    model.place("<x>", [vectors])
    assert max(tower.learned_ids()) >= rows == len(tower.token_table)
    model.encode_prompts(["a <x>"], [VIEW])["states"].sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().sum(dim=1).min() > 0
