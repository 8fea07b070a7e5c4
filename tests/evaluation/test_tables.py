import csv
import io
from dataclasses import replace

from dti_geom.evaluation.evaluation import Evaluation, summarize
from dti_geom.evaluation.pictures import SamplerSettings
from dti_geom.evaluation.scores import ImageScore
from dti_geom.evaluation.tables import csv_of_images, latex_table


def evaluation(method: str = "dti") -> Evaluation:
    checks = ({"background": True}, {"background": False, "order": True})
    scores = tuple(
        ImageScore(
            method,
            "dog, brown",
            "runs/a",
            'a {} "quoted"',
            "x",
            seed,
            "0.png",
            0.25 + seed / 10,
            0.5,
            held,
        )
        for seed, held in enumerate(checks)
    )
    known = (scores, (), tuple(summarize(scores)), (), (), (), ())
    settings = SamplerSettings(50, 5.0, 64, "float32")
    return Evaluation(
        "mini", "mini", (0, 1), settings, "mini", "mini", "share of checks that hold", *known
    )


def test_the_csv_has_a_line_for_each_picture_and_a_column_for_each_check() -> None:
    first, second = csv.DictReader(io.StringIO(csv_of_images(evaluation())))
    assert (first["subject"], first["prompt"], first["subject_score"]) == (
        "dog, brown",
        'a {} "quoted"',
        "0.25",
    )
    assert (first["background"], first["order"]) == ("1", "")
    assert (second["background"], second["order"]) == ("0", "1")


def test_neither_a_label_nor_the_name_of_a_check_is_a_formula() -> None:
    scores = evaluation('=HYPERLINK("x")').images
    checked = [replace(score, checks={"＝check": True}) for score in scores]
    text = csv_of_images(replace(evaluation(), images=tuple(checked)))
    first, second = csv.DictReader(io.StringIO(text))
    assert first["method"] == second["method"] == '\'=HYPERLINK("x")'
    assert first["'＝check"] == "1"


def test_the_latex_table_has_a_row_for_each_method_and_escapes_its_name() -> None:
    text = latex_table(evaluation("dti_κ=0 & 50%"))
    (row,) = [line for line in text.splitlines() if line.startswith("dti")]
    assert row.startswith(r"dti\_$\kappa$=0 \& 50\% & 0.300 [")
    assert row.endswith(r"] & 0.500 [0.500, 0.500] & 2 \\")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
