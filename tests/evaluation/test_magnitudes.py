"""Tokens painted at many lengths."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from dti_geom import geometry
from dti_geom.errors import EvaluationError
from dti_geom.evaluation.learned import TokenVectors, mean_norms
from dti_geom.evaluation.magnitudes import PaintedMagnitudes, paint_magnitudes
from dti_geom.files import from_json, to_json
from dti_geom.models.pipelines import TextToImage

MULTIPLES = (0.25, 1.0, 64.0)


def two_tokens(model: TextToImage) -> dict[str, TokenVectors]:
    """Return tokens of one name in different directions, the second with two vectors."""
    rows = [tower.token_table.float() for tower in model.towers]
    return {
        "first": TokenVectors("<x>", tuple(table[5:6] for table in rows)),
        "second": TokenVectors("<x>", tuple(table[7:9] for table in rows)),
    }


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_every_vector_is_painted_in_its_direction_at_each_multiple(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: TextToImage = request.getfixturevalue(name)
    learned, means = two_tokens(model), mean_norms(model)
    placed: list[Sequence[torch.Tensor]] = []
    place = model.place

    def spy(token: str, vectors: Sequence[torch.Tensor]) -> None:
        placed.append(vectors)
        place(token, vectors)

    monkeypatch.setattr(model, "place", spy)
    found = paint_magnitudes(model, learned, seeds=(3,), multiples=MULTIPLES, steps=1)
    asked = [(token, multiple) for token in learned.values() for multiple in MULTIPLES]
    assert len(placed) == len(asked)
    for (token, multiple), vectors in zip(asked, placed, strict=True):
        for rows, original, mean in zip(vectors, token.vectors, means, strict=True):
            assert torch.allclose(geometry.norms(rows), torch.tensor(multiple * mean))
            # An angle of float32 is known to about 1e-3.
            assert (
                geometry.angle(geometry.normalize(rows), geometry.normalize(original)).max() < 1e-3
            )
    for painted, token in zip(found.tokens, learned.values(), strict=True):
        assert painted.inflation == pytest.approx(token.inflation(means))
        assert [len(pictures) for pictures in painted.pictures] == [3] * len(found.prompts)
    assert from_json(PaintedMagnitudes, to_json(found)) == found


def test_all_lengths_start_from_the_same_noise(
    sd15: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    generate = sd15.generate

    def spy(prompts: Sequence[str], seeds: Sequence[int], **options: Any) -> Any:
        asked.append(list(seeds))
        return generate(prompts, seeds, **options)

    monkeypatch.setattr(sd15, "generate", spy)
    found = paint_magnitudes(
        sd15,
        two_tokens(sd15),
        prompts=("a {}", "the {}"),
        seeds=(3, 5),
        multiples=(1.0, 2.0),
        steps=1,
    )
    assert asked == [[3, 5, 3, 5]] * 4
    # Equal seeds of equal prompts give equal pictures: a token's row is one prompt and seed.
    again = paint_magnitudes(
        sd15, two_tokens(sd15), prompts=("the {}",), seeds=(5,), multiples=(2.0,), steps=1
    )
    assert [token.pictures[0][0] for token in again.tokens] == [
        token.pictures[3][1] for token in found.tokens
    ]


def test_a_length_of_zero_is_refused(sd15: TextToImage) -> None:
    with pytest.raises(EvaluationError, match="0, 1; expected numbers above 0"):
        paint_magnitudes(sd15, two_tokens(sd15), multiples=(0.0, 1.0))
