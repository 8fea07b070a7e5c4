import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import DoesNotApply, EmbeddingFileError
from dti_geom.files import EmbeddingFile, LearnedToken, from_json, to_json
from dti_geom.models import open_encoders
from dti_geom.probes.angles import AnglesResult, measure_angles
from dti_geom.probes.learned import learned_vectors
from dti_geom.probes.measuring import measure_model
from dti_geom.probes.registry import PROBES

TABLE = torch.eye(16)


def turned(angle: Any, norm: float = 1.0) -> Any:
    """Row 0 turned toward a direction that lies 45° between rows 1 and 2."""
    towards = (TABLE[1] + TABLE[2]) / math.sqrt(2)
    return norm * (math.cos(angle) * TABLE[0] + math.sin(angle) * towards)


def from_word(word: Any, *vectors: Any, path: Any = "x.safetensors", key: Any = "init") -> Any:
    metadata = {key: word} if word else {}
    return EmbeddingFile(
        path, "diffusers", (LearnedToken("<x>", None, torch.stack(vectors)),), None, metadata
    )


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("norm", [0.01, 1.0, 40.0])
def test_the_angle_is_that_of_the_directions_whatever_the_norm(
    fake_encoder: Callable[[Tensor], Any], dtype: torch.dtype, close: float, norm: float
) -> None:
    file = from_word("#0", turned(0.3, norm).to(dtype))
    (one,) = measure_angles(fake_encoder(TABLE.to(dtype)), learned_vectors([file])).learned
    assert one.angle == pytest.approx(0.3, abs=close)
    assert (one.init, one.nearest, one.nearest_id, one.unknown) == ("#0", "#0", 0, None)
    assert one.nearest_angle == pytest.approx(0.3, abs=close)
    assert one.norm == pytest.approx(norm, rel=1e-2)


def test_the_nearest_token_may_be_another_than_the_initialiser(
    fake_encoder: Callable[[Tensor], Any],
) -> None:
    (one,) = measure_angles(
        fake_encoder(TABLE), learned_vectors([from_word("#0", turned(1.2))])
    ).learned
    assert one.angle == pytest.approx(1.2, abs=1e-6)
    assert one.nearest_id in (1, 2)
    assert one.nearest_angle == pytest.approx(math.acos(math.sin(1.2) / math.sqrt(2)), abs=1e-6)


def test_words_of_an_orthonormal_table_are_right_angles_apart(
    fake_encoder: Callable[[Tensor], Any],
) -> None:
    found = measure_angles(fake_encoder(TABLE), learned_vectors([from_word("#0", TABLE[0])]))
    assert found.words == 16
    assert found.between_words == pytest.approx([math.pi / 2] * 3)
    assert found.to_nearest == pytest.approx(math.pi / 2)


def test_the_initialiser_of_the_file_goes_before_the_one_given(
    fake_encoder: Callable[[Tensor], Any],
) -> None:
    other = from_word("#1", TABLE[1], key="initializer_token")
    files = [from_word("#0", turned(0.3)), from_word(None, turned(0.3)), other]
    found = measure_angles(fake_encoder(TABLE), learned_vectors(files), init="#2")
    assert [one.init for one in found.learned] == ["#0", "#2", "#1"]
    assert [one.angle for one in found.learned] == pytest.approx(
        [0.3, math.acos(math.sin(0.3) / math.sqrt(2)), 0.0]
    )


def test_vectors_whose_initialiser_is_not_known_are_listed_with_the_reason(
    fake_encoder: Callable[[Tensor], Any],
) -> None:
    table = torch.cat([TABLE, torch.zeros(1, 16)])
    files = [from_word(None, TABLE[3]), from_word("fox", TABLE[3]), from_word("#16", TABLE[3])]
    found = measure_angles(fake_encoder(table), learned_vectors(files))
    assert [one.angle for one in found.learned] == [None] * 3
    assert [one.nearest_id for one in found.learned] == [3] * 3
    reasons = [str(one.unknown) for one in found.learned]
    assert "names no initialiser" in reasons[0]
    assert "'fox'" in reasons[1]
    assert "zero" in reasons[2]


def test_vectors_of_a_token_are_held_against_the_tokens_of_the_word_in_turn(
    sd15_folder: Path,
) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    rows = encoder.vocabulary.rows("catx")
    vectors = [2 * encoder.token_table[row].float() for row in (*rows, rows[0])]
    found = measure_angles(encoder, learned_vectors([from_word("catx", *vectors)]))
    assert [one.init for one in found.learned] == ["ca…", "t…", "x", "ca…"]
    assert [one.angle for one in found.learned] == pytest.approx([0.0] * 4, abs=1e-3)


def test_a_tower_that_no_vector_fits_is_named_and_a_model_that_none_fits_refused(
    sdxl_folder: Path,
) -> None:
    encoders = open_encoders(str(sdxl_folder))
    learned = learned_vectors([from_word("cat", torch.ones(32))])
    found = measure_model(PROBES["angles"], "mine", encoders, learned)
    assert [one.name for one in found.encoders] == ["text_encoder"]
    assert found.does_not_apply == (
        "text_encoder_2: no learned vector of width 48 was given, so none has turned.",
    )
    learned = learned_vectors([from_word("cat", torch.ones(7))])
    with pytest.raises(EmbeddingFileError, match="vectors of width 7"):
        measure_model(PROBES["angles"], "mine", encoders, learned)
    with pytest.raises(DoesNotApply, match="no learned vector"):
        measure_angles(encoders[0], [])


def test_the_result_round_trips_through_json(fake_encoder: Callable[[Tensor], Any]) -> None:
    files = [from_word("#0", turned(0.3), turned(0.4)), from_word(None, TABLE[3])]
    found = measure_angles(fake_encoder(TABLE), learned_vectors(files))
    assert from_json(AnglesResult, to_json(found)) == found
