from pathlib import Path

import pytest
import torch
from torch import Tensor

from dti_geom.editing.concepts import Concept, concepts_of
from dti_geom.editing.rearranging import average, concatenate, drop, resize, select
from dti_geom.errors import EditingError
from dti_geom.files import EmbeddingFile, LearnedToken

ROWS = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


def concept(rows: Tensor = ROWS, name: str = "x") -> Concept:
    """A token of two encoders; the second has the same rows twice as long."""
    tokens = tuple(LearnedToken(f"<{name}>", key, k * rows) for key, k in (("1", 1), ("2", 2)))
    file = EmbeddingFile(Path(f"{name}.bin"), "two-tower", tokens, None, {})
    return concepts_of([file])[0]


def vectors(changed: Concept) -> Tensor:
    first, second = (part.vectors for part in changed.tokens)
    torch.testing.assert_close(second, 2 * first)
    return first


def test_selected_and_dropped_vectors_keep_their_bits() -> None:
    assert torch.equal(vectors(select(concept(), [3, 0])), ROWS[[3, 0]])
    assert torch.equal(vectors(drop(concept(), [1, 3])), ROWS[[0, 2, 4]])


@pytest.mark.parametrize("indices", [[5], [-1], []])
def test_an_index_that_is_not_there_is_refused(indices: list[int]) -> None:
    for change in (select, drop):
        with pytest.raises(EditingError, match="5 vectors, 0 to 4"):
            change(concept(), indices)
    with pytest.raises(EditingError, match="no vectors left"):
        drop(concept(), [0, 1, 2, 3, 4])


def test_more_vectors_repeat_and_fewer_average_neighbours() -> None:
    assert torch.equal(vectors(resize(concept(), 5)), ROWS)
    assert torch.equal(vectors(resize(concept(ROWS[:2]), 5)), ROWS[[0, 0, 0, 1, 1]])
    fewer = vectors(resize(concept(), 2))
    torch.testing.assert_close(fewer[0], vectors(average(concept(ROWS[:2])))[0])
    torch.testing.assert_close(fewer[1], vectors(average(concept(ROWS[2:])))[0])
    with pytest.raises(EditingError):
        resize(concept(), 0)


def test_the_average_has_the_mean_direction_and_the_mean_norm() -> None:
    (mean,) = vectors(average(concept()))
    directions = torch.nn.functional.normalize(ROWS, dim=1).sum(dim=0)
    assert torch.cosine_similarity(mean, directions, dim=0) == pytest.approx(1, abs=1e-6)
    assert float(mean.norm()) == pytest.approx(float(ROWS.norm(dim=1).mean()), rel=1e-5)
    with pytest.raises(EditingError, match="cancel"):
        average(concept(torch.stack([ROWS[0], -ROWS[0]])))


def test_tokens_are_joined_in_their_order() -> None:
    joined = concatenate([concept(), concept(ROWS[:1], "y")], "<z>")
    assert joined.name == "<z>"
    assert torch.equal(vectors(joined), ROWS[[0, 1, 2, 3, 4, 0]])
    with pytest.raises(EditingError, match="different encoders"):
        concatenate([concept(), concept(torch.ones(1, 4), "y")], "<z>")
