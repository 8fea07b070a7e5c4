"""What the notes of published reports say is what their results hold."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from dti_geom.files import from_json, load_result
from dti_geom.statistics import Interval
from dti_geom.sweeps.quality import TimeToQuality, time_to_quality
from dti_geom.sweeps.sweep import Sweep
from prose import assert_shown, share
from scripts import script

BAKE_OFF = Path(__file__).parents[1] / "reports" / "bakeoff"
NOTE = " ".join((BAKE_OFF / "README.md").read_text(encoding="utf-8").split())
RESULT: dict[str, Any] = json.loads((BAKE_OFF / "result.json").read_text(encoding="utf-8"))


def sweep(stage: str) -> Sweep:
    return load_result(BAKE_OFF / f"{stage}.json", Sweep)


def scores(stage: str, group: str = "all") -> dict[str, tuple[str, str]]:
    """Subject and text of each method over a group of prompts, as the note writes them."""
    return {
        summary.method: (f"{summary.subject.mean:.3f}", f"{summary.text.mean:.3f}")
        for summary in sweep(stage).summaries
        if summary.group == group
    }


def test_the_note_on_the_bake_off_shows_its_scores() -> None:
    by_method = scores("bakeoff")
    for name in ("dti", "ti", "ti-rescaled", "crossinit", "class word"):
        assert_shown(NOTE, by_method[name][1])
    for name in ("dti", "ti", "category-norm"):
        assert_shown(NOTE, by_method[name][0])
    counting = scores("bakeoff", "count")
    assert_shown(NOTE, counting["dti"][1], counting["ti"][1], f"{RESULT['core hours']:.1f}")
    assert counting["dti"][1] < counting["ti"][1]


def test_the_note_on_the_bake_off_shows_its_paired_tests() -> None:
    rows = {row["method"]: row for row in RESULT["bakeoff, dti less"]}
    assert len(rows) == 9
    for name in ("ti", "crossinit", "ti-rescaled"):
        assert_shown(NOTE, f"{rows[name]['text']:+.3f}", f"{rows[name]['text p, Holm']:.3f}")
    assert rows["ti"]["text better on"] == 11
    assert_shown(NOTE, "11 of 12")
    significant = {name for name, row in rows.items() if row["text p, Holm"] < 0.05}
    assert significant == {"ti", "crossinit"}
    assert all(row["subject p, Holm"] >= 0.05 for row in rows.values())


def test_policies_that_hold_the_norm_score_between_ti_and_dti() -> None:
    text = {name: float(text) for name, (_, text) in scores("bakeoff").items()}
    ti, dti = text.pop("ti"), text.pop("dti")
    holding = set(text) - {"crossinit", "class word"}
    assert ti < min(text[name] for name in holding)
    assert max(text[name] for name in holding) < dti


def test_the_misses_and_the_outermost_rate_are_those_the_note_names() -> None:
    counting = RESULT["bakeoff, counting"]["dti"]
    missed = {prompt for prompt, text in counting.items() if text < 1}
    assert missed == {"a photo of two {} on the grass"}
    outermost = set()
    for name, merit in RESULT["search"].items():
        if max(merit, key=merit.get) in (min(merit, key=float), max(merit, key=float)):
            outermost.add(name)
    assert outermost == {"norm-decay"}


def test_the_note_on_norms_shows_the_means_of_the_checkpoints() -> None:
    for stage in ("bakeoff", "norms"):
        assert_shown(NOTE, f"{RESULT[f'{stage}, norm against text']:.2f}")
    rows = defaultdict(list)
    for point in sweep("norms").courses:
        figures = (point.inflation, point.subject_score, point.text_score)
        rows[point.label, point.step].append(figures)
    means = {}
    for key, values in rows.items():
        means[key] = [sum(column) / len(column) for column in zip(*values, strict=True)]
    assert_shown(NOTE, f"{means['ti', 100][0]:.1f}", f"{means['ti', 400][0]:.1f}")
    assert_shown(NOTE, f"{means['ti', 400][2]:.3f}")
    for key in (("ti", 100), ("dti", 100), ("ti", 200), ("dti", 400)):
        assert_shown(NOTE, *(f"{score:.3f}" for score in means[key][1:]))


def test_the_note_shows_what_lies_beyond_the_paper() -> None:
    merit = RESULT["beyond"]
    assert_shown(NOTE, str(len(merit) - 1))
    best = sorted(merit, key=lambda name: -merit[name])[:3]
    assert best == ["momentum 0.9, twice the mean", "magnitude twice the mean", "momentum 0.9"]
    adam = max(value for name, value in merit.items() if name.startswith("Adam"))
    named = [merit[name] for name in (*best, "as it is", "cosine", "average of the last 100")]
    assert_shown(NOTE, *(f"{value:.3f}" for value in (*named, adam)))
    by_method = scores("winner")
    assert_shown(NOTE, by_method["dti"][1], *(by_method[f"dti, {name}"][1] for name in best))
    for row in RESULT["winner, dti less"]:
        assert row["text p, Holm"] >= 0.05
        assert row["subject p, Holm"] >= 0.05


def test_the_tuned_preset_is_the_setting_that_was_confirmed() -> None:
    from dti_geom.models.pipelines.base import TextToImage
    from dti_geom.training import METHODS

    preset, dti, defaults = METHODS["dti-tuned"], METHODS["dti"], TextToImage.training
    confirmed = RESULT["settings"]["dti"]
    assert confirmed["name"] == "dti"
    assert confirmed["learning_rate"] == preset.learning_rate
    assert confirmed["kappa"] == preset.kappa
    for name in ("form", "optimizer", "magnitude"):
        assert getattr(preset, name) == getattr(dti, name)
    assert preset.learning_rate is not None
    assert preset.kappa is not None
    assert defaults.direction_rate / preset.learning_rate == pytest.approx(4)
    assert preset.kappa / defaults.kappa == pytest.approx(100)


def test_the_note_shows_what_the_confirmation_gave() -> None:
    by_method, (row,) = scores("confirm"), RESULT["confirm, dti less"]
    assert_shown(NOTE, *by_method["dti"], *by_method["dti as published"], f"{row['text']:+.3f}")
    assert_shown(NOTE, f"{row['text better on']} of 12", f"{row['text p, Holm']:.3f}")


@pytest.mark.parametrize(
    ("name", "report", "file"),
    [
        ("dial", "dial", "result.json"),
        ("dial", "dial", "gain-64.json"),
        ("unnormed", "dial", "unnormed.json"),
        ("schedule", "inflation", "schedule.json"),
        ("entangled", "entangled", "result.json"),
        ("controls", "controls", "result.json"),
        ("magnitudes", "magnitudes", "result.json"),
    ],
)
def test_the_note_of_an_experiment_shows_the_tables_of_its_result(
    name: str, report: str, file: str
) -> None:
    folder = BAKE_OFF.with_name(report)
    result = json.loads((folder / file).read_text(encoding="utf-8"))
    note = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    shown = list(script(name).show(result))
    assert len(shown) > 2
    assert [line for line in shown if line and line not in note] == []


@pytest.mark.parametrize(
    ("report", "file"),
    [
        ("dial", "result.json"),
        ("dial", "gain-64.json"),
        ("dial", "unnormed.json"),
        ("inflation", "schedule.json"),
        ("entangled", "result.json"),
        ("magnitudes", "result.json"),
    ],
)
def test_the_differences_of_an_experiment_are_those_of_its_cells(report: str, file: str) -> None:
    result = json.loads((BAKE_OFF.with_name(report) / file).read_text(encoding="utf-8"))
    script("dial")  # so that what the experiments share can be imported
    shared = sys.modules["experiments"]
    for row in result["differences"]:
        first, second = row["difference"].split(" − ")
        cells = [cell for cell in result["cells"] if cell.get("gain") == row.get("gain")]
        (again,) = shared.differences(cells, [(first, second)])
        for score in shared.SCORES:
            kept = {key: value for key, value in row[score].items() if key != "p, Holm"}
            assert again[score] == pytest.approx(kept)


@pytest.mark.parametrize("part", ["", "gain-64"])
def test_the_note_on_the_bake_off_again_shows_the_tables_of_its_results(part: str) -> None:
    bench, folder = script("bakeoff"), BAKE_OFF.with_name("bakeoff-again")
    note = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    again = load_result(folder / part / "bakeoff.json", Sweep)
    result = json.loads((folder / part / "result.json").read_text(encoding="utf-8"))
    shown = bench.scores_table(again) + bench.checks_table(again)
    shown += bench.against_table(result["bakeoff, dti less"], "dti")
    shown += bench.both_table(result["bakeoff, both, dti less"], "dti")
    shown += bench.search_table(result["search"])
    if not part:
        shown += bench.second_table(result["second"])
        quick = {name: from_json(TimeToQuality, row) for name, row in result["quick"].items()}
        shown += bench.WRITERS["quick"](quick)
        for stage in ("speed", "quicker"):
            courses = load_result(folder / f"{stage}.json", Sweep)
            shown += bench.quality_table(time_to_quality(courses.courses, courses.costs))
    assert [line for line in shown.splitlines() if line not in note and "---" not in line] == []
    # What the words say of them.
    different = [row["method"] for row in result["bakeoff, dti less"] if row["text p, Holm"] < 0.05]
    assert different == ["class word"]
    assert {cell.seed for cell in again.cells} == {0, 1, 2}
    assert {len(rates) for rates in result["search"].values()} == {len(bench.MULTIPLES)}


def test_the_note_on_the_bake_off_again_says_what_its_tables_give() -> None:
    bench, folder = script("bakeoff"), BAKE_OFF.with_name("bakeoff-again")
    note = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    parts = [json.loads((folder / part / "result.json").read_text()) for part in ("", "gain-64")]
    result, at_gain = parts
    hours = [f"{part['core hours']:.1f} core-hours" for part in parts]
    assert_shown(note, *hours)
    less = {row["method"]: row for row in result["bakeoff, dti less"]}
    both = {row["method"]: row for row in result["bakeoff, both, dti less"]}
    median_norm = less["median-projection"]
    assert_shown(
        note, f"+{share(median_norm['subject'])}", share(median_norm["subject p, Holm"])[:3]
    )
    assert_shown(
        note,
        f"(+{share(both['crossinit']['both'])}, p = {share(both['crossinit']['both p, Holm'])})",
    )
    assert [name for name, row in both.items() if row["both p, Holm"] < 0.05] == [
        "class word",
        "crossinit",
    ]
    chance = f"{both['ti']['both p, Holm']:.2f}".removeprefix("0")
    assert_shown(note, f"it is +{share(both['ti']['both'])}, p = {chance}")
    kappas = result["second"]["dti"]
    assert_shown(note, f"gains {share(kappas['0.01'] - kappas['0.0'])} of merit")
    updates = {
        row["label"]: row["updates"]["mean"]
        for stage in ("speed", "quicker")
        for row in result[f"{stage}, time to quality"]
    }
    for method in ("std-retraction", "median-projection", "dti, momentum 0.9"):
        assert_shown(note, f"{updates[method] / updates['dti']:.2f}".removeprefix("0"))
    courses = load_result(folder / "quicker.json", Sweep).courses
    for label, step in (("dti, momentum 0.9", 100), ("dti, 4 times the rate", 100), ("dti", 300)):
        points = [p for p in courses if (p.label, p.step) == (label, step)]
        means = [
            sum(getattr(p, f"{score}_score") for p in points) / len(points)
            for score in ("subject", "text")
        ]
        assert_shown(note, *map(share, means))
    for tried in at_gain["search"].values():
        merits = list(tried.values())
        assert_shown(note, share(max(merits)), share(merits[2]), share(max(merits) - min(merits)))
    assert result["settings"]["dti"] == {"name": "dti", "learning_rate": 0.01, "kappa": 0.01}
    assert bench.MULTIPLES[2] == 1  # the own rate


def test_the_pages_say_what_an_equal_search_at_gain_64_gave() -> None:
    docs, folder = BAKE_OFF.parents[1] / "docs", BAKE_OFF.with_name("bakeoff-again") / "gain-64"
    found = load_result(folder / "bakeoff.json", Sweep)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    both = {row.method: share(row.share.mean) for row in found.checks if row.check == "both"}
    (pairs,) = [row for row in result["bakeoff, both, dti less"] if row["method"] == "ti"]
    chance = f"p = {digits(pairs['both p, Holm'])[:3]}"
    overall = {row.method: row for row in found.summaries if row.group == "all"}
    likeness = [share(overall[name].subject.mean) for name in ("ti", "ti-rescaled")]
    *_, own, _ = result["search"]["ti"].values()
    merits = share(own), share(max(result["search"]["ti"].values()))
    spans = [
        digits(max(tried.values()) - min(tried.values())) for tried in result["search"].values()
    ]
    norms = [norm.inflation for norm in found.norms if norm.label == "ti"]
    for page in ("findings", "what-inflation-does"):
        text = " ".join((docs / f"{page}.md").read_text(encoding="utf-8").split())
        assert_shown(text, both["ti"], both["dti"], chance)
    assert_shown(
        text, *likeness, *merits, *spans, f"{sum(norms) / len(norms):.1f} times the mean norm"
    )
    assert_shown(text, digits(overall["ti"].text.mean))


def test_the_note_of_the_study_says_what_its_answers_give() -> None:
    from dti_geom.study.scoring import StudyScore

    folder = BAKE_OFF.with_name("study")
    note = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    found = load_result(folder / "result.json", StudyScore)
    assert {row.p for row in found.differences} == {1}
    assert {(left.right, left.asked, left.needed) for left in found.left_out} == {(2, 6, 4)}
    alpha = [f"{row.alpha:.2f}".lstrip("0") for row in found.agreement if row.alpha is not None]
    places = [100 * side.share.mean for side in found.sides]
    assert_shown(note, *alpha, f"{min(places):.1f}", f"{max(places):.1f} %", "22 are kept")
    assert found.raters == 22


def digits(value: float) -> str:
    """Write a number below 1 as the notes do: .292, −.013."""
    return f"{'−' if value < 0 else ''}{share(abs(value))}"


def bounds(interval: Interval, sign: int = 1) -> str:
    """Write a mean and its interval; sign −1 exchanges what was taken from what."""
    assert interval.low is not None
    assert interval.high is not None
    ends = sorted((sign * interval.low, sign * interval.high))
    return f"{digits(sign * interval.mean)} [{digits(ends[0])}, {digits(ends[1])}]"


def test_the_note_of_the_adapters_shows_the_scores_of_its_sweep() -> None:
    folder = BAKE_OFF.with_name("adapters")
    found = load_result(folder / "sweep.json", Sweep)
    note = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    costs = {cost.label: cost.training_seconds for cost in found.costs}
    checks = {(row.method, row.check): row.share for row in found.checks}
    overall = [summary for summary in found.summaries if summary.group == "all"]
    assert len(overall) == 7
    spent = [c.cost.training_seconds + c.cost.evaluation_seconds for c in found.cells if c.cost]
    assert_shown(" ".join(note), f"{sum(spent) / len(spent):.0f} s", f"{len(spent)} cells")
    assert_shown(" ".join(note), f"{sum(spent) / 3600:.2f} hours")
    for summary in overall:
        norms = [norm.inflation for norm in found.norms if norm.label == summary.method]
        scores = (summary.subject, summary.text, checks[summary.method, "both"])
        cells = [summary.method, f"×{median(norms):.1f}", *map(bounds, scores)]
        assert f"| {' | '.join(cells)} | {costs[summary.method]:.0f} |" in note


def test_the_note_of_the_adapters_says_which_differences_are_shown() -> None:
    folder = BAKE_OFF.with_name("adapters")
    found = load_result(folder / "sweep.json", Sweep)
    note = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    overall = [row for row in found.differences if row.group == "all"]
    tested = [p for row in overall for p in (row.subject_p, row.text_p) if p is not None]
    smallest = f"{min(tested):.2f}".removeprefix("0")
    assert f"the {len(tested)} comparisons: the smallest p is {smallest}," in note
    pairs = {(row.first, row.second): row for row in overall}
    dco, alone = pairs["both", "both + dco"], pairs["token", "both"]
    for figures in (
        f"lower by {bounds(dco.subject)}",
        f"({bounds(dco.text, -1)})",
        f"likeness +{bounds(alone.subject, -1)}, text {bounds(alone.text, -1)}",
    ):
        assert figures in note
    rare = pairs["both", "lora on a rare word"]
    assert f"(+{bounds(rare.subject)} without the correction)" in note
