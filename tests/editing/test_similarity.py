from pathlib import Path

import pytest
import torch

from dti_geom.editing.concepts import Concept, concepts_of
from dti_geom.editing.similarity import Likeness, likeness
from dti_geom.errors import EditingError
from dti_geom.files import EmbeddingFile, LearnedToken, from_json, to_json


def concepts(**rows: list[float]) -> list[Concept]:
    files = [
        EmbeddingFile(
            Path(f"{name}.bin"),
            "diffusers",
            (LearnedToken(f"<{name}>", None, torch.tensor([row])),),
            None,
            {},
        )
        for name, row in rows.items()
    ]
    return concepts_of(files)


def test_cosines_neighbours_and_the_mean_are_those_of_the_directions() -> None:
    (group,) = likeness(concepts(a=[3.0, 0.0], b=[1.0, 1.0], c=[0.0, 2.0])).groups
    root = 2**-0.5
    for found, wanted in zip(
        group.cosines, [(1, root, 0), (root, 1, root), (0, root, 1)], strict=True
    ):
        assert found == pytest.approx(wanted, abs=1e-6)
    assert [near[0].label for near in group.nearest] == ["b.bin:<b>", "a.bin:<a>", "b.bin:<b>"]
    assert group.with_mean == pytest.approx((root, 1, root))
    assert sum(group.principal) == pytest.approx(1)
    assert from_json(Likeness, to_json(group)) == group


def test_tokens_along_one_line_have_one_principal_direction() -> None:
    rows = {name: [1.0, place / 100, 0.0, 0.0] for place, name in enumerate("abcdef")}
    (group,) = likeness(concepts(**rows)).groups
    assert group.principal[0] > 0.99


def test_each_width_is_a_group_and_one_token_is_none() -> None:
    groups = likeness(concepts(a=[1.0, 0.0], b=[1.0, 1.0], c=[1.0, 0, 0], d=[0, 1.0, 0])).groups
    assert [group.width for group in groups] == [2, 3]
    with pytest.raises(EditingError, match="no two of one width"):
        likeness(concepts(a=[1.0], b=[1.0, 0.0]))
