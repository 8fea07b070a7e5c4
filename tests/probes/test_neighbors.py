from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import DoesNotApply, GeometryError, UnknownToken
from dti_geom.files import EmbeddingFile, from_json, to_json
from dti_geom.models import open_encoders
from dti_geom.probes.learned import learned_vectors
from dti_geom.probes.neighbors import (
    LEARNED_SHOWN,
    WORDS,
    NeighborsResult,
    Query,
    TokenNeighbors,
    find_neighbors,
    measure_neighbors,
    parse_queries,
)

TABLE = torch.tensor([[3.0, 0.0], [1.0, 0.1], [0.0, 0.2], [-1.0, 0.0], [0.0, 0.0], [2.9, 0.5]])


def test_cosine_follows_direction_and_euclidean_follows_distance(
    fake_encoder: Callable[[Tensor], Any],
) -> None:
    encoder = fake_encoder(TABLE)
    (found,) = find_neighbors(encoder, [Query("#0", TABLE[0], 0)], k=3)
    assert [one.id for one in found.cosine] == [1, 5, 2]
    assert [one.id for one in found.euclidean] == [5, 1, 4]
    assert found.cosine[0].similarity == pytest.approx(1 / 1.01**0.5, rel=1e-6)
    assert found.euclidean[0].distance == pytest.approx((0.01 + 0.25) ** 0.5, rel=1e-6)
    assert (found.query, found.id, found.norm, found.encoder) == ("#0", 0, 3.0, "fake")


def test_a_token_is_not_its_own_neighbour_but_its_double_is(
    fake_encoder: Callable[[Tensor], Any],
) -> None:
    table = torch.cat([TABLE, TABLE[:1]])
    (found,) = find_neighbors(fake_encoder(table), [Query("#0", table[0], 0)], k=1)
    assert (found.cosine[0].id, found.euclidean[0].id) == (6, 6)
    assert found.euclidean[0].distance == 0


def test_a_learned_token_may_meet_its_own_copy_in_the_table(
    fake_encoder: Callable[[Tensor], Any], learned_file: Callable[..., EmbeddingFile]
) -> None:
    encoder = fake_encoder(TABLE)
    learned = learned_vectors([learned_file(TABLE[1])])
    (query,) = parse_queries(encoder, ["<x>"], learned)
    (found,) = find_neighbors(encoder, [query], k=1)
    assert (found.id, found.cosine[0].id, found.euclidean[0].distance) == (None, 1, 0)


def test_every_vector_of_a_learned_token_is_a_query(
    fake_encoder: Callable[[Tensor], Any], learned_file: Callable[..., EmbeddingFile]
) -> None:
    learned = learned_vectors([learned_file(TABLE[0], TABLE[1])])
    queries = parse_queries(fake_encoder(TABLE), ["<x>", "#3"], learned)
    assert [query.label for query in queries] == ["<x>[0]", "<x>[1]", "#3"]


def test_a_word_of_several_tokens_shows_each(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    queries = parse_queries(encoder, ["cat", "catx"])
    assert [query.label for query in queries] == ["cat", "ca…", "t…", "x"]
    found = find_neighbors(encoder, queries, k=4)
    assert all(len(one.cosine) == len(one.euclidean) == 4 for one in found)


def test_a_learned_token_of_another_width_is_refused_with_both_widths(
    fake_encoder: Callable[[Tensor], Any], learned_file: Callable[..., EmbeddingFile]
) -> None:
    learned = learned_vectors([learned_file(torch.ones(768))])
    with pytest.raises(UnknownToken, match="<x> has width 768, but fake has width 2"):
        parse_queries(fake_encoder(TABLE), ["<x>"], learned)


def test_more_neighbours_than_rows_gives_all_rows_that_have_a_direction(
    fake_encoder: Callable[[Tensor], Any],
) -> None:
    (found,) = find_neighbors(fake_encoder(TABLE), [Query("#0", TABLE[0], 0)], k=50)
    assert len(found.cosine) == 4  # six rows, less itself, less the zero row
    assert len(found.euclidean) == 4


def test_a_query_without_a_direction_is_refused(fake_encoder: Callable[[Tensor], Any]) -> None:
    with pytest.raises(GeometryError, match="zero"):
        find_neighbors(fake_encoder(TABLE), [Query("#4", TABLE[4], 4)], k=2)


def test_no_query_gives_nothing(fake_encoder: Callable[[Tensor], Any]) -> None:
    assert find_neighbors(fake_encoder(TABLE), []) == ()


def test_the_result_round_trips_through_json(fake_encoder: Callable[[Tensor], Any]) -> None:
    (found,) = find_neighbors(fake_encoder(TABLE), [Query("#0", TABLE[0], 0)], k=3)
    assert from_json(TokenNeighbors, to_json(found)) == found


def test_neighbours_of_a_trained_word_share_its_kind(shared_data: Path) -> None:
    (encoder,) = open_encoders(str(shared_data / "mini-prototype"))
    (found,) = find_neighbors(encoder, parse_queries(encoder, ["beach"]), k=10)
    assert {"snow", "ocean", "sea"} <= {one.token for one in found.cosine}


def test_words_and_one_plain_word_are_measured_by_name() -> None:
    (encoder,) = open_encoders("mini")
    single = measure_neighbors(encoder, tokens="fox", k=4)
    assert single.name == encoder.name
    assert [near.query for near in single.queries] == ["fox"]
    assert len(single.queries[0].cosine) == len(single.queries[0].euclidean) == 4
    both = measure_neighbors(encoder, tokens=("fox", "beach"), k=4)
    assert [near.query for near in both.queries] == ["fox", "beach"]
    assert both.queries[0] == single.queries[0]


def test_without_tokens_the_usual_words_and_the_first_learned_vectors_are_measured(
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    (encoder,) = open_encoders("mini")
    width = encoder.token_table.shape[1]
    vectors = torch.randn(LEARNED_SHOWN + 3, width, generator=torch.Generator().manual_seed(0))
    learned = learned_vectors([learned_file(*vectors), learned_file(torch.ones(7), token="<y>")])
    labels = [near.query for near in measure_neighbors(encoder, learned).queries]
    words = [label for label in labels if not label.startswith("<")]
    assert words
    assert set(words) <= set(WORDS)
    assert labels == [*words, *(f"<x>[{place}]" for place in range(LEARNED_SHOWN))]


def test_learned_vectors_are_measured_beside_named_words_when_asked(
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    (encoder,) = open_encoders("mini")
    vector = torch.randn(encoder.token_table.shape[1], generator=torch.Generator().manual_seed(0))
    learned = learned_vectors([learned_file(vector)])
    alone = measure_neighbors(encoder, learned, tokens="fox")
    both = measure_neighbors(encoder, learned, tokens="fox", with_learned=True)
    assert [near.query for near in alone.queries] == ["fox"]
    assert [near.query for near in both.queries] == ["fox", "<x>"]
    named = measure_neighbors(encoder, learned, tokens="<x>", with_learned=True)
    assert [near.query for near in named.queries] == ["<x>"]


def test_a_model_with_none_of_the_usual_words_is_told_to_name_one(
    fake_encoder: Callable[[Tensor], Any],
) -> None:
    with pytest.raises(DoesNotApply, match="Name a word"):
        measure_neighbors(fake_encoder(TABLE))


def test_the_result_of_several_tokens_round_trips(fake_encoder: Callable[[Tensor], Any]) -> None:
    result = measure_neighbors(fake_encoder(TABLE), tokens=("#0", "#1"), k=2)
    assert from_json(NeighborsResult, to_json(result)) == result
