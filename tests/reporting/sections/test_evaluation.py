from dataclasses import replace
from typing import Any

from dti_geom.evaluation.evaluation import CheckSummary, Evaluation, SmallPicture
from dti_geom.evaluation.scores import LeftOut
from dti_geom.mini.ceilings import Ceiling, ConceptCeiling, Likeness
from dti_geom.reporting.blocks import Finding, Note, Pictures, Section, Span, Table
from dti_geom.reporting.sections.evaluation import (
    evaluation_data,
    evaluation_finding,
    evaluation_section,
    example_finding,
    interval_text,
    score_text,
    tradeoff_figure,
)
from dti_geom.statistics import Share
from example_results import PIXEL, evaluation_result


def named(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data if trace.name}


def blocks(section: Section, kind: type) -> list[Any]:
    return [block for block in section.blocks if isinstance(block, kind)]


def table(section: Section, title: str) -> Table:
    tables: list[Table] = blocks(section, Table)
    return next(table for table in tables if table.title.startswith(title))


def grid(section: Section) -> Pictures:
    (part,) = blocks(section, Section)
    pictures: Pictures = blocks(part, Pictures)[0]
    return pictures


def test_every_method_has_its_mean_with_intervals_and_a_point_for_each_subject_and_prompt() -> None:
    evaluation = evaluation_result()
    figure = tradeoff_figure(evaluation)
    drawn = named(figure)
    assert list(drawn) == ["\u2068dti\u2069", "\u2068ti\u2069"]
    mean, overall = drawn["\u2068ti\u2069"], evaluation.summaries[1]
    assert (mean.x[0], mean.y[0]) == (overall.text.mean, overall.subject.mean)
    assert mean.y[0] + mean.error_y.array[0] == overall.subject.high
    assert mean.x[0] - mean.error_x.arrayminus[0] == overall.text.low
    faint = [trace for trace in figure.data if not trace.showlegend]
    assert [len(trace.x) for trace in faint] == [4, 4]


def test_a_point_names_the_picture_it_shows() -> None:
    evaluation = evaluation_result()
    figure = tradeoff_figure(evaluation)
    faint = [trace for trace in figure.data if not trace.showlegend]
    for place, trace in enumerate(faint):
        assert list(trace.customdata) == [None, None, place, None]
        small = evaluation.pictures[place]
        assert small.method in trace.hovertext[2]
        assert small.subject in trace.hovertext[2]
    (row,) = grid(evaluation_section(evaluation)).rows
    assert [picture.key for picture in row.pictures if picture] == [0, 1]


def test_methods_are_named_in_a_key() -> None:
    annotations = tradeoff_figure(evaluation_result()).layout.annotations
    texts = {annotation.text for annotation in annotations}
    assert {"◆ \u2068dti\u2069", "◆ \u2068ti\u2069"} <= texts


def test_the_finding_says_by_how_much_and_with_which_interval() -> None:
    finding = evaluation_finding(evaluation_result())
    assert "8 pairs" in finding
    sure = "(95 % interval 0.100 to 0.100, p < 0.001 by Holm)"
    assert f"dti less ti is +0.100 {sure} in subject" in finding
    assert f"+0.100 {sure} in text" in finding
    alone = evaluation_finding(evaluation_result(("dti",)))
    assert alone.startswith("dti scores 0.650 (95 % interval 0.")
    assert "8 pictures" in alone


def test_a_difference_has_its_corrected_p_value_unless_an_older_version_wrote_it() -> None:
    evaluation = evaluation_result()
    first = replace(evaluation.differences[0], text_p=0.25)
    assert ", p = 0.250 by Holm) in text" in evaluation_finding(
        replace(evaluation, differences=(first,))
    )
    older = tuple(replace(row, subject_p=None, text_p=None) for row in evaluation.differences)
    section = evaluation_section(replace(evaluation, differences=older))
    titles = [column.title for column in table(section, "Differences").columns]
    assert titles == ["first", "less", "prompts", "subject", "95 %", "text", "95 %", "pairs"]


def test_scores_and_differences_are_rows_with_their_intervals() -> None:
    evaluation = evaluation_result()
    section = evaluation_section(evaluation)
    overall = evaluation.summaries[1]
    row = next(
        row for row in table(section, "Scores").rows if row[:2] == [overall.method, overall.group]
    )
    assert row[2:4] == [overall.subject.mean, Span(overall.subject.low, overall.subject.high)]
    assert row[6] == overall.images
    difference, *groups = evaluation.differences
    (row,) = table(section, "Differences").rows
    assert row[:4] == ["dti", "ti", "all", difference.subject.mean]
    assert (row[5], row[8]) == (difference.subject_p, difference.text_p)
    assert [row[2] for row in table(section, "The same by").rows] == [one.group for one in groups]
    assert table(section, "The scorer's").rows[0][1] == 100 * evaluation.accuracy[0].renders.share


def test_prompts_are_rows_with_the_scores_of_all_methods() -> None:
    evaluation = evaluation_result()
    prompts = table(evaluation_section(evaluation), "Prompt by prompt")
    titles = [column.title for column in prompts.columns]
    assert titles[2:] == ["dti, subject", "dti, text", "ti, subject", "ti, text"]
    assert [row[0] for row in prompts.rows] == ["a {} in mini", "a {} and a {other}"]
    cells = dict(zip(titles, prompts.rows[0], strict=True))
    scores = {
        (score.method, score.prompt): (score.subject, score.text) for score in evaluation.by_prompt
    }
    for method in ("dti", "ti"):
        shown = (cells[f"{method}, subject"], cells[f"{method}, text"])
        assert shown == scores[method, "a {} in mini"]
    partial = replace(evaluation, by_prompt=evaluation.by_prompt[1:])
    rows = table(evaluation_section(partial), "Prompt by prompt").rows
    assert any(None in row for row in rows)


def test_a_picture_shows_its_scores_and_what_it_is_of() -> None:
    evaluation = evaluation_result()
    pictures = grid(evaluation_section(evaluation))
    assert list(pictures.columns) == ["dti", "ti"]
    (row,) = pictures.rows
    assert row.label == "a {} in mini\nfox"
    _, second = row.pictures
    assert second is not None
    first_seed = next(
        score
        for score in evaluation.images
        if (score.method, score.subject, score.prompt) == ("ti", "fox", "a {} in mini")
    )
    assert second.uri == PIXEL
    assert second.alt == "a {} in mini, by ti"
    like, text = f"{first_seed.subject_score:.3f}", f"{first_seed.text_score:.3f}"
    assert second.caption == f"like {like}, text {text}"


def test_a_reference_stands_in_the_first_column() -> None:
    evaluation = replace(evaluation_result(), references={"fox": PIXEL.partition(",")[2]})
    pictures = grid(evaluation_section(evaluation))
    assert list(pictures.columns) == ["a reference", "dti", "ti"]
    (row,) = pictures.rows
    assert row.pictures[0] is not None
    assert row.pictures[0].uri == PIXEL
    assert row.pictures[0].alt == "a reference picture of fox"


def test_rows_of_pictures_come_with_the_worst_text_first_and_with_places_in_other_orders() -> None:
    evaluation = evaluation_result()
    asked = [("mini", 0), ("fox", 0), ("fox", 1)]
    prompts = ("a {} in mini", "a {} and a {other}")
    texts = {("mini", "dti"): 0.4, ("mini", "ti"): 0.4, ("fox", "dti"): 0.9, ("fox", "ti"): 0.3}
    images = [
        replace(image, text_score=texts[image.subject, image.method])
        if image.group == "place"
        else image
        for image in evaluation.images
    ]
    small = [
        SmallPicture(method, subject, prompts[prompt], PIXEL.partition(",")[2])
        for subject, prompt in asked
        for method in ("dti", "ti")
    ]
    changed = replace(evaluation, images=tuple(images), pictures=tuple(small))
    pictures = grid(evaluation_section(changed))
    labels = [row.label for row in pictures.rows]
    assert labels == ["a {} in mini\nmini", "a {} in mini\nfox", "a {} and a {other}\nfox"]
    assert pictures.orders[1] == "largest difference in text"
    by_difference = sorted(pictures.rows, key=lambda row: row.places[1])
    assert by_difference[0].label == "a {} in mini\nfox"
    assert [row.places[-1] for row in pictures.rows] == [0, 1, 2]


def test_a_method_without_a_picture_of_a_prompt_leaves_its_place_empty() -> None:
    evaluation = evaluation_result()
    kept = replace(evaluation.pictures[1], prompt="a {} and a {other}")
    pictures = grid(
        evaluation_section(replace(evaluation, pictures=(evaluation.pictures[0], kept)))
    )
    empty = [[picture is None for picture in row.pictures] for row in pictures.rows]
    assert empty == [[True, False], [False, True]]  # the second prompt scores less


def test_the_first_methods_pictures_are_counted_against_the_second() -> None:
    finding = example_finding(evaluation_result())
    assert finding.startswith("Of 1 pairs")
    assert finding.count("1 and less so in 0") == 2
    assert example_finding(evaluation_result(("dti",))).startswith("1 pictures")


def test_what_was_left_out_is_named_with_its_reason() -> None:
    lost = LeftOut("runs/dti/photos/a.png", "it is no image")
    notes = blocks(evaluation_section(evaluation_result(("dti",), "mini", lost)), Note)
    (note,) = [note for note in notes if "photos/a.png" in note.text]
    assert "it is no image" in note.text
    whole = blocks(evaluation_section(evaluation_result(("dti",))), Note)
    assert len(whole) == len(notes) - 1


def test_one_subject_has_intervals_over_its_seeds_alone() -> None:
    evaluation = evaluation_result()
    fox = tuple(score for score in evaluation.images if score.subject == "fox")
    for result, fact in (
        (replace(evaluation, images=fox), "runs and seeds of the one subject"),
        (evaluation, "subjects, runs and seeds"),
    ):
        note = blocks(evaluation_section(result), Note)[0]
        assert f"bootstrap over {fact}" in note.text


def test_without_pictures_there_is_no_grid_and_the_data_have_none() -> None:
    evaluation = evaluation_result()
    bare = evaluation_data(evaluation)
    assert bare == replace(evaluation, pictures=())
    section = evaluation_section(bare)
    assert not blocks(section, Section)
    assert [block.text for block in blocks(section, Finding)] == [evaluation_finding(evaluation)]


def test_what_is_unknown_is_a_dash() -> None:
    assert (score_text(None), score_text(-0.12345), interval_text(None)) == ("–", "−0.123", "–")


def checked(evaluation: Evaluation) -> Evaluation:
    """The evaluation with checks of pairs, and ceilings of one of its two subjects."""
    checks = {
        "both": Ceiling(Share.of(10, 10), Share.of(3, 10)),
        "background": Ceiling(Share.of(10, 10), Share.of(10, 10)),
    }
    share = evaluation.summaries[0].text
    return replace(
        evaluation,
        checks=(
            CheckSummary("dti", "background", 8, share, 1.0),
            CheckSummary("dti", "both", 4, share, 0.95),
            CheckSummary("class word", "both", 4, share, None),
        ),
        ceilings={"fox": ConceptCeiling("x", checks, Likeness(0.9, 0.8, 0.1))},
    )


def test_checks_of_pairs_stand_apart_with_what_true_pictures_reach() -> None:
    section = evaluation_section(checked(evaluation_result()))
    pairs, others = table(section, "Pairs"), table(section, "Other checks")
    assert [row[0] for row in pairs.rows] == ["dti", "class word", "true pictures"]
    assert pairs.rows[-1][1] == 0.95
    assert [column.title for column in others.columns] == ["method", "background", "95 %"]


def test_what_the_scorer_cannot_decide_is_named_and_so_is_a_subject_without_ceilings() -> None:
    notes = [note.text for note in blocks(evaluation_section(checked(evaluation_result())), Note)]
    (blind,) = [note for note in notes if "both of fox" in note]
    assert "30%" in blind
    assert "background of" not in blind
    assert any("ceilings: mini" in note for note in notes)
    (row,) = table(evaluation_section(checked(evaluation_result())), "What true").rows
    assert row == ["fox", 0.9, 0.8, 0.1, 30.0, 100.0]
    plain = evaluation_section(evaluation_result())
    assert not any("eilings" in note.text for note in blocks(plain, Note))
