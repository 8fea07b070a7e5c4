"""The benchmarks still run; what they measure on a tiny model means nothing."""

import json
import sys
from argparse import Namespace
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import wilcoxon

from dti_geom.evaluation.evaluation import CheckSummary
from dti_geom.evaluation.scores import ImageScore
from dti_geom.files import save_result
from dti_geom.statistics import Interval
from dti_geom.sweeps.cells import Cost
from dti_geom.sweeps.plan import Plan
from pipelines import FAMILIES, published, published_folder
from scripts import script


@pytest.fixture(scope="module")
def train_step() -> Any:
    return script("train_step")


@pytest.fixture(scope="module")
def bakeoff() -> Any:
    return script("bakeoff")


def test_an_experiment_on_mini_trains_paints_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dial = script("dial")
    shared = sys.modules["experiments"]

    def paint(_model: Any, _vector: Any, prompts: list[str], *, seed: int) -> torch.Tensor:
        return torch.full((len(prompts), 3, 64, 64), seed / 1e4)

    monkeypatch.setattr(shared, "paint", paint)
    out = tmp_path / "result.json"
    for stage in ("train", "paint", "summary"):
        options = f"--stage {stage} --work {tmp_path} --gains 64 --concepts 1 --steps 1 --out {out}"
        monkeypatch.setattr("sys.argv", ["dial", *options.split()])
        dial.main()
    result = json.loads(out.read_text())
    (gain,) = result["gains"]
    rows = gain["variants"]
    assert rows.keys() == {dial.WORD, dial.TI, dial.RESCALED, dial.DTI, dial.FIXED} | {
        dial.FIXED_RESCALED
    }
    assert rows[dial.TI]["norm / mean"] > 1.2 > rows[dial.DTI]["norm / mean"]
    assert 5 < gain["ratio of a word"] < 20
    assert len(result["differences"]) == len(dial.COMPARED)


def test_schedules_that_are_compared_turn_by_the_same_total_angle() -> None:
    schedule = script("schedule")
    methods = schedule.methods()

    def total(name: str) -> float:
        rate = methods[name].learning_rate or schedule.USUAL.direction_rate
        shape = methods[name].schedule
        return float(rate * (schedule.mean_share(shape) if shape else 1))

    assert total("AdamW, falling") == pytest.approx(total("AdamW, equal steps"))
    assert total("DTI, TI's fall") == pytest.approx(total("DTI, TI's total"))
    assert total("DTI, falling") == pytest.approx(total("DTI"))
    # A direction has norm 1, and AdamW moves each of its 256 coordinates.
    assert 16 * total("AdamW, falling") == pytest.approx(total("DTI, TI's fall"), rel=1e-3)


@pytest.mark.parametrize(("family", "towers"), [("sd15", 1), ("sdxl", 2), ("sana", 0)])
@pytest.mark.parametrize("method", ["dti", "ti"])
def test_an_update_waits_for_a_gpu_once_and_once_for_each_clip_tower(
    family: str, towers: int, method: str, request: pytest.FixtureRequest
) -> None:
    """diffusers sends the ids of a CLIP tower by a plain copy; all results are read at once."""
    folder = str(request.getfixturevalue(f"{family}_pipeline"))
    waits = script("waits").count(folder, method, FAMILIES[family].word)
    assert waits.read == 1
    assert waits.sent <= towers


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_a_step_costs_little_more_than_the_models_own_passes(
    family: str, request: pytest.FixtureRequest
) -> None:
    """A public loop costs more: it encodes images each time."""
    folder = str(request.getfixturevalue(f"{family}_pipeline"))
    counted = script("flops").count(folder, 64, 2)
    assert 1 <= counted["step"] / counted["floor"] < 1.05
    assert counted["textbook"] > 1.02 * counted["step"]
    assert family in script("flops").table([{"model": family, **counted}])


@pytest.mark.slow
def test_at_published_size_a_step_on_sana_costs_what_its_prompts_cost(tmp_path: Path) -> None:
    """At the tests' tiny sizes the attention to the instruction would outweigh the rest."""
    published_folder(tmp_path, "sana")
    counted = script("flops").count(str(tmp_path), 1024, 4)
    assert 1 <= counted["step"] / counted["floor"] < 1.05
    assert counted["textbook"] > 2 * counted["step"]


@pytest.mark.parametrize("pipeline", ["sd15_pipeline", "sdxl_pipeline"])
def test_every_way_to_make_a_training_step_is_timed(
    pipeline: str, train_step: Any, request: pytest.FixtureRequest
) -> None:
    folder = str(request.getfixturevalue(pipeline))
    options = Namespace(
        model=folder,
        only=list(train_step.WAYS),
        steps=1,
        batch_size=2,
        resolution=None,
        dtype="bfloat16",
        device="cpu",
        compile=False,
        word=None,
    )
    measured = train_step.measure(options)
    assert tuple(measured["seconds"]) == train_step.WAYS
    assert all(seconds > 0 for seconds in measured["seconds"].values())
    assert measured["resolution"] == 64


@pytest.mark.slow
def test_the_command_for_a_gpu_writes_a_dated_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = script("gpu")
    monkeypatch.setattr(gpu, "NAMES", ("sana-1.6b",))
    options = "--device cpu --tiny --no-compile --steps 1 --out"
    monkeypatch.setattr("sys.argv", ["gpu.py", *options.split(), str(tmp_path)])
    gpu.main()
    (page,), (data,) = tmp_path.glob("*-gpu.md"), tmp_path.glob("*-gpu.json")
    assert page.read_text() + "\n" == capsys.readouterr().out
    result = json.loads(data.read_text())
    (row,) = result["rows"]
    assert result["machine"]["device"] == "cpu"
    assert min(row["floor"], row["step"], row["peak"], row["estimated"]) > 0
    assert row["step_compiled"] is None


def test_time_that_is_up_leaves_places_empty(tmp_path: Path) -> None:
    gpu = script("gpu")
    assert gpu.child([], deadline=0.0) == {}
    row = gpu.Row("sd15", 512, *[None] * 6, estimated=2.0)
    page = gpu.write([row], {}, tmp_path).read_text()
    assert "| sd15 | 512 | – | – | – | – | – | – | – | 2.00 | – |" in page


@pytest.mark.parametrize("name", ["full-sd15", "full-sdxl", "full-sana-1.6b"])
def test_models_with_random_weights_have_the_published_sizes(name: str, train_step: Any) -> None:
    facts = train_step.FULL[name]
    pipeline = train_step.full_pipeline(name, "meta", torch.bfloat16)
    denoiser = getattr(pipeline, "transformer", None) or pipeline.unet
    count = sum(parameter.numel() for parameter in denoiser.parameters())
    assert count == published(facts.denoiser)["parameters"]
    assert denoiser.dtype == torch.bfloat16
    assert pipeline.vae.dtype == torch.float32


def test_full_sizes_are_refused_without_a_gpu(
    train_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="full-sdxl would run on cuda, and there is no GPU here"):
        train_step.measure(Namespace(model="full-sdxl", device="cuda"))


def test_a_best_value_at_the_edge_of_what_was_tried_is_known_as_such(bakeoff: Any) -> None:
    assert not bakeoff.outermost({"0.01": 1.0, "0.02": 3.0, "0.04": 2.0})
    assert bakeoff.outermost({"0.01": 3.0, "0.02": 1.0, "0.04": 2.0})
    assert bakeoff.outermost({"0.01": 1.0, "0.02": 2.0, "0.04": 3.0})


def test_every_method_is_tried_at_the_same_number_of_settings_its_own_among_them(
    bakeoff: Any,
) -> None:
    from dti_geom.training import METHODS, MethodConfig
    from dti_geom.training.methods.base import decide

    values = bakeoff.second_values()
    assert values.keys() == set(bakeoff.COMPARED)
    for name, (setting, tried) in values.items():
        assert len(set(tried)) == bakeoff.VALUES
        for value in tried:  # none is refused
            decide(METHODS[name], MethodConfig(name, **{setting: value}), bakeoff.DEFAULTS)
        own = getattr(decide(METHODS[name], MethodConfig(name), bakeoff.DEFAULTS), setting)
        assert own in tried or setting == "magnitude"


def scored(
    method: str, subject: str, subject_score: float, text_score: float, number: int = 1
) -> list[tuple[None, ImageScore]]:
    image = ImageScore(
        method=method,
        subject=subject,
        run="",
        prompt="a {}",
        group="colour",
        seed=0,
        file="x.png",
        subject_score=subject_score,
        text_score=text_score,
    )
    return [(None, image)] * number


def test_the_merit_of_a_setting_weighs_every_concept_the_same(bakeoff: Any) -> None:
    images = (
        scored("a", "dog", 0.4, 0.9, number=3)
        + scored("a", "cat", 0.6, 0.7)
        + scored("b", "dog", -0.1, 0.9)
    )
    assert bakeoff.merits(images) == {"a": pytest.approx((0.5 * 0.8) ** 0.5), "b": 0.0}


def test_methods_are_tested_over_concepts_and_corrected_for_their_number(bakeoff: Any) -> None:
    rng = np.random.default_rng(0)
    base, near, far = rng.random(12), rng.random(12) * 0.1 - 0.05, rng.random(12) * 0.1
    images = []
    for number in range(12):
        for method, shift in (("mine", 0.0), ("near", near[number]), ("far", far[number])):
            images += scored(method, f"subject {number}", base[number] - shift, 0.5)
    by_method = {row["method"]: row for row in bakeoff.against(images, "mine")}
    assert by_method["far"]["subject"] == pytest.approx(far.mean())
    assert by_method["far"]["subject better on"] == 12
    # Two methods and two scores; 2 / 2**12 is the smallest p there is for 12 concepts.
    assert by_method["far"]["subject p, Holm"] == pytest.approx(4 * 2 / 2**12)
    alone = wilcoxon(near).pvalue
    assert by_method["near"]["subject p, Holm"] == pytest.approx(min(1, 3 * alone))
    assert {row["text p, Holm"] for row in by_method.values()} == {1.0}  # no difference at all


def test_both_things_of_a_pair_are_counted_where_they_were_asked_for(bakeoff: Any) -> None:
    images = []
    for number in range(6):
        for method, right in (("mine", True), ("other", False)):
            ((_, image),) = scored(method, f"subject {number}", 0.5, 0.5)
            images.append((None, replace(image, checks={"both": right})))
            images.append((None, replace(image, checks={"both": False}, undecided=("both",))))
            images.append((None, image))  # of the thing alone
    (row,) = bakeoff.both_less(images, "mine")
    assert row == {
        "method": "other",
        "concepts": 6,
        "both": 1.0,
        "both better on": 6,
        "both p, Holm": pytest.approx(2 / 2**6),
    }


def test_the_bake_off_asks_for_cells_that_can_be_run(
    bakeoff: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every method runs at its rates and values, then at its best on other concepts and seeds."""
    bench = bakeoff.Bakeoff(tmp_path, 1)
    plans = []

    def run(plan: Plan) -> Plan:
        plans.append(plan)
        return plan

    def read_finished(plan: Plan, _: Path) -> Namespace:
        images = []
        for cell in plan.cells:
            images += scored(cell.label, "dog", 0.5, 0.5)
        return Namespace(images=images)

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(bakeoff, "read_finished", read_finished)
    bench.winner()
    bench.confirm()
    bench.norms()
    bench.bakeoff()
    bench.speed()
    by_name = {plan.name: plan for plan in plans}
    presets = len([bakeoff.AS_PUBLISHED, *bakeoff.PRESETS])
    assert len(by_name["bakeoff"].cells) == (8 + presets) * 3 * 2
    assert {len(cell.subjects) for cell in by_name["bakeoff"].cells} == {6}
    tuned = set().union(*(cell.subjects for cell in by_name["search"].cells))
    tested = set().union(*(cell.subjects for cell in by_name["bakeoff"].cells))
    assert (len(tuned), len(tested), len(tuned & tested)) == (4, 12, 0)
    finalists = bakeoff.FINALISTS + len(["tuned", "as published"])
    assert len({cell.key for cell in by_name["winner"].cells}) == finalists * 3 * 2
    searched = {cell.run.method.name for cell in by_name["search"].cells}
    assert searched.isdisjoint(bakeoff.PRESETS)
    budgets = set()
    for plan in plans:
        tried = Counter(cell.run.method.name for cell in plan.cells)
        if plan.name == "search" and len(tried) > 1:  # `beyond` tries DTI alone
            budgets.add(frozenset(tried.values()))
    assert budgets == {frozenset({len(bakeoff.MULTIPLES)}), frozenset({bakeoff.VALUES})}
    first = {cell.run_key for cell in by_name["bakeoff"].cells if cell.run.seed == bench.seeds[0]}
    assert {cell.run_key for cell in by_name["speed"].cells} <= first  # nothing is trained twice
    assert set(bench.edges()) == set(bakeoff.COMPARED)
    trained = set()
    for plan in plans:
        if plan.name != "confirm":
            trained |= {cell.run_key for cell in plan.cells}
    assert len({cell.run_key for cell in by_name["confirm"].cells} - trained) == 2 * 3 * 2


def test_a_bake_off_of_rates_alone_leaves_every_second_setting_as_it_is(
    bakeoff: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"dti": {"0.01": 0.5, "0.04": 0.7, "0.16": 0.6}, "ti": {"0.005": 0.9, "0.02": 0.6}}
    monkeypatch.setattr(bakeoff.Bakeoff, "search", lambda _: found)
    bench = bakeoff.Bakeoff(tmp_path, rates_only=True)
    assert bench.settings == {
        "dti": {"name": "dti", "learning_rate": 0.04},
        "ti": {"name": "ti", "learning_rate": 0.005},
    }
    assert bench.edges() == {"dti": [], "ti": ["learning_rate"]}


def test_a_method_of_free_vectors_is_searched_in_the_units_of_the_variant(bakeoff: Any) -> None:
    at_one, at_gain = bakeoff.own_rates("mini"), bakeoff.own_rates("mini:gain=64", ["dti", "ti"])
    assert at_one.keys() == set(bakeoff.COMPARED)
    assert at_gain == {"dti": at_one["dti"], "ti": pytest.approx(64 * at_one["ti"])}
    with pytest.raises(SystemExit, match="--rates-only for mini:gain=64"):
        bakeoff.Bakeoff(Path(), model="mini:gain=64")
    with pytest.raises(SystemExit, match="Give both to --methods"):
        bakeoff.Bakeoff(Path(), methods=["ti"])


def test_a_preset_that_the_search_finds_again_is_not_tested_twice(
    bakeoff: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = {"name": "dti", "learning_rate": 0.01, "kappa": 0.01}
    monkeypatch.setattr(bakeoff.Bakeoff, "run", lambda _, plan: plan)
    of_rates = {"name": "dti", "learning_rate": 0.01}  # κ is the method's own
    for dti, again in ((tuned, False), (tuned | {"kappa": 0.1}, True), (of_rates, True)):
        bench = bakeoff.Bakeoff(tmp_path)
        bench.settings = {"dti": dti}
        assert ("dti-tuned" in {cell.label for cell in bench.bakeoff().cells}) == again


def test_the_quickest_changes_of_dti_are_tried_on_other_concepts(
    bakeoff: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {name: {"0.5": 0.6, "1": 0.7, "2": 0.6} for name in bakeoff.COMPARED}
    monkeypatch.setattr(bakeoff.Bakeoff, "search", lambda _: rates)
    bench = bakeoff.Bakeoff(tmp_path, rates_only=True)
    plans = {}

    def run(plan: Plan) -> Plan:
        plans[plan.name] = plan
        return plan

    def collected(plan: Plan) -> Namespace:
        """TI ends at 0.5. Momentum and stratified times get there soonest."""
        courses = []
        for cell in plan.cells:
            soon = "momentum" in cell.label or "stratified" in cell.label
            for step in (50, 400):
                score = 0.5 if soon or step == 400 else 0.1
                point = Namespace(label=cell.label, subject="dog", seed=0, step=step)
                courses.append(Namespace(**vars(point), subject_score=score, text_score=score))
        return Namespace(courses=courses, costs=[])

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(bench, "_collected", collected)
    bench.quicker()
    tried, tested = plans["quick"].cells, plans["quicker"].cells
    assert {len(cell.subjects) for cell in tried} == {4}
    assert {cell.label for cell in tested} == {
        *("ti", "dti", "dti, momentum 0.9"),
        *("dti, stratified", "dti, 4 times the rate, stratified"),
    }
    for cell in (*tried, *tested):
        assert cell.run.data.stratified == cell.label.endswith("stratified")
        assert cell.evaluation.checkpoints == (50, 100, 200, 300)
    assert len({cell.run_key for cell in tried}) == len(tried) == 2 + 9 + len(bakeoff.SPREAD)


def test_a_training_that_two_cells_share_costs_once_and_a_halted_one_as_much_as_its_like(
    bakeoff: Any, tmp_path: Path
) -> None:
    def cell(key: str, run: str, evaluation: str, training: float, painting: float) -> Namespace:
        save_result(tmp_path / "cells" / key / "cost.json", Cost(training, painting, 0))
        return Namespace(key=key, run_key=run, evaluation=evaluation, subjects=("dog", "cat"))

    cells = [
        cell("a", "1", "once", 100, 10),
        cell("b", "1", "twice", 100, 20),
        cell("c", "2", "once", 9999, 10),  # halted
        cell("d", "3", "once", 100, 10),
    ]
    assert bakeoff.core_hours(cells, tmp_path) * 3600 == pytest.approx(3 * 100 + 3 * 10 + 20)


def test_norm_is_held_against_text_within_each_concept(bakeoff: Any) -> None:
    courses = []
    for subject, base in (("easy", 0.9), ("hard", 0.3)):
        # The easy concept, which is ahead in text, has the longer token at the end.
        for step, norm in ((100, 1.0), (200, 2.0), (400, base + 2)):
            course = Namespace(
                label="ti",
                subject=subject,
                step=step,
                inflation=norm,
                subject_score=0.5,
                text_score=base - norm / 10,
            )
            courses.append(course)
    sweep = Namespace(courses=courses)
    assert bakeoff.norm_against_text(sweep) < -0.9
    assert "| ti | 200 | 2.00 | 0.500 | 0.400 |" in bakeoff.courses_table(sweep)


def test_a_table_of_checks_ends_with_what_true_pictures_give(bakeoff: Any) -> None:
    def row(method: str, check: str, share: float, ceiling: float | None = 0.98) -> CheckSummary:
        return CheckSummary(method, check, 10, Interval(share, None, None, 1, 1), ceiling)

    rows = [row("dti", "both", 0.4), row("dti", "order", 1.0), row("ti", "both", 0.3, None)]
    assert bakeoff.checks_table(Namespace(checks=rows)).splitlines() == [
        "| check holds | both | order |",
        "| --- | --- | --- |",
        "| dti | 0.400 | 1.000 |",
        "| ti | 0.300 | – |",
        "| true pictures | 0.980 | 0.980 |",
    ]


@pytest.mark.slow
def test_the_documented_estimates_are_those_of_the_benchmark() -> None:
    memory = script("memory")
    text = (Path(__file__).parents[1] / "docs" / "memory.md").read_text(encoding="utf-8")
    for line in memory.published_table(memory.published_rows("sd15")).splitlines():
        assert line in text


@pytest.mark.slow
def test_the_estimate_of_memory_is_within_15_percent_of_what_an_update_uses(tmp_path: Path) -> None:
    rows = script("memory").compared(tmp_path, "sd15", 2)
    assert [row["memory"] for row in rows] == ["fast", "low"]
    assert all(0.85 < row["ratio"] < 1.15 for row in rows), rows


def test_widened_pictures_have_the_picture_itself_in_their_middle(tmp_path: Path) -> None:
    crops = script("crops")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    wide = np.asarray(Image.open(crops.widened(tmp_path, tmp_path / "wide") / "0.png"))
    assert wide.shape == (64, 64 + 2 * crops.MARGIN, 3)
    assert np.array_equal(wide[:, crops.MARGIN : -crops.MARGIN], pixels)


def test_crops_are_compared_picture_by_picture() -> None:
    crops = script("crops")
    images = []
    for method in crops.METHODS:
        for number, (fixed, random) in enumerate([(0.5, 0.4), (0.7, 0.4)]):
            for way, score in (("fixed", fixed), ("random", random)):
                images.append(
                    Namespace(
                        method=f"{way}-{method}",
                        subject="fox",
                        prompt=f"a {{}} {number}",
                        seed=0,
                        subject_score=score,
                        text_score=1.0,
                    )
                )
    found = crops.summary(images)
    assert found["means"]["fixed-ti"] == pytest.approx({"subject": 0.6, "text": 1.0})
    less = found["random less fixed"]["dti"]
    assert less["pictures"] == 2
    assert less["subject"] == pytest.approx({"mean": -0.2, "error": 0.1})
    assert less["text"] == {"mean": 0, "error": 0}


# --- Effects ---


@pytest.fixture(scope="module")
def effects() -> Any:
    return script("effects")


@pytest.fixture(scope="module")
def painter(effects: Any) -> Any:
    return effects.open_painter()


def cell_and_tokens(effects: Any, painter: Any, inflation: float = 8.0) -> tuple[Any, Any]:
    """Return a cell, and a TI token of that inflation beside a DTI token, both along its word."""
    cell = effects.cells([0])[0]
    tower = painter.towers[0]
    (row,) = tower.vocabulary.rows(cell.concept.initialiser)
    mean = effects.geometry.summarize_norms(tower.token_table.float()).mean
    along = mean * effects.geometry.normalize(tower.token_table[row].float())
    tokens = {f"ti/{cell.concept.name}/0": inflation * along, f"dti/{cell.concept.name}/0": along}
    return cell, tokens


def test_the_encoder_gets_the_inputs_of_the_four_cells(effects: Any, painter: Any) -> None:
    """The row and the position that is added to it make e + p, e + p/k, k(e + p) and ke + p."""
    cell, tokens = cell_and_tokens(effects, painter)
    own, _ = effects.places(painter, cell)
    rows = effects.rows(painter, cell, tokens)
    e, inputs = tokens[f"dti/{cell.concept.name}/0"], {n: row + own for n, row in rows.items()}
    torch.testing.assert_close(inputs["TI, neither"], e + own)
    torch.testing.assert_close(inputs["TI, I"], e + own / 8)
    torch.testing.assert_close(inputs["DTI, II"], 8 * e + 8 * own)
    torch.testing.assert_close(inputs["DTI, both"], 8 * e + own)
    assert tuple(rows) == effects.VARIANTS
    # TI's token as it was trained, in every prompt.
    trained = tokens[f"ti/{cell.concept.name}/0"]
    torch.testing.assert_close(rows["TI, both"], trained.expand_as(own))


def test_positions_are_those_where_the_thing_and_the_other_thing_stand(
    effects: Any, painter: Any
) -> None:
    cell, _ = cell_and_tokens(effects, painter)
    own, others = effects.places(painter, cell)
    # The first prompt begins with the thing, the third with the other one.
    assert "a photo of a {} to the left of" in cell.prompts[0]
    assert torch.equal(own[0], others[2])
    assert not torch.equal(own[0], others[0])
    assert torch.equal(own[effects.PAIRS :], others[effects.PAIRS :])


def test_words_are_painted_for_the_first_seed_alone(effects: Any, painter: Any) -> None:
    cell, tokens = cell_and_tokens(effects, painter)
    later = effects.Cell(cell.concept, 1)
    renamed = {name.replace("/0", "/1"): vector for name, vector in tokens.items()}
    rows = effects.rows(painter, later, renamed)
    assert tuple(rows) == tuple(n for n in effects.VARIANTS if not n.startswith("word"))


def test_painted_cells_are_kept_and_the_denoiser_computes_in_half_precision(
    effects: Any, painter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, tokens = cell_and_tokens(effects, painter)
    dtypes = []
    hook = painter.pipeline.unet.conv_in.register_forward_pre_hook(
        lambda _module, args: dtypes.append(args[0].dtype)
    )
    with hook:
        painter.generate(["a photo of a fox"], [0], steps=1)
    assert dtypes == [torch.bfloat16]
    assert painter.pipeline.text_encoder.dtype == torch.float32
    monkeypatch.setattr(effects, "open_painter", lambda: painter)
    monkeypatch.setattr(effects, "learned", lambda work, seeds: tokens)
    monkeypatch.setattr(effects, "cells", lambda seeds: [cell])
    painted: list[int] = []

    def paint(_model: Any, prompts: list[str], _seed: int) -> torch.Tensor:
        painted.append(len(prompts))
        return torch.zeros(len(prompts), 3, 64, 64)

    monkeypatch.setattr(effects, "paint_prompts", paint)
    effects.paint_all(tmp_path, [0], 0, 1)
    assert painted == [effects.PAIRS, effects.ALONE] * len(effects.VARIANTS)
    effects.paint_all(tmp_path, [0], 0, 1)
    assert len(painted) == 2 * len(effects.VARIANTS)
    found = effects.score_cell(effects.shipped_scorer(), cell, effects.pictures_of(tmp_path, cell))
    assert set(found) == set(effects.VARIANTS)
    assert {len(found["TI, I"][check]) for check in effects.CHECKS} == {effects.PAIRS}


def scored_cells(effects: Any) -> Any:
    """Return cells where Effect I takes the thing away in two pairs of four, and II does nothing.

    Where the thing is gone it has no side.
    """

    def found(spoiled: bool) -> dict[str, list[Any]]:
        there = [True, True, False, False] if spoiled else [True] * 4
        order = [True, False, None, None] if spoiled else [True, False, True, True]
        return {"presence": there, "both": there, "order": order, "object": [True], "likeness": [1]}

    variants = {
        name: found(name.endswith((", I", ", both")) and name != "DTI, both")
        for name in effects.VARIANTS
    }
    return dict.fromkeys(effects.cells([0, 1]), variants)


def test_effects_and_interaction_are_told_apart(effects: Any) -> None:
    tests = effects.tested(scored_cells(effects))
    one, two, mixed = (
        tests[f"TI: {name}"]["presence"] for name in ("Effect I", "Effect II", "interaction")
    )
    assert (one["mean"], two["mean"], mixed["mean"]) == (-0.5, 0, 0)
    assert (one["subjects"], one["low"], one["high"]) == (12, -0.5, -0.5)
    # Of DTI only I alone spoils anything: the interaction takes it back.
    assert tests["DTI: Effect I"]["presence"]["mean"] == -0.25
    assert tests["DTI: interaction"]["presence"]["mean"] == 0.5
    assert tests["DTI − TI, as trained"]["both"]["mean"] == 0.5


def test_order_is_compared_where_the_thing_is_there_in_every_cell(effects: Any) -> None:
    tests = effects.tested(scored_cells(effects))
    # Two pairs of four count in each of 12 concepts and 2 runs, and in those nothing differs.
    order = tests["TI: Effect I"]["order"]
    assert (order["mean"], order["values"]) == (0, 2 * 12 * 2)
    shares = effects.shares(scored_cells(effects))
    assert (shares["TI, I"]["order"]["mean"], shares["TI, neither"]["order"]["mean"]) == (0.5, 0.75)


def test_all_tests_of_the_effects_are_one_family(effects: Any) -> None:
    """One contrast differs in every concept, by more or less; the largest p is that of nothing."""
    scored = scored_cells(effects)
    found: dict[Any, Any] = {}
    for number, cell in enumerate(scored):
        found[cell] = {name: dict(checks) for name, checks in scored[cell].items()}
        if number % 3 == 0:
            found[cell]["TI, I"]["presence"] = [True] * 4
    values = effects.differences(found, effects.contrasts()["TI: Effect I"], "presence")
    _, alone = effects.bootstrap_test(values)
    tests = effects.tested(found)
    smallest = len(effects.contrasts()) * len(effects.CHECKS)
    corrected = tests["TI: Effect I"]["presence"]["p, Holm"]
    assert 5 * alone < corrected <= smallest * alone
    assert tests["DTI: Effect II"]["order"]["p, Holm"] == 1


def test_the_arms_of_the_adapters_benchmark_are_ten_and_a_try_is_a_part_of_them() -> None:
    adapters = script("adapters")
    whole = adapters.plan()
    assert len(whole.cells) == 10 * 12 * 3
    (cell,) = adapters.plan(concepts=1, seeds=1, steps=5, arms=["both + dco"]).cells
    assert (cell.label, cell.run.steps, cell.run.checkpoint_every) == ("both + dco", 5, 5)
    assert cell.run.adapter is not None
    assert cell.run.objective.names == ("dco",)


def test_trained_tokens_are_explained_by_method_and_compared_by_concept(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from dti_geom.models import open_encoders

    (encoder,) = open_encoders("mini")
    table = torch.nn.functional.normalize(encoder.token_table.float(), dim=1)
    drawn = torch.randn(2, table.shape[1], generator=torch.Generator().manual_seed(0))
    tokens = {f"ti/{name}/0": table[200 + at] + table[210 + at] for at, name in enumerate("ab")}
    tokens |= {f"dti/{name}/0": vector for name, vector in zip("ab", drawn, strict=True)}
    save_file(tokens, tmp_path / "tokens.safetensors")
    found = script("explain").trained(encoder, tmp_path / "tokens.safetensors")
    assert found["explained"]["ti"] == found["of"] == 2
    assert found["share"]["ti"] == pytest.approx(1)
    difference = found["dti less ti"]
    assert difference["mean"] == pytest.approx(found["share"]["dti"] - 1)
    assert (difference["subjects"], difference["values"]) == (2, 2)
