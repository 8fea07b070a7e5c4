"""Everything the README shows is run, and prints what the README says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from PIL import Image

import warm
from prose import assert_shown, share
from scripts import script

ROOT = Path(__file__).parents[1]
# The README and the pages that it was too long for.
PAGES = ("README.md", "docs/training.md", "docs/findings.md", "docs/commands.md")
README = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
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
    "dtype: bfloat16": "dtype: float32",  # many processors emulate bfloat16
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
def test_a_command_prints_what_the_readme_shows(command: str, expected: str) -> None:
    env = os.environ | {"NO_COLOR": "1", "COLUMNS": "80"}
    done = warm.run(*shlex.split(command)[1:], env=env)
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout) == lines(expected)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "expected"), PYTHON)
def test_a_snippet_prints_what_the_readme_shows(code: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert lines(done.stdout) == lines(expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_dti_geom_line_runs_in_its_order_on_stand_ins(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sd15_folder: Path,
    sdxl_pipeline: Path,
) -> None:
    """Stand-ins: tiny weights of the same layout, made-up files, and a processor for the GPU."""
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
        words = [stand_ins.get(word, word) for word in arguments] + more
        assert not app(words, standalone_mode=False), line  # an exit code
        assert capsys.readouterr().out.strip(), line


def test_the_sweep_has_as_many_cells_as_its_first_line_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import yaml

    from dti_geom.sweeps import plan_of

    monkeypatch.chdir(ROOT)
    (text,) = YAML
    assert f"= {len(plan_of(yaml.safe_load(text), 'methods').cells)} cells" in text


def test_every_other_line_and_every_make_named_in_passing_is_a_target_of_the_makefile() -> None:
    targets = re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE)
    others = [line for line in SHELL if line and not line.startswith("dti-geom ")]
    assert all(line.startswith("make ") for line in others)
    said = [*others, *re.findall(r"`([^`\n]*)`", README + CONTRIBUTING)]
    named = {match[1] for line in said if (match := re.match(r"make ([\w-]+)", line))}
    assert {"demo", "test", "check"} <= named <= set(targets)


def test_contributing_lists_the_checks_that_make_check_runs() -> None:
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    commands = [line.removeprefix("\t$(BIN)/") for line in recipe[1].splitlines()]
    section = CONTRIBUTING.split("## The four checks")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE) == commands


def test_the_tree_in_contributing_is_that_of_the_project() -> None:
    (tree,) = re.findall(r"```\n(dti_geom/ .*?)```", CONTRIBUTING, re.DOTALL)
    shown: set[str] = set()
    above: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above[depth:] = [line.split()[0]]
        shown.add("".join(above))
    assert not [path for path in shown if not (ROOT / path).exists()]
    packages = (ROOT / "dti_geom").rglob("__init__.py")
    assert {f"{path.parent.relative_to(ROOT)}/" for path in packages} <= shown


def test_there_is_something_to_run_and_every_command_is_listed() -> None:
    from dti_geom_cli.main import COMMANDS

    assert CONSOLE
    assert PYTHON
    for commands in COMMANDS.values():
        for command in commands:
            assert f"| `dti-geom {command.__name__}" in README


def test_files_that_are_linked_exist() -> None:
    pages = [*(ROOT / page for page in PAGES), ROOT / "CONTRIBUTING.md"]
    for page in [*pages, *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"\]\(((?!https?:)[\w./-]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / name).exists(), f"{page.name}: {name}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_the_files_and_registries_one_adds_to_are_where_it_says() -> None:
    section = README.split("## Changing it")[1].split("## Limits")[0]
    files = re.findall(r"`([\w/]+\.py)`", section)
    assert len(files) >= 10
    for file in files:
        place = ROOT / "dti_geom" / file
        # NAME.py stands for a new file in a folder that exists.
        assert (place.parent if place.stem == "NAME" else place).exists(), file


def claim(name: str) -> str:
    """Return the row of the README's table of findings that starts with a name."""
    rows = [line for line in README.splitlines() if line.startswith(f"| {name}")]
    assert len(rows) == 1, name
    return rows[0]


def test_the_effects_it_names_are_those_of_the_published_report() -> None:
    published = json.loads((ROOT / "reports" / "effects" / "result.json").read_text())
    variants, contrasts = published["variants"], published["contrasts"]
    shown = {"TI": "TI, both", "rescaled": "TI, neither", "DTI": "DTI, neither"}
    found = {
        check: [share(variants[name][check]["mean"]) for name in shown.values()]
        for check in ("order", "both", "likeness")
    }
    inflation = f"{median(published['inflation'].values()):.0f} times"
    inflates, follows = claim("TI inflates"), claim("DTI follows prompts better")
    assert_shown(inflates, inflation, *found["order"], *found["likeness"][:2])
    assert_shown(follows, found["both"][0], found["both"][2])
    assert_shown(follows, found["likeness"][0], found["likeness"][2])
    more = contrasts["DTI − TI, as trained"]["both"]
    assert_shown(follows, *(share(more[end]).replace("-0", "−") for end in ("mean", "low", "high")))
    # What the words say of them.
    assert more["low"] < 0 < more["mean"]
    assert contrasts["TI rescaled − TI"]["likeness"]["high"] < 0


def test_the_tables_of_the_effects_are_those_of_their_result() -> None:
    folder = ROOT / "reports" / "effects"
    published, text = (
        json.loads((folder / "result.json").read_text()),
        (folder / "README.md").read_text(),
    )
    for name, checks in (published["variants"] | published["contrasts"]).items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
        for figures in checks.values():
            interval = f"{figures['mean']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}]"
            assert interval in row, (name, interval)


def test_the_papers_scores_are_those_that_compare_shows() -> None:
    from dti_geom.evaluation.reference import PUBLISHED

    scores = {row.method: row for row in PUBLISHED if (row.table, row.model) == ("main", "sdxl")}
    for method in ("ti", "dti"):
        for score in (scores[method].text, scores[method].subject):
            assert score is not None
            assert_shown(claim("DTI follows prompts better"), share(score))


def test_the_papers_other_figures_are_those_that_its_code_prints() -> None:
    """Position classifier at norm 4, first-layer entropies, norms of a TI token over the means."""
    assert_shown(claim("B: "), ".309", ".076", f"{4 / 0.3870:.1f} times", f"{4 / 0.4515:.1f} times")
    assert_shown(claim("D: "), ".369", ".532")
    assert_shown(claim("TI inflates"), f"{1.84 / 0.3870:.1f}", f"{2.67 / 0.4515:.1f}")


@pytest.fixture(scope="module")
def encoders() -> list[Any]:
    from dti_geom.models import open_encoders

    return open_encoders("mini", dtype=torch.float32)


def test_the_swaps_it_counts_are_those_of_the_probe(encoders: list[Any]) -> None:
    from dti_geom.probes.swap import measure_swap

    sums = measure_swap(encoders[0]).sums
    (wins,) = {(one.wins.right, one.wins.total) for one in sums}
    ratios = [pair.ratio for pair in sums]
    in_all = f"{wins[0]} of {wins[1]}"
    assert_shown(claim("A: "), in_all, f"{min(ratios):.1f}", f"{max(ratios):.0f}")


def test_the_kinds_of_neighbours_it_counts_are_those_of_the_benchmark(encoders: list[Any]) -> None:
    found = script("kinds").measure(encoders[0])
    for among in ("all rows", "content words"):
        same = [share(found[among][metric]["all"]) for metric in ("cosine", "euclidean")]
        assert_shown(claim("A: "), *same)
    # What the words say of them: a difference among all rows, none shown among words.
    assert found["all rows"]["cosine less euclidean"]["low"] > 0
    assert found["content words"]["cosine less euclidean"]["p"] > 0.05


def test_the_slopes_and_the_accuracy_it_names_are_those_of_the_probe(encoders: list[Any]) -> None:
    from dti_geom.probes.attenuation import measure_attenuation

    measured = measure_attenuation(encoders[0])
    slopes: tuple[Any, Any] = (measured.share_slope, measured.distance_slope)
    four, eight = (next(row for row in measured.scales if row.scale == scale) for scale in (4, 8))
    read = [four.accuracy, eight.accuracy, eight.accuracy_by_position[0]]
    assert_shown(claim("B: "), *map(share, read), *(f"−{abs(slope):.3f}" for slope in slopes))


def test_the_turns_it_names_are_those_of_the_probe(encoders: list[Any]) -> None:
    from math import degrees

    from dti_geom.probes.stagnation import measure_stagnation

    scales = measure_stagnation(encoders[0]).scales
    turn = {row.scale: f"{degrees(row.branches[-1].angle):.0f}°" for row in scales}
    assert_shown(claim("C: "), turn[1], turn[32], turn[512], turn[8192])


def test_the_attention_it_names_is_that_of_the_probe(encoders: list[Any]) -> None:
    from dti_geom.probes.attention import measure_attention

    words = measure_attention(encoders[0]).curves[0]
    first = min(head.layer for head in words.heads)
    heads = [head for head in words.heads if head.layer == first]
    entropies = []
    for scale in (1.0, 32.0):
        at = words.scales.index(scale)
        entropies.append(f"{sum(head.entropy[at] for head in heads) / len(heads):.2f}")
    final = next(row for row in words.sensitivity if row.layer == 0)
    places = [words.scales.index(scale) for scale in (1.0, 32.0)]
    sensitivity = [share(final.centred[at]) for at in places]
    variance = [f"{100 * final.share[at]:.1f} %" for at in places]
    assert_shown(claim("D: "), *entropies, *sensitivity, *variance)


def test_crossinit_starts_as_many_times_longer_than_a_word_as_it_says() -> None:
    from dti_geom.models.catalog import known_concepts
    from dti_geom.models.pipelines import open_text_to_image
    from dti_geom.training import METHODS, ConceptConfig
    from dti_geom.training.starts import start_of, vocabulary_stats

    model = open_text_to_image("mini", dtype=torch.float32)
    mean = vocabulary_stats(model.towers[0]).norms.mean
    for init in {concept.init for concept in known_concepts().values()}:
        concept = ConceptConfig("<x>", "nowhere", init)
        start = start_of(model, 0, concept, METHODS["crossinit"], 0)
        times = f"{float(start.vectors.norm()) / mean:.0f} times"
        assert f"{times} as long as a word" in README
        assert f"{times} the mean norm" in (ROOT / "docs" / "settings.md").read_text()


def test_the_attention_of_learned_tokens_is_that_of_the_published_report() -> None:
    report = json.loads((ROOT / "reports" / "mini" / "results" / "attention.json").read_text())
    (encoder,) = report["result"]["encoders"]
    shown = []
    for curve in encoder["curves"]:
        if curve["token"] in ("<ti>", "<dti>"):
            at = curve["scales"].index(curve["inflation"])  # the norm it was learned at
            first = min(head["layer"] for head in curve["heads"])
            heads = [head["entropy"][at] for head in curve["heads"] if head["layer"] == first]
            shown.append(share(sum(heads) / len(heads)))
            (block,) = (row for row in curve["sensitivity"] if row["layer"] == first)
            shown.append(share(block["values"][at]))
    assert len(shown) == 4
    assert_shown(claim("D: "), *shown)
