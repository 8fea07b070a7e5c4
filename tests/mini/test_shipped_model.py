"""The weights in the package: they open, they fit, and a small sample of prompts comes out as their card says."""

import json

import pytest
import torch
from PIL import Image

from dti_geom.mini.concepts import CONCEPTS, IMAGES_PER_CONCEPT
from dti_geom.mini.domain import THING_NAMES
from dti_geom.mini.exams import ExamPaper
from dti_geom.mini.figures import TARGETS, Figures, load_figures
from dti_geom.mini.recipe.__main__ import FIGURES_FILE
from dti_geom.mini.recipe.evaluate import sit
from dti_geom.mini.recipe.export import PIPELINE_BYTES, SCORER_BYTES, SHIPPED, pipeline_bytes
from dti_geom.mini.recipe.generate import generate, open_pipeline
from dti_geom.mini.scorer import WEIGHTS_FILE, load_scorer

SAMPLE = 16  # pictures per row
TOLERANCE = (
    0.25  # how far the share of so few may fall below the card's: about two standard errors at 80 %
)


@pytest.fixture(scope="module")
def pipeline():
    return open_pipeline(SHIPPED)


@pytest.fixture(scope="module")
def scorer():
    return load_scorer(SHIPPED / "scorer")


@pytest.fixture(scope="module")
def figures() -> Figures:
    return load_figures(SHIPPED / FIGURES_FILE)


def test_weights_fit_their_limits():
    assert 0 < pipeline_bytes(SHIPPED) <= PIPELINE_BYTES
    assert (SHIPPED / "scorer" / WEIGHTS_FILE).stat().st_size <= SCORER_BYTES


def test_parts_are_the_standard_ones(pipeline):
    assert type(pipeline).__name__ == "StableDiffusionPipeline"
    assert type(pipeline.text_encoder).__name__ == "CLIPTextModel"
    assert type(pipeline.vae).__name__ == "AutoencoderKL"
    assert type(pipeline.unet).__name__ == "UNet2DConditionModel"
    config = pipeline.text_encoder.config
    assert config.num_hidden_layers >= 4
    assert config.max_position_embeddings == pipeline.tokenizer.model_max_length
    assert config.eos_token_id == pipeline.tokenizer.eos_token_id


def test_every_name_is_one_token(pipeline):
    assert all(len(pipeline.tokenizer.tokenize(name)) == 1 for name in THING_NAMES)


def test_same_seed_gives_the_same_picture_in_any_batch(pipeline):
    pair = generate(pipeline, ["a photo of a fox"] * 2, seed=4, steps=3)
    second = generate(pipeline, ["a photo of a fox"], seed=5, steps=3)
    assert torch.allclose(pair[1], second[0], atol=2e-2)


@pytest.mark.parametrize(
    ("row", "check"),
    [("single", "object"), ("single", "background"), ("colour", "colour"), ("row", "order")],
)
def test_small_sample_agrees_with_the_card(pipeline, scorer, figures, row, check):
    exam = next(exam for exam in ExamPaper(SAMPLE, seed=3).all() if exam.name == row)
    found = sit(exam, pipeline, scorer, seed=50)[check]
    assert found.share >= figures.rows[row][check].share - TOLERANCE, str(found)


def test_figures_have_enough_pictures_and_know_what_they_miss(figures):
    assert {target.row for target in TARGETS} <= set(figures.rows)
    assert all(
        share.total >= 200
        for target in TARGETS
        for share in [figures.rows[target.row][target.check]]
    )
    card = (SHIPPED / "MODEL_CARD.md").read_text()
    assert all(line in card for line in figures.missed())


def test_card_carries_the_notices():
    card = (SHIPPED / "MODEL_CARD.md").read_text()
    for words in (
        "Apache License, Version 2.0",
        "creativecommons.org/licenses/by/4.0",
        "Copyright (c) Microsoft",
    ):
        assert words in card


def test_concepts_come_with_five_pictures_each(scorer):
    entries = json.loads((SHIPPED / "concepts" / "concepts.json").read_text())
    assert [entry["name"] for entry in entries] == [concept.name for concept in CONCEPTS]
    assert sum(entry["split"] == "tuning" for entry in entries) == 4
    for entry in entries:
        assert len(entry["images"]) == IMAGES_PER_CONCEPT
        assert entry["initialiser"] in THING_NAMES
        for file in entry["images"]:
            with Image.open(SHIPPED / "concepts" / file) as picture:
                assert picture.size == (64, 64)
