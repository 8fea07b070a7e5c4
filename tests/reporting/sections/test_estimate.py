from dataclasses import replace

import pytest

from dti_geom.models.downloads import NeededFile
from dti_geom.reporting.sections.estimate import estimate_section
from dti_geom.training import ConceptConfig, DataConfig, MethodConfig, RunConfig
from dti_geom.training.estimates import GIB, Card, Estimate, MemoryEstimate, PartWeights
from section_blocks import column, findings, table_named


def memory(name: str, training: int) -> MemoryEstimate:
    return MemoryEstimate(
        memory=name,
        weights=6 * GIB,
        activations=training - 7 * GIB,
        working=GIB,
        latents=0,
        training=training,
        loading=7 * GIB,
        encoding=3 * GIB,
        painting=0,
        flops=31 * 10**12 if name == "fast" else 43 * 10**12,
        picture_flops=10**12,
        sampler_flops=10**10,
    )


@pytest.fixture
def estimate() -> Estimate:
    return Estimate(
        config=RunConfig(
            "sdxl",
            (ConceptConfig("<x>", "photos", "dog"),),
            method=MethodConfig("dti", learning_rate=0.04),
            data=DataConfig(resolution=768),
            steps=400,
            dtype="bfloat16",
        ),
        files=(
            NeededFile("unet/model.safetensors", "unet/model.safetensors", 5 * 10**9, cached=False),
            NeededFile("vae/model.safetensors", "vae/model.safetensors", 10**9, cached=True),
        ),
        bytes=6 * 10**9,
        bytes_to_download=5 * 10**9,
        parts=(PartWeights("unet", "bfloat16", 2_567_463_684, 6 * GIB),),
        trainable=2048,
        images=5,
        memory=(memory("fast", 18 * GIB), memory("low", 8 * GIB)),
        sampling_steps=50,
        side=1024,
        cards=(Card(8, None), Card(12, "low"), Card(24, "fast")),
    )


def test_sentences_say_what_is_run_downloaded_and_needed(estimate: Estimate) -> None:
    text = " ".join(findings(estimate_section(estimate)))
    for part in ("400 updates", "768 px", "rate 0.04", "2,048 numbers", "5 images", "bfloat16"):
        assert part in text
    assert "5 GB in 1 files" in text
    assert "24 GiB with --memory fast, 12 GiB with --memory low" in text
    assert "31.0 TFLOP" in text


def test_what_is_here_is_not_downloaded(estimate: Estimate) -> None:
    here = tuple(replace(file, cached=True) for file in estimate.files)
    text = " ".join(findings(estimate_section(replace(estimate, files=here))))
    assert "Nothing is downloaded" in text


def test_a_run_that_no_card_holds_says_so(estimate: Estimate) -> None:
    large = replace(estimate, memory=(memory("fast", 90 * GIB), memory("low", 80 * GIB)))
    assert "No card of 24 GiB or less" in " ".join(findings(estimate_section(large)))


def test_the_table_has_each_phase_in_gib(estimate: Estimate) -> None:
    table = table_named(estimate_section(estimate), "Memory by phase")
    phases = dict(zip(column(table, "GiB in use"), column(table, "fast"), strict=True))
    assert phases["an update, in all"] == 18
    assert phases["the largest of these"] == 18
    assert phases["a card's size, with the reserve"] == pytest.approx(18 * 1.05 + 1)
    assert column(table_named(estimate_section(estimate), "Cards"), "fits with --memory") == [
        "–",
        "low",
        "fast",
    ]
