"""Everything the README shows is run, and prints what the README says."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from dti_geom.files import load_result
from dti_geom.sweeps.sweep import Sweep

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CONSOLE = re.findall(r"```console\n\$ (dti-geom [^\n]*)\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
YAML = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
SHELL = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]

# The same for the sweep's file.
SHORTER_SWEEP = {
    "seeds: [0, 1, 2]": "seeds: [0]",
    "steps: 400": "steps: 2",
    "{seeds: 4}": "{seeds: 1, steps: 1}",
}

# What makes a line of the README short enough for a test; nothing it says is taken away.
SHORTER = {
    "train": ["--steps", "3", "--preview-every", "3", "--preview-steps", "2", "--resolution", "64"],
    "generate --embedding": ["--steps", "2"],
    "interpolate": ["--steps", "2", "--points", "3"],
    "evaluate": ["--steps", "1", "--seeds", "1"],
}


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("command", "expected"), CONSOLE, ids=[command for command, _ in CONSOLE])
def test_a_command_prints_what_the_readme_shows(command, expected):
    arguments = [sys.executable, "-m", "dti_geom_cli", *shlex.split(command)[1:]]
    env = os.environ | {"NO_COLOR": "1", "COLUMNS": "80"}
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=True, timeout=120, env=env
    )
    assert lines(done.stdout) == lines(expected)


@pytest.mark.parametrize(("code", "expected"), PYTHON)
def test_a_snippet_prints_what_the_readme_shows(code, expected):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert lines(done.stdout) == lines(expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_dti_geom_line_runs_in_its_order_on_stand_ins(
    tmp_path, monkeypatch, capsys, sd15_folder, sdxl_pipeline
):
    """Weights nobody has here are tiny ones of the same layout; files are a reader's own; the card is a processor."""
    from dti_geom_cli.main import app

    torch.save({"<mine>": torch.ones(32)}, tmp_path / "my-token.safetensors")
    (tmp_path / "embeddings").mkdir()
    torch.save({"<mine>": torch.ones(32)}, tmp_path / "embeddings" / "mine.bin")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64), (40, 90, 20)).save(tmp_path / "photos" / "dog.jpg")
    (sweep,) = YAML
    for long, short in SHORTER_SWEEP.items():
        assert long in sweep
        sweep = sweep.replace(long, short)
    (tmp_path / "methods.yaml").write_text(sweep)
    (tmp_path / "dti_geom").symlink_to(ROOT / "dti_geom")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    stand_ins = {"sd15": str(sd15_folder), "sdxl": str(sdxl_pipeline), "cuda": "cpu"}
    ours = [
        line for line in SHELL if line.startswith("dti-geom ") and "--engine ray" not in line
    ]  # needs a cluster
    assert len(ours) > 10
    for line in ours:
        arguments = [os.path.expanduser(word) for word in shlex.split(line, comments=True)[1:]]
        extra = [
            more
            for start, more in SHORTER.items()
            if line.removeprefix("dti-geom ").startswith(start)
        ]
        more = extra[0] if extra and "--resume" not in arguments else []
        capsys.readouterr()
        app([stand_ins.get(word, word) for word in arguments] + more, standalone_mode=False)
        assert capsys.readouterr().out.strip(), line


def test_the_sweep_has_as_many_cells_as_its_first_line_says(monkeypatch):
    import yaml

    from dti_geom.sweeps import plan_of

    monkeypatch.chdir(ROOT)
    (text,) = YAML
    assert f"= {len(plan_of(yaml.safe_load(text), 'methods').cells)} cells" in text


def test_every_other_line_and_every_make_named_in_passing_is_a_target_of_the_makefile():
    targets = re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE)
    others = [line for line in SHELL if line and not line.startswith("dti-geom ")]
    assert all(line.startswith("make ") for line in others)
    said = [*others, *re.findall(r"`([^`\n]*)`", README + CONTRIBUTING)]
    named = {match[1] for line in said if (match := re.match(r"make ([\w-]+)", line))}
    assert {"demo", "test", "check"} <= named <= set(targets)


def test_contributing_lists_the_checks_that_make_check_runs():
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    commands = [line.removeprefix("\t$(BIN)/") for line in recipe[1].splitlines()]
    assert re.findall(r"^\| `([^`]+)` \|", CONTRIBUTING, re.MULTILINE) == commands


def test_there_is_something_to_run_and_every_command_is_listed():
    from dti_geom_cli.main import COMMANDS

    assert CONSOLE
    assert PYTHON
    for commands in COMMANDS.values():
        for command in commands:
            assert f"| `dti-geom {command.__name__}" in README


def test_files_that_are_linked_exist():
    for name in re.findall(r"\]\(([\w./-]+)", README + CONTRIBUTING):
        assert (ROOT / name).exists(), name


def test_the_tables_one_adds_to_are_where_it_says():
    section = README.split("## Changing it")[1].split("## Limits")[0]
    source = "\n".join(path.read_text() for path in (ROOT / "dti_geom").rglob("*.py"))
    names = re.findall(r"`([A-Z][A-Z_]{3,})`", section)
    assert len(names) >= 8
    for name in names:
        assert re.search(rf"^{name}\b.* = ", source, re.MULTILINE), name
    for file in re.findall(r"`([\w/]+\.py)`", section):
        assert [
            *(ROOT / "dti_geom").rglob(Path(file).name),
            *(ROOT / "cli").glob(Path(file).name),
        ], file


def test_the_methods_are_those_there_are_at_their_own_rates():
    from dti_geom.models.pipelines import PIPELINES, family_of
    from dti_geom.training import METHODS

    rows = dict(re.findall(r"^\| `([\w-]+)` \| [^|]* \| ([^|]*) \|$", README, re.MULTILINE))
    rates = {name: family_of(name).direction_rate for name in PIPELINES}
    assert rates.pop("SanaPipeline") == 0.01
    assert set(rates.values()) == {0.04}
    assert rows == {
        name: "0.04 rad (SANA 0.01)"
        if method.learning_rate is None
        else f"{method.learning_rate:g}"
        for name, method in METHODS.items()
    }
    assert "prior κ = 1e-4" in README
    assert METHODS["dti"].kappa == 1e-4
    assert f"drawn toward {METHODS['norm-decay'].magnitude} |" in README


def test_the_samplers_are_those_of_the_adapters():
    from dti_geom.models.catalog import profile_of
    from dti_geom.models.pipelines import PIPELINES, family_of

    mini = profile_of("mini")
    families = {name: family_of(name) for name in PIPELINES}
    told = {name: f"in {one.sampling_steps} at {one.guidance:g}" for name, one in families.items()}
    sd15 = families["StableDiffusionPipeline"]
    assert (
        f"Stable Diffusion in {sd15.sampling_steps} steps at guidance {sd15.guidance:g}, "
        f"SDXL {told['StableDiffusionXLPipeline']}, SANA {told['SanaPipeline']}, "
        f"`mini` in {mini.sampling_steps} at {mini.guidance:g}." in " ".join(README.split())
    )


def test_mini_paints_as_many_things_as_it_says():
    from dti_geom.mini.domain import BACKGROUNDS, THINGS

    assert f"paints {len(THINGS)} things on\n{len(BACKGROUNDS)} backgrounds" in README


def test_the_effects_it_names_are_those_of_the_published_report():
    published = json.loads((ROOT / "reports" / "effects" / "result.json").read_text())["variants"]
    order, both = (
        {name: f"{100 * row[what]['share']:.1f} %" for name, row in published.items()}
        for what in ("order", "both")
    )
    assert (
        f"{order['TI']} (TI), {order['TI at the mean norm']} (rescaled), {order['DTI']} (DTI)"
        in README
    )
    assert f"TI {published['TI']['norm over mean']:.0f} times the mean norm" in README
    assert f"both things of a pair right in {both['TI']} (TI), {both['DTI']} (DTI)" in README
    likeness = {
        name: f"{row['similarity']:.3f}".removeprefix("0") for name, row in published.items()
    }
    assert f"subject {likeness['TI']} (TI), {likeness['DTI']} (DTI) |" in README


def test_the_papers_scores_are_those_that_compare_shows():
    from dti_geom.evaluation.reference import REFERENCES

    main = {one.method: one for one in REFERENCES if (one.table, one.model) == ("main", "sdxl")}
    text, subject = (
        [f"{getattr(main[name], what):.3f}".removeprefix("0") for name in ("ti", "dti")]
        for what in ("text", "subject")
    )
    assert (
        "SDXL: text {} (TI), {} (DTI); subject {} (TI), {} (DTI)".format(*text, *subject) in README
    )


def test_the_other_figures_of_its_code_are_those_that_it_prints():
    """Position classifier at scale 4, first-layer entropies, and the norms of its TI token over its towers' means."""
    assert ".309 (CLIP ViT-L) and .076 (bigG)" in README
    assert "entropy of the first layer's row: .369 for a TI token, .532 for a DTI token" in README
    assert (
        f"a TI token of SDXL: {1.84 / 0.3870:.1f} and {2.67 / 0.4515:.1f} times its towers' mean norms"
        in README
    )


@pytest.fixture(scope="module")
def encoders():
    from dti_geom.models import open_encoders

    return open_encoders("mini", dtype=torch.float32)


def test_the_swaps_it_counts_are_those_of_the_probe(encoders):
    from dti_geom.probes.swap import measure_swap

    sums = measure_swap(encoders[0]).sums
    (wins,) = {(one.wins.right, one.wins.total) for one in sums}
    ratios = [one.ratio for one in sums]
    told = f"in {wins[0]} of {wins[1]} pairs, at norms {min(ratios):.1f} to {max(ratios):.0f} times apart"
    assert told in README


def test_the_slopes_and_the_accuracy_it_names_are_those_of_the_probe(encoders):
    from dti_geom.probes.attenuation import measure_attenuation

    measured = measure_attenuation(encoders[0])
    slopes = (measured.share_slope, measured.distance_slope)
    assert (
        "slopes −{:.3f} (variance) and −{:.3f} (distance)".format(*(abs(slope) for slope in slopes))
        in README
    )
    accuracy = next(one.accuracy for one in measured.scales if one.scale == 4)
    assert f"holds: {accuracy:.3f} at 4 times the mean norm".replace("0.", ".") in README


def test_the_turns_it_names_are_those_of_the_probe(encoders):
    from math import degrees

    from dti_geom.probes.stagnation import measure_stagnation

    scales = measure_stagnation(encoders[0]).scales
    turn = {passage.scale: f"{degrees(passage.branches[-1].angle):.0f}°" for passage in scales}
    told = f"turn {turn[1]} at the mean norm, {turn[32]} at 32 times, {turn[512]} at 512 times, {turn[8192]} at 8192 times"
    assert told in README


def test_the_attention_it_names_is_that_of_the_probe(encoders):
    from dti_geom.probes.attention import measure_attention
    from dti_geom.reporting.sections.attention import layer_rows

    words = measure_attention(encoders[0]).curves[0]
    entropies = [f"{layer_rows(words, scale)[0][3]:.2f}" for scale in (1.0, 32.0)]
    assert "entropy {} → {} nats from the mean norm to 32 times".format(*entropies) in README
    final = next(one.values for one in words.sensitivity if one.layer == 0)
    sensitivity = [
        f"{final[words.scales.index(scale)]:.3f}".removeprefix("0") for scale in (1.0, 32.0)
    ]
    assert "final state's context sensitivity {} → {} |".format(*sensitivity) in README


BAKE_OFF = ROOT / "reports" / "bakeoff"
READING = " ".join((BAKE_OFF / "README.md").read_text(encoding="utf-8").split())
FOUND = json.loads((BAKE_OFF / "result.json").read_text(encoding="utf-8"))


def bake_off(stage):
    return load_result(BAKE_OFF / f"{stage}.json", Sweep)


def scores_of(stage):
    """Subject and text of each method over all prompts, as the reading writes them."""
    return {
        one.method: (f"{one.subject.mean:.3f}", f"{one.text.mean:.3f}")
        for one in bake_off(stage).summaries
        if one.group == "all"
    }


def test_the_bake_offs_reading_is_that_of_its_results():
    scores = scores_of("bakeoff")
    text = {name: text for name, (_, text) in scores.items()}
    assert (
        f"DTI {text['dti']}, TI {text['ti']}, TI at the mean norm {text['ti-rescaled']}, "
        f"CrossInit {text['crossinit']}, the class word {text['class word']}"
    ) in READING
    assert (
        f"DTI {scores['dti'][0]}, TI {scores['ti'][0]}, category-norm {scores['category-norm'][0]}; no method"
        in READING
    )
    rows = {row["method"]: row for row in FOUND["bakeoff, dti less"]}
    assert len(rows) == 9
    for method, form in (
        ("ti", "DTI less TI is {:+.3f}, better on 11 of 12 concepts (p = {:.3f})"),
        ("crossinit", "DTI less CrossInit is {:+.3f} (p = {:.3f})"),
        ("ti-rescaled", "TI at the mean norm included ({:+.3f}, p = {:.3f})"),
    ):
        assert form.format(rows[method]["text"], rows[method]["text p, Holm"]) in READING
    assert rows["ti"]["text better on"] == 11
    assert {method for method, row in rows.items() if row["text p, Holm"] < 0.05} == {
        "ti",
        "crossinit",
    }
    assert all(row["subject p, Holm"] >= 0.05 for row in rows.values())
    held = [
        float(text[name]) for name in text if name not in ("dti", "ti", "crossinit", "class word")
    ]
    assert float(text["ti"]) < min(held) <= max(held) < float(text["dti"])
    counts = {
        one.method: f"{one.text.mean:.3f}"
        for one in bake_off("bakeoff").summaries
        if one.group == "count"
    }
    assert f"DTI is behind TI ({counts['dti']}, {counts['ti']})" in READING
    by_prompt = FOUND["bakeoff, counting"]["dti"]
    assert {prompt for prompt, text in by_prompt.items() if text < 1} == {
        "a photo of two {} on the grass"
    }
    assert f"All of it is {FOUND['core hours']:.1f} core-hours" in READING
    outermost = {
        name
        for name, merit in FOUND["search"].items()
        if max(merit, key=merit.get) in (min(merit, key=float), max(merit, key=float))
    }
    assert outermost == {"norm-decay"}


def test_the_bake_offs_reading_of_norms_is_that_of_its_checkpoints():
    assert (
        f"ρ = {FOUND['bakeoff, norm against text']:.2f} over all runs, {FOUND['norms, norm against text']:.2f} with"
    ) in READING
    held = defaultdict(list)
    for one in bake_off("norms").courses:
        held[one.label, one.step].append((one.inflation, one.subject_score, one.text_score))
    means = {
        key: [sum(each) / len(each) for each in zip(*values, strict=True)]
        for key, values in held.items()
    }
    (norm, subject, text), (last_norm, _, last_text) = means["ti", 100], means["ti", 400]
    assert (
        f"from {text:.3f} to {last_text:.3f} while its norm grows from {norm:.1f} to {last_norm:.1f} times"
        in READING
    )
    for form, at in (
        (f"(subject {subject:.3f}, text {text:.3f})", ("ti", 100)),
        ("DTI not ({1:.3f}, {2:.3f})", ("dti", 100)),
        ("TI stopped at 200 updates ({1:.3f}, {2:.3f})", ("ti", 200)),
        ("DTI at 400 ({1:.3f}, {2:.3f})", ("dti", 400)),
    ):
        assert form.format(*means[at]) in READING


def test_what_lies_beyond_the_paper_is_that_of_its_stages():
    merit = FOUND["beyond"]
    assert f"{len(merit) - 1} changes were tried" in READING
    best = sorted(merit, key=lambda name: -merit[name])[:3]
    assert best == ["momentum 0.9, twice the mean", "magnitude twice the mean", "momentum 0.9"]
    told = [f"{merit[name]:.3f}" for name in (*best, "as it is")]
    assert (
        "momentum 0.9 with twice the mean norm ({}), twice the mean norm ({}) and momentum ({}) were best; as it is, "
        "{}. A"
    ).format(*told) in READING
    adam = max(value for name, value in merit.items() if name.startswith("Adam"))
    assert (
        f"cosine schedule ({merit['cosine']:.3f}) and the average ({merit['average of the last 100']:.3f}) gained "
        f"nothing; Adam ({adam:.3f} at its best rate)"
    ) in READING
    scores = scores_of("winner")
    texts = [scores[f"dti, {name}"][1] for name in best]
    assert (
        f"text {', '.join(texts)} against {scores['dti'][1]}, no difference significant" in READING
    )
    assert all(
        row["text p, Holm"] >= 0.05 <= row["subject p, Holm"] for row in FOUND["winner, dti less"]
    )


def test_the_tuned_preset_is_the_setting_that_was_confirmed():
    from dti_geom.models.pipelines.stable_diffusion import StableDiffusion
    from dti_geom.training import METHODS

    preset, dti = METHODS["dti-tuned"], METHODS["dti"]
    assert FOUND["settings"]["dti"] == {
        "name": "dti",
        "learning_rate": preset.learning_rate,
        "kappa": preset.kappa,
    }
    assert (preset.form, preset.optimizer, preset.magnitude) == (
        dti.form,
        dti.optimizer,
        dti.magnitude,
    )
    assert "a quarter of `mini`'s default rate and a hundred times the paper's κ" in READING
    assert StableDiffusion.direction_rate / preset.learning_rate == pytest.approx(4)
    assert preset.kappa / dti.kappa == pytest.approx(100)
    scores, (row,) = scores_of("confirm"), FOUND["confirm, dti less"]
    assert (
        f"text {scores['dti'][1]} against {scores['dti as published'][1]} as published, {row['text']:+.3f}, better on "
        f"{row['text better on']} of 12 concepts (p = {row['text p, Holm']:.3f}), at the same likeness "
        f"({scores['dti'][0]}, {scores['dti as published'][0]})"
    ) in READING
