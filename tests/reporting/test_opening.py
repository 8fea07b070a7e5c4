"""The first screen of a page about training runs."""

from collections.abc import Callable
from dataclasses import replace

from dti_geom.reporting.blocks import Finding, Note, Pictures
from dti_geom.reporting.opening import ROWS, opening_of
from dti_geom.reporting.renderers.page import page_html
from dti_geom.reporting.report import Report
from dti_geom.training.story import TrainingRun, TrainingRuns
from example_results import PIXEL
from packed_pages import unpacked

Train = Callable[..., TrainingRun]


def report_of(*runs: TrainingRun) -> Report:
    return Report("mini", {"training": TrainingRuns("mini", runs)})


def pictures_of(report: Report) -> Pictures:
    opening = opening_of(report)
    assert opening is not None
    (pictures,) = (block for block in opening.section.blocks if isinstance(block, Pictures))
    return pictures


def test_a_report_without_runs_opens_with_its_model() -> None:
    assert opening_of(Report("mini")) is None
    assert "<h1><bdi>mini</bdi></h1>" in page_html(Report("mini"))


def test_the_title_names_concept_and_methods(trained: Train) -> None:
    opening = opening_of(report_of(trained("ti"), trained("dti")))
    assert opening is not None
    (images,) = {concept.images for concept in trained("ti").result.config.concepts}
    assert opening.title.endswith("by TI and DTI")
    assert images.rsplit("/", 1)[-1] in opening.title


def test_it_says_why_and_how_long_each_token_became(trained: Train) -> None:
    runs = trained("ti"), trained("dti")
    opening = opening_of(report_of(*runs))
    assert opening is not None
    note, *_, finding = (b for b in opening.section.blocks if isinstance(b, Note | Finding))
    assert "arXiv 2512.13672" in note.text
    for run in runs:
        (vector,) = run.result.vectors
        assert f"{vector.inflation:.4g}" in finding.text


def test_pictures_of_one_prompt_and_seed_stand_in_one_row_behind_a_reference(
    trained: Train,
) -> None:
    first, second = trained("ti"), trained("dti")
    first = replace(first, references=(PIXEL,))
    pictures = pictures_of(report_of(first, second))
    assert pictures.columns[0] == "a reference"
    assert [column.split(",")[0] for column in pictures.columns[1:]] == ["TI", "DTI"]
    assert 0 < len(pictures.rows) <= ROWS
    last = max(picture.preview.step for picture in second.pictures)
    by_seed = {p.preview.seed: p.uri for p in second.pictures if p.preview.step == last}
    for row, seed in zip(pictures.rows, by_seed, strict=False):
        assert row.label.endswith(f"seed {seed}")
        assert row.pictures[2] is not None
        assert row.pictures[2].uri == by_seed[seed]
    assert pictures.rows[0].pictures[0] is not None
    assert all(row.pictures[0] is None for row in pictures.rows[1:])


def test_the_page_opens_with_it_and_does_not_offer_its_pictures_for_download(
    trained: Train,
) -> None:
    html = unpacked(page_html(report_of(replace(trained("ti"), references=(PIXEL,)))))
    assert html.index('id="result"') < html.index('id="training"')
    assert html.count(PIXEL) == 1
