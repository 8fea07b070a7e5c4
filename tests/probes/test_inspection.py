import pytest
import torch

from dti_geom.artifacts import find_embedding_files, from_json, read_embeddings, to_json
from dti_geom.probes import InspectedFile, Reference, inspect_file


def test_inflation_is_the_norm_over_the_published_mean_of_that_width(learned_file):
    (vector,) = inspect_file(learned_file(torch.full((768,), 0.1))).vectors
    norm = 0.1 * 768**0.5
    assert vector.norm == pytest.approx(norm, rel=1e-6)
    assert vector.inflation == pytest.approx(norm / 0.3870, rel=1e-6)
    assert vector.reference == "published mean of CLIP ViT-L/14"
    assert (vector.tower, vector.dim, vector.dtype, vector.index) == ("CLIP ViT-L/14", 768, "float32", 0)


def test_a_measured_reference_goes_before_the_published_one(learned_file):
    references = {768: Reference(2.0, "text_encoder of mine")}
    (vector,) = inspect_file(learned_file(torch.full((768,), 1.0)), references).vectors
    assert vector.inflation == pytest.approx(768**0.5 / 2, rel=1e-6)
    assert vector.reference == "text_encoder of mine"


@pytest.mark.parametrize("width", [1024, 7])
def test_a_width_without_a_reference_has_no_inflation(learned_file, width):
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
def test_the_step_is_the_stored_one_or_that_of_the_name(learned_file, name, stored, step):
    assert inspect_file(learned_file(torch.ones(4), name=name, step=stored)).step == step


def test_the_result_round_trips_through_json(learned_file):
    inspected = inspect_file(learned_file(torch.ones(768), torch.ones(768), step=3))
    assert from_json(InspectedFile, to_json(inspected)) == inspected


def test_the_norm_of_a_real_training_run_grows_with_its_steps(shared_data):
    files = [
        inspect_file(read_embeddings(path)) for path in find_embedding_files(shared_data / "embeddings/trajectory")
    ]
    files.sort(key=lambda file: file.step)
    assert [file.step for file in files] == list(range(250, 5001, 250))
    norms = [file.vectors[0].norm for file in files]
    assert norms == sorted(norms)
    assert norms[0] == pytest.approx(0.46, abs=0.01)  # method.md, section 4
    assert norms[-1] == pytest.approx(0.95, abs=0.01)
