"""The lines in docs/ do what they say."""

import json
import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dti_geom.files.run_layout import learned_name
from dti_geom.geometry.inflation import Walk
from dti_geom.models import open_encoders
from dti_geom.models.pipelines import View, family_of, open_text_to_image
from dti_geom.probes.attention import CONTEXTS, SINK_WORDS
from dti_geom.probes.material import whole_words
from dti_geom.probes.sinks import find_sinks
from dti_geom.training import METHODS, ConceptConfig
from dti_geom.training.inflation import predict_inflation
from dti_geom.training.starts import start_of, vocabulary_stats
from pipelines import FAMILIES, library
from prose import assert_shown, share

DOCS = Path(__file__).parents[1] / "docs"
TRAINING = (DOCS / "training.md").read_text(encoding="utf-8")
SETTINGS = (DOCS / "settings.md").read_text(encoding="utf-8")
LOADING = (DOCS / "loading.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", LOADING, re.DOTALL)
VIEW = View((64, 64), (0, 0), (64, 64))


def block_for(pipeline_class: str) -> str:
    """Return the lines that open a pipeline of this class."""
    blocks: list[str] = [block for block in BLOCKS if f"= {pipeline_class}.from" in block]
    (block,) = blocks
    return block


def run_block(pipeline_class: str, model: Path, run: Path) -> dict[str, Any]:
    """Run those lines with another model and another run. Returns what they define."""
    code = block_for(pipeline_class).replace("runs/dog", str(run))
    scope: dict[str, Any] = {}
    exec(re.sub(r'(from_pretrained)\("[^"]*"\)', rf'\1("{model}")', code), scope)  # noqa: S102
    return scope


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_lines_for_diffusers_encode_prompts_as_training_does(
    pipeline_folder: Callable[[str], Path], tmp_path: Path, name: str, count: int
) -> None:
    folder = pipeline_folder(name)
    model = open_text_to_image(str(folder), dtype=torch.float32)
    vectors = []
    for number, tower in enumerate(model.towers, 1):
        width = tower.token_table.shape[1]
        rows = torch.randn(count, width, generator=torch.Generator().manual_seed(number))
        file = learned_name(number)
        save_file({"<my-dog>": rows}, tmp_path / file)
        vectors.append(rows)
    model.place("<my-dog>", vectors)
    scope = run_block(FAMILIES[name].pipeline_class, folder, tmp_path)
    loaded = type(model)(scope["pipe"], name)
    expected = model.encode_prompts(["a photo of a <my-dog>"], [VIEW])
    found = loaded.encode_prompts([scope["prompt"]], [VIEW])
    assert set(found) == set(expected)
    for part, value in expected.items():
        torch.testing.assert_close(found[part], value)


def test_the_lines_for_sana_keep_every_row_of_a_table_with_spare_rows(
    sana_pipeline: Path, tmp_path: Path
) -> None:
    pipeline = library("diffusers").SanaPipeline.from_pretrained(sana_pipeline)
    rows = len(pipeline.tokenizer) + 8
    pipeline.text_encoder.resize_token_embeddings(rows, mean_resizing=False)
    pipeline.save_pretrained(tmp_path / "wide")
    save_file({"<my-dog>": torch.ones(1, 32)}, tmp_path / "learned_embeds.safetensors")
    loaded = run_block("SanaPipeline", tmp_path / "wide", tmp_path)["pipe"]
    table = loaded.text_encoder.get_input_embeddings().weight
    assert len(table) == rows
    new = loaded.tokenizer.convert_tokens_to_ids("<my-dog>")
    assert torch.equal(table[new], torch.ones(32))
    before = pipeline.text_encoder.get_input_embeddings().weight
    kept = torch.arange(rows) != new
    assert torch.equal(table[kept], before[kept])


def rows_of_settings() -> list[list[str]]:
    """Return the cells of each row of the table in settings.md, its head left out."""
    lines = [line for line in SETTINGS.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_the_tests_that_the_settings_name_exist() -> None:
    there: set[str] = set()
    for path in DOCS.with_name("tests").rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    for row in rows_of_settings():
        named = re.findall(r"`(test_\w+)`", row[-1])
        assert named, row[0]
        assert set(named) <= there, row[0]


@pytest.mark.parametrize(
    ("point", "field"),
    [
        ("rate of `dti`, rad", "direction_rate"),
        ("rate of `ti`, `crossinit`", "vector_rate"),
        ("κ", "kappa"),
        ("AdamW's weight decay", "weight_decay"),
        ("updates", "steps"),
    ],
)
def test_the_settings_show_the_values_of_each_family(point: str, field: str) -> None:
    (row,) = [row for row in rows_of_settings() if row[0] == point]
    for name, cell in zip(("sd15", "sdxl", "sana"), row[1:4], strict=True):
        family = family_of(FAMILIES[name].pipeline_class)
        assert float(cell) == getattr(family.training, field)


def test_a_start_by_cross_initialization_is_as_long_as_the_settings_say() -> None:
    mini = open_text_to_image("mini")
    mean = vocabulary_stats(mini.towers[0]).norms.mean
    for word in ("fox", "teapot"):
        concept = ConceptConfig("<x>", "nowhere", word)
        start = start_of(mini, 0, concept, METHODS["crossinit"], 0)
        assert_shown(SETTINGS, f"{float(start.vectors.norm()) / mean:.0f} times")
        assert_shown(TRAINING, f"{float(start.vectors.norm()) / mean:.0f} times")


def test_the_settings_show_what_fresh_crops_cost_on_mini() -> None:
    path = DOCS.with_name("benchmarks") / "results" / "2026-11-27-crops.json"
    section = " ".join(SETTINGS.split("## Crops")[1].split("\n## ")[0].split())
    for difference in json.loads(path.read_text())["random less fixed"].values():
        for score in ("subject", "text"):
            mean, error = (difference[score][name] for name in ("mean", "error"))
            assert mean < 0
            assert f"{-mean:.3f} ± {error:.3f}" in section
        assert_shown(section, str(difference["pictures"]))


INFLATION = (DOCS / "inflation.md").read_text(encoding="utf-8")


def cells_of_inflation(section: str) -> list[list[str]]:
    """Return the cells of the table in a section of inflation.md, its head left out."""
    text = INFLATION.split(f"## {section}")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_the_predictions_beside_measured_norms_are_those_of_the_law() -> None:
    rows = cells_of_inflation("Beside measured norms")
    assert rows
    for _, width, start, rate, steps, law, slowed, _ in rows:
        walk = Walk(int(width), float(start), float(rate), 0.01)
        assert law == f"{walk.norm(int(steps)):.3g}"
        assert slowed == f"{walk.slowed_norms(int(steps))[-1]:.3g}"


def test_the_predictions_of_one_thing_at_a_time_are_those_of_the_walk() -> None:
    """Norms are means over two words, whose rows the runs held in bfloat16."""
    (encoder,) = open_encoders("mini")
    table = encoder.token_table.bfloat16().float()
    starts = [float(table[encoder.vocabulary.rows(word)[0]].norm()) for word in ("fox", "teapot")]
    rows = cells_of_inflation("One thing at a time")
    assert rows
    for _, rate, decay, width, law, slowed, measured, ratio, *_ in rows:
        walks = [Walk(int(width), start, float(rate), float(decay)) for start in starts]
        assert float(law) == pytest.approx(fmean(walk.norm(400) for walk in walks), rel=0.01)
        ends = [walk.slowed_norms(400)[-1] for walk in walks]
        assert float(slowed) == pytest.approx(fmean(ends), rel=0.01)
        assert float(ratio.split()[0]) == pytest.approx(float(measured) / float(law), abs=0.01)


def test_the_table_of_one_thing_at_a_time_is_that_of_its_result() -> None:
    path = DOCS.with_name("reports") / "inflation" / "law.json"
    runs = [
        run for run in json.loads(path.read_text())["mini"] if run["vectors"] * run["gain"] == 1
    ]
    found: dict[tuple[float, ...], Any] = {
        (run["beta1"], run["rate"], run["weight_decay"], run["coordinates"]): run for run in runs
    }
    rows = cells_of_inflation("One thing at a time")
    assert len(rows) == len(found)
    for *setting, _law, _slowed, measured, ratio, step, agreement, radial in rows:
        run = found[tuple(map(float, setting))]
        mean, low, high = run["measured / law"]
        assert measured == f"{run['measured'][-1]:.3g}"
        assert ratio == f"{mean:.2f} ({low:.2f}–{high:.2f})"
        assert step == f"{run['step']:.2f}"
        assert agreement.replace("−", "-") == f"{run['agreement']:+.2f}"
        assert radial == f"{run['radial']:.3f}"


def test_the_predictions_on_mini_are_those_of_the_command() -> None:
    encoders = open_encoders("mini")
    rows = cells_of_inflation("On `mini`")
    assert rows
    for rate, *cells in rows:
        for steps, cell in zip((100, 200, 300, 400), cells, strict=True):
            (tower,) = predict_inflation(
                "mini", encoders, learning_rate=float(rate), steps=steps, init="fox"
            ).towers
            assert cell.split(" / ")[:2] == [
                f"{norms[-1]:.3g}" for norms in (tower.norms, tower.slowed_norms)
            ]


def test_what_inflation_does_is_what_the_probes_and_the_published_report_measure() -> None:
    from dti_geom.evaluation.reference import PUBLISHED
    from dti_geom.probes.effects import measure_effects
    from dti_geom.probes.stagnation import measure_stagnation

    text = " ".join((DOCS / "what-inflation-does.md").read_text(encoding="utf-8").split())
    (encoder,) = open_encoders("mini", dtype=torch.float32)
    effects = {effect.effect: effect.moved for effect in measure_effects(encoder).groups[0].effects}
    moved = [f"{effects[name].mean:.2f}".removeprefix("0") for name in ("I", "II")]
    added = next(row.added for row in measure_stagnation(encoder).scales if row.scale == 1)
    assert added is not None
    assert_shown(text, f"Effect I moves a word by {moved[0]}", f"Effect II by {moved[1]}")
    assert_shown(text, f"the blocks add {added:.0f} times")
    report = DOCS.parent / "reports" / "effects" / "result.json"
    published = json.loads(report.read_text(encoding="utf-8"))
    variants, contrasts = published["variants"], published["contrasts"]
    shown = [
        variants[name]["order"]["mean"] for name in ("TI, both", "TI, neither", "DTI, neither")
    ]
    shown += [variants[name]["both"]["mean"] for name in ("TI, both", "DTI, neither")]
    shown.append(variants["TI, both"]["likeness"]["mean"])
    lost = contrasts["TI rescaled − TI"]["likeness"]
    shown += [-lost[end] for end in ("mean", "high", "low")]
    scores = {row.method: row for row in PUBLISHED if (row.table, row.model) == ("main", "sdxl")}
    shown += [float(scores[method].text or 0) for method in ("ti", "dti")]
    dial = json.loads((DOCS.parent / "reports" / "dial" / "result.json").read_text())
    at = {row["gain"]: row for row in dial["gains"]}
    shown += [
        at[32]["variants"][name]["likeness"]["mean"] for name in ("TI", "TI at the mean norm")
    ]
    assert_shown(text, *(f"{at[gain]['ratio of a word']:.0f}" for gain in (1, 32, 64)))
    twelve = json.loads((DOCS.parent / "reports" / "dial" / "gain-64.json").read_text())
    (gain,) = twelve["gains"]
    shown += [gain["variants"][name]["both"]["mean"] for name in ("TI", "DTI")]
    more = next(row for row in twelve["differences"] if row["difference"] == "DTI − TI")
    for score in ("both", "text"):
        shown += [more[score][end] for end in ("mean", "low", "high")]
        assert more[score]["p, Holm"] < 0.05
    (raw,) = json.loads((DOCS.parent / "reports" / "dial" / "unnormed.json").read_text())["gains"]
    names = ("TI", "DTI", "TI at the mean norm")
    shown += [raw["variants"][name]["likeness"]["mean"] for name in names]
    schedule = json.loads((DOCS.parent / "reports" / "inflation" / "schedule.json").read_text())
    for arm in ("AdamW, falling", "DTI", "TI"):
        shown += [schedule["variants"][arm][score]["mean"] for score in ("likeness", "text")]
    assert_shown(text, *map(share, shown))
    # What the words say of them: nothing is shown of presence, both things and order.
    tested = (row[check]["p, Holm"] for row in contrasts.values() for check in row)
    assert min(tested) > 0.05


def test_the_page_on_meaning_shows_what_hard_prompts_reach() -> None:
    found = json.loads(
        (DOCS.with_name("benchmarks") / "results" / "2026-11-27-harden.json").read_text()
    )
    text = " ".join((DOCS / "meaning.md").read_text(encoding="utf-8").split())
    for planted in found["planted"]:
        assert_shown(text, f"{planted['found']} of {planted['of']}")
    ti, dti = (found["by method"][method] for method in ("ti", "dti"))
    assert_shown(text, *(f"{100 * method['share']:.1f} %" for method in (ti, dti)))
    shown = [method["likeness"][name] for method in (ti, dti) for name in ("prompt", "token")]
    shown += [ti["likeness"]["class word"]]
    difference = found["share, dti less ti"]
    shown += [-difference["mean"], -difference["low"], difference["high"]]
    assert_shown(text, *map(share, shown))
    assert all(row["shares"]["prompt"] > row["random"] for row in found["tokens"])
    assert len(found["tokens"]) == 24


def test_every_command_in_the_docs_is_one_that_the_app_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    from dti_geom_cli.main import app

    monkeypatch.chdir(tmp_path)
    root: Any = typer.main.get_command(app)
    pages = [*DOCS.glob("*.md"), *(DOCS.parent / "reports").glob("*/README.md")]
    lines: list[str] = []
    for page in pages:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines += re.findall(r"^ *(dti-geom [a-z][^\n`]*)$", text, re.MULTILINE)
    assert len(lines) > 60
    for line in lines:
        if "..." in line or "…" in line:
            continue
        words = shlex.split(line.partition(" >")[0], comments=True)[1:]
        command, name = root, "dti-geom"
        while hasattr(command, "commands"):
            name, *words = words
            assert name in command.commands, line
            command = command.commands[name]
        try:
            command.make_context(name, words)
        except Exception as error:
            raise AssertionError(f"{line}: {error}") from error


def test_docstrings_become_text_whose_marks_stand_for_themselves() -> None:
    conf = runpy.run_path(str(DOCS / "conf.py"))
    lines = [
        "Return |x| of `f(*a)` in degrees_.",
        "",
        "    first line",
        "",
        "    second line",
        "",
        "x: a vector,",
        "    (d,).",
    ]
    conf["plain_text"](None, "function", "f", None, None, lines)
    assert lines[0] == r"Return \|x\| of ``f(*a)`` in degrees\_."
    assert [line for line in lines if "line" in line] == [
        "        first line",
        "        second line",
    ]
    assert lines.count("::") == 1
    assert lines[-3:] == ["| x: a vector,", "| (d,).", ""]


def test_every_page_of_docs_is_in_the_contents() -> None:
    contents = (DOCS / "index.md").read_text(encoding="utf-8").splitlines()
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert pages <= set(contents)


MEANING = (DOCS / "meaning.md").read_text(encoding="utf-8")


def meaning_row(start: str) -> str:
    """Return the only line of meaning.md's tables that starts like this."""
    (row,) = [line for line in MEANING.splitlines() if line.startswith(f"| {start} |")]
    return row


@pytest.mark.parametrize(
    ("library", "method"),
    [
        ("**openTSNE, exact neighbours**", "ours"),
        ("openTSNE alone", "openTSNE"),
        ("UMAP", "umap"),
        ("PaCMAP", "pacmap"),
        ("two principal components", "pca"),
    ],
)
def test_the_map_libraries_have_the_figures_of_the_benchmark(library: str, method: str) -> None:
    results = DOCS.with_name("benchmarks") / "results" / "2026-11-27-map.json"
    layouts = json.loads(results.read_text())["layouts"]
    row = meaning_row(library)
    for layout in layouts:
        if layout["method"] == method:
            assert_shown(row, f"{100 * layout['kept']:.1f} %", f"{layout['mb']:.0f}")
            if layout["placed"] is None:
                assert_shown(row, f"{layout['cpu_seconds']:.0f}")
            else:
                assert_shown(row, f"{100 * layout['placed']:.1f} %")


def test_the_sinks_of_mini_are_those_the_page_on_meaning_shows() -> None:
    (mini,) = open_encoders("mini", dtype=torch.float32)
    sinks = find_sinks(mini, whole_words(mini, 16)[:SINK_WORDS], CONTEXTS, causal=True)
    assert_shown(MEANING, f"{100 * sinks.even_first:.1f} %")
    for layer in sinks.layers:
        figures = (f"{100 * fmean(layer.first):.1f} %", f"{100 * max(layer.first):.1f} %")
        ratio = f"{layer.largest / layer.median:.2f}"
        assert_shown(meaning_row(str(layer.layer)), *figures, f"{layer.largest:.1f}", ratio)
