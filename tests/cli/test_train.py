import json
from pathlib import Path

import pytest
from PIL import Image

from dti_geom.files import load_result, read_embeddings
from dti_geom.training import AdapterConfig, RunConfig
from dti_geom.training.run import TrainingResult
from warm import Run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        Image.new("RGB", (70, 64), (40 * number, 90, 20)).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def tiny(sd15_pipeline: Path, images: Path) -> list[object]:
    return [
        "--model",
        sd15_pipeline,
        "--images",
        images,
        "--init",
        "dog",
        "--steps",
        4,
        "--resolution",
        64,
    ]


def test_a_run_from_the_command_line_ends_with_its_table_and_its_page(
    run: Run, tiny: list[object], tmp_path: Path
) -> None:
    done = run(
        "train", *tiny, "--preview-every", 2, "--preview-steps", 1, "--out", tmp_path / "run"
    )
    assert done.returncode == 0, done.stderr
    assert "dti on" in done.stdout
    assert "angle to start" in done.stdout
    assert done.stdout.strip().endswith("index.html")
    page = (tmp_path / "run" / "index.html").read_text(encoding="utf-8")
    assert "&lt;x&gt;" in page
    assert page.count("data:image/png;base64,") >= 2 * 4
    assert read_embeddings(tmp_path / "run" / "learned_embeds.safetensors").tokens[0].token == "<x>"


def test_json_prints_the_result_and_nothing_else(
    run: Run, tiny: list[object], tmp_path: Path
) -> None:
    done = run(
        "train", *tiny, "--method", "ti", "--preview-every", 0, "--json", "--out", tmp_path / "run"
    )
    assert json.loads(done.stdout)["steps"] == 4
    assert load_result(tmp_path / "run" / "result.json", TrainingResult).config.method.name == "ti"


def test_every_option_reaches_the_configuration(
    run: Run, tiny: list[object], tmp_path: Path
) -> None:
    options = {
        "--token": "<my-dog>",
        "--learning-rate": 0.03,
        "--kappa": 0.001,
        "--magnitude": "median",
        "--start": "mean",
        "--vectors": 2,
        "--momentum": 0.5,
        "--beta": 0.9,
        "--schedule": "cosine",
        "--warmup": 1,
        "--average-last": 2,
        "--batch-size": 1,
        "--accumulate": 2,
        "--min-snr": 5,
        "--crops": 2,
        "--template": "one {}",
        "--preview-every": 0,
        "--preview-prompt": "my {}",
        "--checkpoint-every": 3,
        "--seed": 7,
        "--dtype": "float32",
    }
    done = run(
        "train",
        *tiny,
        *(part for pair in options.items() for part in pair),
        "--flip",
        "--zero-pad",
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    config = load_result(tmp_path / "run" / "config.json", RunConfig)
    (concept,), method, data = config.concepts, config.method, config.data
    assert (concept.token, concept.start, concept.vectors) == ("<my-dog>", "mean", 2)
    assert (method.learning_rate, method.kappa, method.magnitude) == (0.03, 0.001, "median")
    assert (method.momentum, method.beta, method.schedule, method.warmup, method.average_last) == (
        0.5,
        0.9,
        "cosine",
        1,
        2,
    )
    assert (data.crops, data.flip, data.templates) == (2, True, ("one {}",))
    assert data.zero_pad
    assert (config.batch_size, config.accumulate, config.min_snr, config.seed) == (1, 2, 5, 7)
    assert (config.checkpoint_every, config.preview.every, config.preview.prompts) == (
        3,
        0,
        ("my {}",),
    )


def test_options_of_adapter_and_objective_reach_the_configuration_and_the_run_paints(
    run: Run, tiny: list[object], tmp_path: Path
) -> None:
    options = {
        "--adapter": "lora",
        "--rank": 2,
        "--alpha": 6,
        "--targets": "to_q,to_v",
        "--adapter-rate": 0.01,
        "--adapter-decay": 0.1,
        "--adapter-from": 1,
        "--objective": "dco",
        "--dco-beta": 5,
        "--dco-reference": "class-word",
        "--context-weight": 0.3,
        "--preview-every": 0,
    }
    parts = [part for pair in options.items() for part in pair]
    folder = tmp_path / "run"
    done = run("train", *tiny, *parts, "--objective", "context", "--out", folder)
    assert done.returncode == 0, done.stderr
    config = load_result(folder / "config.json", RunConfig)
    assert config.adapter == AdapterConfig(
        rank=2,
        alpha=6.0,
        targets=("to_q", "to_v"),
        learning_rate=0.01,
        weight_decay=0.1,
        from_step=1,
    )
    assert config.objective.names == ("dco", "context")
    assert (config.objective.dco_beta, config.objective.context_weight) == (5, 0.3)
    assert config.objective.dco_reference == "class-word"
    files: dict[str, set[str]] = {}
    for name, more in {
        "whole": [],
        "half": ["--adapter-scale", 0.5],
        "led": ["--reward", 3],
    }.items():
        asked = ["--model", config.model, "-e", folder, "-p", "a {}", "--steps", 1, "--size", 64]
        done = run("generate", *asked, *more, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        files[name] = {path.name for path in (tmp_path / name).glob("*.png")} - {"sheet.png"}
    assert len(set.union(*files.values())) == 3


def test_a_concept_that_ships_is_named_and_two_share_a_run(
    run: Run, tmp_path: Path, images: Path
) -> None:
    done = run(
        "train",
        *(
            "--concept",
            "round-teapot",
            "--concept",
            f"<y>={images}:frog",
            "--steps",
            1,
            "--batch-size",
            1,
        ),
        *("--preview-every", 0, "--out", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    first, second = load_result(tmp_path / "run" / "config.json", RunConfig).concepts
    assert (first.token, first.init) == ("<x>", "teapot")
    assert (second.token, second.images, second.init) == ("<y>", str(images), "frog")


def test_tokens_of_several_concepts_have_their_names(run: Run, tmp_path: Path) -> None:
    done = run(
        *("train", "--concept", "round-teapot", "--concept", "green-fox", "--steps", 1),
        *("--batch-size", 1, "--preview-every", 0, "--out", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    concepts = load_result(tmp_path / "run" / "config.json", RunConfig).concepts
    assert [concept.token for concept in concepts] == ["<round-teapot>", "<green-fox>"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "run"], "nothing to learn: pass --images DIR, or --concept NAME"),
        (["--images", "{images}", "--out", "run"], "--init is missing"),
        (
            ["--concept", "teapots", "--out", "run"],
            "no concept called 'teapots'. Did you mean",
        ),
        (["--concept", "<x>=folder", "--out", "run"], 'expected "<x>=FOLDER:word"'),
        (["--concept", "round-teapot"], "--out is missing"),
        (
            [*("--concept", "round-teapot", "--concept", "green-fox"), "--token=<y>", "--out=run"],
            "--token is of one concept, and 2 are given",
        ),
        (
            ["--concept", "round-teapot", "--method", "dit", "--out", "run"],
            "no method called 'dit'",
        ),
        (
            ["--concept", "round-teapot", "--magnitude", "big", "--out", "run"],
            "'big' is no magnitude",
        ),
        (
            ["--concept", "round-teapot", "--init", "2026", "--out", "run"],
            "'2026' is not made of tokens",
        ),
        (
            ["--concept", "round-teapot", "--token", "fox", "--out", "run"],
            "fox is a word of this model already",
        ),
        (
            ["--concept", "round-teapot", "--learn", "styles", "--out", "run"],
            "learn is 'styles'; expected object or style",
        ),
        (
            ["--concept", "round-teapot", "--learn", "style", "--template", "{{}}", "--out", "run"],
            "--template and --learn",
        ),
        (
            ["--concept", "round-teapot", "--rank", "4", "--out", "run"],
            "rank given, and no adapter",
        ),
        (
            ["--concept", "round-teapot", "--objective", "dco", "--out", "run"],
            "dco has no effect without an adapter",
        ),
        (
            ["--concept", "round-teapot", "--times", "uniform", "--out", "run"],
            "times 'uniform' belongs to flow models",
        ),
        (["--images", "{images}/none", "--init", "fox", "--out", "run"], "is not a folder"),
        (["--resume", "{images}"], "is not the folder of a run"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    run: Run,
    arguments: list[str],
    message: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("train", *(argument.format(images=images) for argument in arguments))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_says_how_to_resume_and_a_resumed_one_takes_no_other_settings(
    run: Run, tiny: list[object], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    done = run("train", *tiny, "--preview-every", 0, "--out", folder)
    assert done.returncode == 0, done.stderr
    refused = run("train", "--resume", folder, "--method", "ti", "--device", "cpu")
    assert refused.returncode == 1
    assert "--method, --device: a resumed run keeps the settings" in refused.stderr
    longer = run("train", "--resume", folder, "--steps", 5, "--json")
    assert json.loads(longer.stdout)["config"]["extended_from"] == [4]


def test_a_dry_run_estimates_and_leaves_nothing(
    run: Run, sd15_pipeline: Path, images: Path, tmp_path: Path
) -> None:
    arguments = ["--model", sd15_pipeline, "--images", images, "--init", "dog"]
    out = tmp_path / "run"
    options = ["--batch-size", 2, "--method", "ti", "--learning-rate", 1]
    done = run("train", *arguments, "--dry-run", "--json", "--out", out, *options)
    assert done.returncode == 0, done.stderr
    assert "--learning-rate 0.0" in done.stderr  # what keeps the norm of ti inside
    estimate = json.loads(done.stdout)
    assert estimate["config"]["batch_size"] == 2
    assert [part["memory"] for part in estimate["memory"]] == ["fast", "low"]
    assert not out.exists()
