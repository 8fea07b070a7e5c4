import torch

from dti_geom.geometry.pairs import similar_pairs


def test_pairs_are_those_of_a_plain_double_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1500, 3, generator=generator)
    groups = torch.arange(1500) // 2
    cosines = torch.nn.functional.normalize(vectors.double(), dim=1)
    cosines = cosines @ cosines.T
    wanted = {
        (i, j)
        for i, j in (cosines >= 0.9999).nonzero().tolist()
        if i < j and groups[i] != groups[j]
    }
    found = similar_pairs(vectors, groups, 0.9999, most=10**6)
    # Cosines in float32 may fall to either side of the limit.
    near = {(i, j) for i, j, value in found if abs(value - 0.9999) < 1e-6}
    assert {(i, j) for i, j, _ in found} - near == {
        (i, j) for i, j in wanted if abs(cosines[i, j] - 0.9999) >= 1e-6
    }
    values = [value for *_, value in found]
    assert values == sorted(values, reverse=True)
    assert similar_pairs(vectors, groups, 0.9999, most=5) == found[:5]


def test_vectors_of_one_group_are_not_compared() -> None:
    vectors = torch.ones(3, 4)
    assert similar_pairs(vectors, torch.zeros(3), 0.5) == []
    assert [pair[:2] for pair in similar_pairs(vectors, torch.tensor([0, 1, 1]), 0.5)] == [
        (0, 1),
        (0, 2),
    ]
