from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.files import EmbeddingFile, find_embedding_files, from_json, read_embeddings, to_json
from dti_geom.probes.inspection import (
    InspectedFile,
    Inspection,
    ReferenceNorm,
    Turn,
    inspect_file,
    inspect_files,
)


def test_inflation_is_the_norm_over_the_published_mean_of_that_width(
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    (vector,) = inspect_file(learned_file(torch.full((768,), 0.1))).vectors
    norm = 0.1 * 768**0.5
    assert vector.norm == pytest.approx(norm, rel=1e-6)
    assert vector.inflation == pytest.approx(norm / 0.3870, rel=1e-6)
    assert vector.reference == "published mean of CLIP ViT-L/14"
    assert (vector.tower, vector.dim, vector.dtype, vector.index) == (
        "CLIP ViT-L/14",
        768,
        "float32",
        0,
    )


def test_a_measured_reference_goes_before_the_published_one(
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    references = {768: ReferenceNorm(2.0, "text_encoder of mine")}
    (vector,) = inspect_file(learned_file(torch.full((768,), 1.0)), references).vectors
    assert vector.inflation == pytest.approx(768**0.5 / 2, rel=1e-6)
    assert vector.reference == "text_encoder of mine"


@pytest.mark.parametrize("width", [1024, 7])
def test_a_width_without_a_reference_has_no_inflation(
    learned_file: Callable[..., EmbeddingFile], width: Any
) -> None:
    (vector,) = inspect_file(learned_file(torch.ones(width))).vectors
    assert vector.inflation is None
    assert vector.reference is None


@pytest.mark.parametrize(
    ("name", "stored", "step"),
    [
        ("step-0250.bin", None, 250),
        ("learned_embeds-steps-3000.safetensors", None, 3000),
        ("learned_embeds_step_12.bin", 40, 40),
        ("cat2.bin", None, None),
    ],
)
def test_the_step_is_the_stored_one_or_that_of_the_name(
    learned_file: Callable[..., EmbeddingFile], name: Any, stored: Any, step: Any
) -> None:
    assert inspect_file(learned_file(torch.ones(4), name=name, step=stored)).step == step


def test_the_result_round_trips_through_json(learned_file: Callable[..., EmbeddingFile]) -> None:
    inspected = inspect_file(learned_file(torch.ones(768), torch.ones(768), step=3))
    assert from_json(InspectedFile, to_json(inspected)) == inspected


def test_the_norm_of_a_real_training_run_grows_with_its_steps(shared_data: Path) -> None:
    files = [
        inspect_file(read_embeddings(path))
        for path in find_embedding_files(shared_data / "embeddings/trajectory")
    ]
    files.sort(key=lambda file: file.step or 0)
    assert [file.step for file in files] == list(range(250, 5001, 250))
    norms = [file.vectors[0].norm for file in files]
    assert norms == sorted(norms)
    assert norms[0] == pytest.approx(0.46, abs=0.01)  # method.md, section 4
    assert norms[-1] == pytest.approx(0.95, abs=0.01)


# --- Diagnosis ---


def test_a_vector_is_placed_among_the_tokens(
    learned_file: Callable[..., EmbeddingFile],
    fake_encoder: Callable[[Tensor], Any],
    seeded_table: Tensor,
) -> None:
    encoder = fake_encoder(seeded_table)
    vector = 1.5 * torch.nn.functional.normalize(seeded_table[7] + 0.01 * seeded_table[8], dim=0)
    (file,) = inspect_files([learned_file(vector)], [encoder], "tiny").files
    (one,) = file.vectors
    norms = seeded_table.norm(dim=1)
    assert one.percentile == pytest.approx(
        100 * float((norms[norms > 0] <= 1.5).double().mean()), abs=0.11
    )
    cosine = torch.cosine_similarity(vector, seeded_table[:1000], dim=1)
    assert [near.id for near in one.nearest] == cosine.topk(3).indices.tolist()
    assert one.reference == "fake of tiny"
    assert (file.verdict, file.advice) == ("in distribution", "in distribution: leave it as it is.")
    assert from_json(InspectedFile, to_json(file)) == file


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_plain_rows_are_recognised_through_rounding(
    learned_file: Callable[..., EmbeddingFile],
    fake_encoder: Callable[[Tensor], Any],
    seeded_table: Tensor,
    dtype: torch.dtype,
) -> None:
    encoder = fake_encoder(seeded_table)
    rows = seeded_table[[3, 500]].to(dtype)
    (file,) = inspect_files([learned_file(*rows)], [encoder], "tiny").files
    assert [one.copy_of for one in file.vectors] == ["#3", "#500"]
    assert file.verdict == "plain"
    assert file.advice.endswith("its rows are #3, #500.")
    (moved,) = inspect_files([learned_file(seeded_table[3] * 1.01)], [encoder], "tiny").files
    assert moved.vectors[0].copy_of is None


def test_a_long_and_a_short_vector_come_with_the_command_that_mends_them(
    learned_file: Callable[..., EmbeddingFile],
    fake_encoder: Callable[[Tensor], Any],
    seeded_table: Tensor,
) -> None:
    encoder = fake_encoder(seeded_table)
    for scale, verdict in ((3.0, "inflated"), (0.1, "short")):
        vector = scale * torch.nn.functional.normalize(torch.ones(16), dim=0)
        (file,) = inspect_files([learned_file(vector, name="a b.bin")], [encoder], "tiny").files
        assert file.verdict == verdict
        assert file.command == "dti-geom convert 'a b.bin' --rescale mean --model tiny"
        assert f"`{file.command}`" in file.advice


def test_one_inflated_vector_is_enough(
    learned_file: Callable[..., EmbeddingFile],
    fake_encoder: Callable[[Tensor], Any],
    seeded_table: Tensor,
) -> None:
    vectors = seeded_table[3] * 1.01, seeded_table[4] * 9
    (file,) = inspect_files([learned_file(*vectors)], [fake_encoder(seeded_table)], "tiny").files
    assert file.verdict == "inflated"
    assert [one.verdict for one in file.vectors] == ["in distribution", "inflated"]
    assert "1 of 2 vectors (index 1)" in file.advice
    assert file.command.endswith("--only 1")


def test_a_row_of_the_vocabulary_is_not_inflated_however_long_it_is(
    learned_file: Callable[..., EmbeddingFile],
    fake_encoder: Callable[[Tensor], Any],
    seeded_table: Tensor,
) -> None:
    longest = seeded_table[seeded_table.norm(dim=1).argmax()]
    learned = -seeded_table[4] * 1.01
    encoder = fake_encoder(seeded_table)
    (file,) = inspect_files([learned_file(longest, learned)], [encoder], "tiny").files
    assert [one.verdict for one in file.vectors] == ["vocabulary", "in distribution"]
    assert file.verdict == "in distribution"
    assert "1 of 2 vectors (index 0) is plain vocabulary" in file.advice


def test_a_row_that_two_files_share_is_vocabulary_without_a_model(
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    word, *own = torch.nn.functional.normalize(torch.randn(4, 768), dim=1) * 0.7
    files = [
        learned_file(word, own[0], token="<a>", name="a.bin"),
        learned_file(own[1], word, own[2], token="<b>", name="b.bin"),
    ]
    first, second = inspect_files(files).files
    assert [one.verdict for one in first.vectors] == ["vocabulary", "inflated"]
    assert [one.shared_with for one in second.vectors] == [None, "a.bin", None]
    # A copy of a whole file is a copy, not vocabulary.
    result = inspect_files([files[0], learned_file(word, own[0], token="<c>", name="c.bin")])
    assert [one.verdict for one in result.files[0].vectors] == ["inflated", "inflated"]
    (pair,) = result.duplicates
    assert (pair.token, pair.other_token, pair.pairs) == ("<a>", "<c>", 2)
    assert pair.similarity == pytest.approx(1)


def test_checkpoints_of_a_run_are_no_duplicates_of_one_another(
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    files = [learned_file(torch.ones(768), name=f"run/{step}.bin", step=step) for step in (1, 2)]
    assert inspect_files(files).duplicates == ()
    files.append(learned_file(torch.ones(768), name="other.bin"))
    result = inspect_files(files)
    assert {pair.path for pair in result.duplicates} == {"run/1.bin", "run/2.bin"}
    assert {pair.other_path for pair in result.duplicates} == {"other.bin"}
    assert from_json(Inspection, to_json(result)) == result


def test_a_width_that_the_model_lacks_is_not_judged_by_a_published_mean(
    learned_file: Callable[..., EmbeddingFile],
    fake_encoder: Callable[[Tensor], Any],
    seeded_table: Tensor,
) -> None:
    (file,) = inspect_files(
        [learned_file(torch.ones(768))], [fake_encoder(seeded_table)], "x"
    ).files
    assert (file.verdict, file.vectors[0].inflation) == ("unknown", None)
    assert "x has no encoder of width 768" in file.advice


def test_a_file_says_what_to_type_in_each_tool(learned_file: Callable[..., EmbeddingFile]) -> None:
    (file,) = inspect_files([learned_file(torch.ones(768), name="a/doll.bin")]).files
    assert {tool.tool: tool.type for tool in file.tools} == {
        "ComfyUI": "embedding:doll",
        "web UI": "doll",
        "diffusers": "<x>",
    }


@pytest.mark.parametrize(
    ("norm", "verdict"),
    [(0.387, "in distribution"), (0.57, "in distribution"), (0.59, "inflated"), (0.25, "short")],
)
def test_without_a_model_the_published_mean_judges(
    learned_file: Callable[..., EmbeddingFile], norm: float, verdict: str
) -> None:
    (file,) = inspect_files(
        [learned_file(norm * torch.nn.functional.normalize(torch.ones(768), dim=0))]
    ).files
    assert file.verdict == verdict
    if verdict == "inflated":
        assert "--rescale published`" in file.advice


def test_a_width_that_nobody_published_asks_for_the_model(
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    (file,) = inspect_files([learned_file(torch.ones(7))]).files
    assert file.verdict == "unknown"
    assert "name the model with --model" in file.advice


def test_a_zero_vector_is_broken_and_does_not_stop_the_others(
    learned_file: Callable[..., EmbeddingFile],
    fake_encoder: Callable[[Tensor], Any],
    seeded_table: Tensor,
) -> None:
    vectors = torch.zeros(16), seeded_table[3]
    (file,) = inspect_files([learned_file(*vectors)], [fake_encoder(seeded_table)], "tiny").files
    assert file.verdict == "broken"
    assert file.advice.startswith("broken: vector 0 is zero")
    assert [one.percentile == 0 for one in file.vectors] == [True, False]
    assert [len(one.nearest) for one in file.vectors] == [0, 3]


def test_vectors_of_one_file_that_point_the_same_way_are_twins(
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    first, second = torch.eye(768)[0], torch.eye(768)[1]
    (file,) = inspect_files([learned_file(first, second, 0.5 * first, second + 0.1 * first)]).files
    twins = [
        (one.twin.index, round(one.twin.similarity, 3)) if one.twin else None
        for one in file.vectors
    ]
    assert twins == [(2, 1.0), (3, 0.995), (0, 1.0), (1, 0.995)]
    assert "; 2 of its 4 vectors point the same way as another." in file.advice


def test_checkpoints_tell_their_angle_to_the_first_and_to_the_one_before(
    learned_file: Callable[..., EmbeddingFile],
) -> None:
    directions = {300: (0.0, 1.0), 100: (1.0, 0.0), 200: (1.0, 1.0)}
    files = [
        learned_file(torch.tensor(xy), step=step, name=f"run/{step}.bin")
        for step, xy in directions.items()
    ]
    files.append(learned_file(torch.tensor([0.0, 1.0]), step=200, name="other/200.bin"))
    turns: dict[str, Any] = {file.path: file.vectors[0].turn for file in inspect_files(files).files}
    assert turns["run/100.bin"] is turns["other/200.bin"] is None
    for path, turn in (("run/200.bin", Turn(45, 45)), ("run/300.bin", Turn(90, 45))):
        assert (turns[path].from_first, turns[path].from_previous) == pytest.approx(
            (turn.from_first, turn.from_previous), abs=1e-4
        )


def test_the_real_training_run_turns_by_two_thirds_of_a_right_angle(shared_data: Path) -> None:
    files = [
        read_embeddings(path)
        for path in find_embedding_files(shared_data / "embeddings/trajectory")
    ]
    last = inspect_files(files).files[-1]
    vector: Any = last.vectors[0]
    assert vector.turn.from_first == pytest.approx(66.4, abs=0.1)
    assert (last.verdict, round(vector.inflation, 2)) == ("inflated", 2.45)
