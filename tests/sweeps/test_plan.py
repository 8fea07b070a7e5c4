import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dti_geom.errors import SweepError, TrainingError
from dti_geom.files import from_json, to_json
from dti_geom.mini import concepts
from dti_geom.mini.concepts import load_concepts
from dti_geom.sweeps import plan_of, read_plan
from dti_geom.sweeps.plan import Plan
from dti_geom.training import AdapterConfig, MethodConfig
from dti_geom.training.data import located

LEAST = {"concepts": ["green-fox"], "methods": ["dti"]}


def labels(**changes: Any) -> list[str]:
    return [cell.label for cell in plan_of(LEAST | changes, "x").cells]


def test_every_concept_meets_every_method_and_setting_for_each_seed() -> None:
    plan = plan_of(
        {
            "concepts": ["green-fox", ["flat-owl", "spotted-car"]],
            "methods": ["dti", {"name": "ti", "learning_rate": [0.01, 0.02]}],
            "seeds": [3, 5],
            "settings": {"batch_size": [2, 4]},
        },
        "x",
    )
    assert len(plan.cells) == 2 * 3 * 2 * 2
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)
    assert [cell.run.seed for cell in plan.cells] == [3] * 12 + [
        5
    ] * 12  # a stopped sweep has whole seeds
    assert {cell.subjects for cell in plan.cells} == {("green-fox",), ("flat-owl", "spotted-car")}


def test_a_label_tells_what_is_varied_and_nothing_else() -> None:
    assert labels(
        methods=[{"name": "dti", "kappa": [0, 1e-4], "learning_rate": [0.04], "schedule": "cosine"}]
    ) == [
        "dti kappa=0",
        "dti kappa=0.0001",
    ]
    assert labels(methods=[{"name": "ti", "label": "theirs"}], settings={"steps": [5, 9]}) == [
        "theirs steps=5",
        "theirs steps=9",
    ]
    assert labels(settings=[{"steps": 5}, {"batch_size": 2, "flip": True}]) == [
        "dti steps=5",
        "dti batch_size=2 flip=True",
    ]


def test_settings_reach_the_run_its_data_and_its_method() -> None:
    (cell,) = plan_of(
        LEAST
        | {
            "methods": [
                {"name": "dti", "learning_rate": "1e-2", "magnitude": 0.4}
            ],  # YAML reads 1e-2 as text
            "train": {"steps": 7, "dtype": "bfloat16", "crops": 2},
            "evaluate": {"seeds": 3},
        },
        "x",
    ).cells
    assert cell.run.method == MethodConfig("dti", learning_rate=0.01, magnitude="0.4")
    assert (cell.run.steps, cell.run.dtype, cell.run.data.crops, cell.run.preview.every) == (
        7,
        "bfloat16",
        2,
        0,
    )
    assert (cell.evaluation.seeds, cell.evaluation.baselines) == (3, False)


def test_a_method_may_ask_for_its_baselines() -> None:
    first, second = plan_of(
        LEAST | {"methods": ["dti", {"name": "ti", "baselines": True}]}, "x"
    ).cells
    assert (first.evaluation.baselines, second.evaluation.baselines) == (False, True)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"methdos": []}, "no key 'methdos'. Did you mean 'methods'?"),
        ({"evaluate": {"seed": 1}}, "evaluate: no key 'seed'. Did you mean 'seeds'?"),
        ({"evaluate": {"seeds": "four"}}, "evaluate.seeds is 'four'; expected int."),
        (
            {"evaluate": {"checkpoints": [150]}},
            "checkpoints are 150; a run has one every 100 updates",
        ),
        (
            {"methods": [{"name": "dti", "learningrate": 1}]},
            "methods: no key 'learningrate'. Did you mean",
        ),
        (
            {"methods": [{"name": "dti", "beta": "much"}]},
            "methods: beta is 'much'; expected float.",
        ),
        ({"methods": ["dti", "dti"]}, "2 are called 'dti'"),
        ({"methods": ["ti", {"name": "ti", "label": "b"}]}, "'ti' and 'b' are the same training"),
        ({"concepts": ["gren-fox"]}, "no concept called 'gren-fox'. Did you mean 'green-fox'?"),
        ({"concepts": [{"init": "dog"}]}, "concepts lacks images."),
        ({"concepts": []}, "there is nothing to do"),
        ({"train": {"method": "ti"}}, "train: no key 'method'."),
        ({"settings": {"stepz": [1]}}, "settings: no key 'stepz'. Did you mean 'steps'?"),
        ({"settings": [{"stepz": 1}]}, "settings: no key 'stepz'. Did you mean 'steps'?"),
        ({"seeds": [True]}, "seeds[0] is True; expected int."),
        ({"seeds": [0, 1, 0]}, "two cells are equal: dti, seed 0, green-fox."),
        ({"concepts": ["green-fox", "green-fox"]}, "two cells are equal: dti, seed 0, green-fox."),
        ({"settings": {"steps": [5, 5]}}, "two cells are equal: dti steps=5, seed 0"),
        ({"settings": {"steps": []}}, "a list of values is empty"),
        ({"methods": [{"name": "dti", "kappa": []}]}, "a list of values is empty"),
        ({"evaluate": {"seeds": 10**9}}, "seeds is 1000000000; expected 1 to 1000."),
    ],
)
def test_a_mistake_is_named_with_the_nearest_right_word(
    wrong: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SweepError) as error:
        plan_of(LEAST | wrong, "x")
    assert expected in str(error.value)


def test_a_grid_of_millions_is_counted_and_not_built() -> None:
    rates = [number / 2e5 for number in range(1, 1001)]
    wide = {"name": "dti", "learning_rate": rates, "kappa": rates, "momentum": rates}
    seeds = list(range(300))
    for changes, count in (
        ({"methods": [wide]}, 1000**3),
        ({"seeds": seeds, "settings": {"steps": list(range(1, 401))}}, 300 * 400),
    ):
        with pytest.raises(SweepError, match=f"these are {count} cells; expected at most 20000"):
            plan_of(LEAST | changes, "x")


@pytest.mark.parametrize(
    "changes", [{"crops": 10**9}, {"batch_size": 10**9}, {"accumulate": 10**9}]
)
def test_settings_that_no_memory_holds_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(TrainingError, match="is 1000000000; expected 1 to 1"):
        plan_of(LEAST | {"train": changes}, "x")


def test_the_files_of_the_shipped_concepts_are_listed_once_for_all_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Path] = []
    real = load_concepts

    def counted(folder: Path) -> Any:
        calls.append(folder)
        return real(folder)

    monkeypatch.setattr("dti_geom.mini.concepts.load_concepts", counted)
    concepts._bundled.cache_clear()
    plan = plan_of(LEAST | {"seeds": list(range(40))}, "x")
    assert len({cell.key for cell in plan.cells}) == 40
    assert len(calls) == 1


def test_what_no_run_could_do_is_refused_before_any_starts() -> None:
    with pytest.raises(TrainingError, match="kappa has no effect on method 'ti'"):
        plan_of(LEAST | {"methods": [{"name": "ti", "kappa": 1e-3}]}, "x")
    with pytest.raises(TrainingError, match="no method called 'tti'"):
        plan_of(LEAST | {"methods": ["tti"]}, "x")
    with pytest.raises(TrainingError, match="is not a folder"):
        plan_of(LEAST | {"concepts": [{"images": "nowhere", "init": "dog"}]}, "x")


def test_a_file_is_named_in_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("concepts: [green-fox]\nmethods: [dtii]\n")
    with pytest.raises(SweepError, match=r"mine\.yaml: no method called 'dtii'"):
        read_plan(path)
    path.write_text("concepts: [\n")
    with pytest.raises(SweepError, match=r"mine\.yaml is not a readable YAML file"):
        read_plan(path)
    path.write_text("!!python/object/apply:os.system ['true']\n")
    with pytest.raises(SweepError, match="could not determine a constructor"):
        read_plan(path)


def test_a_plan_survives_its_file() -> None:
    plan = plan_of(LEAST | {"evaluate": {"checkpoints": [100]}}, "x")
    again = from_json(Plan, to_json(plan))
    assert again == plan
    assert [cell.key for cell in again.cells] == [cell.key for cell in plan.cells]


def test_an_address_follows_what_decides_the_result_and_not_where_it_lies(tmp_path: Path) -> None:
    def address(folder: str, colour: str, **changes: Any) -> tuple[str, str]:
        (tmp_path / folder / "dog").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(tmp_path / folder / "dog" / "0.png")
        concepts = [{"images": str(tmp_path / folder / "dog"), "init": "dog"}]
        (cell,) = plan_of(LEAST | {"concepts": concepts} | changes, "x").cells
        return cell.run_key, cell.key

    first = address("a", "red")
    assert address("b", "red") == first
    assert address("b", "red", methods=[{"name": "dti", "label": "another name"}]) == first
    assert address("c", "blue")[0] != first[0]
    assert address("a", "red", train={"steps": 9})[0] != first[0]
    run, cell = address("a", "red", evaluate={"seeds": 9})
    assert run == first[0]  # the training is shared
    assert cell != first[1]


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(TrainingError, match="holds no image"):
        plan_of(LEAST | {"concepts": [{"images": str(tmp_path), "init": "dog"}]}, "x")


def test_a_shipped_concept_is_found_wherever_the_package_lies() -> None:
    (cell,) = plan_of(LEAST, "x").cells
    assert cell.run.concepts[0].images == "green-fox"
    assert Path(located(cell.run).concepts[0].images).is_dir()


def test_another_format_of_scores_leaves_trainings_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (before,) = plan_of(LEAST, "x").cells
    addresses = before.run_key, before.key
    monkeypatch.setattr("dti_geom.sweeps.plan.CELL_FORMAT", 99)
    (after,) = plan_of(LEAST, "x").cells
    assert after.run_key == addresses[0]
    assert after.key != addresses[1]


def test_a_method_brings_its_adapter_and_its_objectives() -> None:
    adapter = {"kind": "oft", "block_size": 2, "learning_rate": "1e-3"}
    content = LEAST | {
        "methods": [
            "dti",
            {"name": "fixed", "label": "oft", "adapter": adapter},
            {"name": "dti", "label": "both", "adapter": {}, "objective": {"names": ["dco"]}},
        ]
    }
    alone, oft, both = plan_of(content, "x").cells
    assert alone.run.adapter is None
    assert oft.run.adapter == AdapterConfig("oft", block_size=2, learning_rate=1e-3)
    assert both.run.adapter == AdapterConfig()
    assert both.run.objective.names == ("dco",)
    assert len({cell.run_key for cell in (alone, oft, both)}) == 3
    with pytest.raises(SweepError, match="adapter"):
        plan_of(LEAST | {"methods": [{"name": "dti", "adapter": {"size": 4}}]}, "x")
