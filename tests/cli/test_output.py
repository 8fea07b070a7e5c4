"""What commands print is aligned, fits, and cannot steer the terminal."""

import io
import json
import os
import pty
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

import warm
from dti_geom.reporting.renderers.terminal import visible
from dti_geom.sweeps import plan_of
from dti_geom.sweeps.engines import Outcome
from dti_geom_cli import output, progress
from warm import Run

WIDE = "<" + "深層学習の東京" * 6 + ">"  # 86 cells
LONG = (
    "a-file-whose-name-says-everything-about-how-it-was-trained-and-then-some-more-" * 2
    + "深層学習.bin"
)
Printed = Callable[..., list[str]]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """What a function prints on a terminal of 80 columns, line by line."""
    monkeypatch.setattr(output, "_out", Console(highlight=False, width=80))

    def printed(call: Callable[..., object], *arguments: object, **options: object) -> list[str]:
        capsys.readouterr()
        call(*arguments, **options)
        return capsys.readouterr().out.splitlines()

    return printed


def too_long(lines: list[str]) -> list[str]:
    """Lines beyond 80 cells, save a path or a command's word that stands alone."""
    return [line for line in lines if cell_len(line) > 80 and " " in line.strip()]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with awkward embeddings of mini, and two short runs."""
    from dti_geom_cli.main import app

    folder = tmp_path_factory.mktemp("files")
    (folder / "learned").mkdir()
    generator = torch.Generator().manual_seed(0)
    torch.save({WIDE: torch.randn(2, 256, generator=generator)}, folder / "learned" / LONG)
    torch.save(
        {"<a>": torch.randn(256, generator=generator) / 40}, folder / "learned" / "a-step-500.bin"
    )
    (folder / "photos").mkdir()
    Image.new("RGB", (64, 64), (40, 90, 20)).save(folder / "photos" / "one.png")
    (folder / "methods.yaml").write_text(
        "model: mini\nconcepts: [round-teapot, green-fox]\n"
        "methods: [dti, std-retraction]\nseeds: [0, 1]\n"
    )
    before = os.getcwd()
    os.chdir(folder)
    try:
        for method in ("dti", "ti"):
            short = f"--method {method} --steps 2 --preview-every 0 --out runs/{method}"
            app(shlex.split(f"train --images photos --init fox {short}"), standalone_mode=False)
    finally:
        os.chdir(before)
    return folder


COMMANDS = [
    "models",
    "concepts",
    "norms -e learned",
    f"neighbors fox '{WIDE}' -e learned",
    "angles learned --init fox",
    "swap -e learned --count 4 --images 1",
    "attenuation -e learned",
    "stagnation -e learned",
    "attention -e learned",
    "effects -e learned",
    "explain fox --words 3",
    "harden fox --words 1 --starts 1 --updates 1",
    "shape",
    "map -e learned",
    "similarity learned",
    f"edit 'learned/{LONG}' --average --out edited",
    f"translate 'learned/{LONG}' --target mini:gain=8 --out translated",
    "inspect learned",
    "inspect learned --model mini",
    "convert learned --to webui --rescale mean --model mini --out converted",
    f"merge '0.7*{WIDE} + 0.3*fox' -e 'learned/{LONG}' --out merged",
    "inflation --learning-rate 5e-3 --steps 400 --init fox",
    "train --images photos --init fox --steps 2 --preview-every 0 --out trained",
    "report -e learned --run runs/dti --out report",
    "generate -e runs/dti --prompt 'a photo of a {}' --steps 1 --out pictures",
    "interpolate '<p>' '<q>' -e '<p>=runs/dti' -e '<q>=runs/ti' --steps 1 --points 3 --out between",
    "evaluate runs/dti runs/ti --baselines --seeds 1 --steps 1 --out evaluation",
    "compare evaluation --out comparison",  # of the line above
    "sweep methods.yaml --dry-run",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda command: " ".join(command.split()[:2]).replace("/", " ")
)
def test_what_a_command_prints_fits_80_columns(
    command: str, files: Path, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dti_geom_cli.main import app

    monkeypatch.chdir(files)
    lines = printed(app, shlex.split(command), standalone_mode=False)
    assert any(lines)
    assert not too_long(lines)
    assert not any(line.endswith(" ") for line in lines)


def test_every_command_that_prints_is_among_them() -> None:
    from dti_geom_cli.main import COMMANDS as KNOWN

    # mini cannot answer ask; schema prints JSON, whose lines are as long as they are
    named = {command.split()[0] for command in COMMANDS} | {"ask", "schema"}
    assert {command.__name__ for group in KNOWN.values() for command in group} == named


@pytest.mark.parametrize("command", [[], ["train"], ["interpolate"]])
def test_help_fits_80_columns(run: Run, command: str) -> None:
    lines = run(*command, "--help").stdout.splitlines()
    assert max(map(cell_len, lines)) <= 80


def on_a_terminal(*arguments: object, **environment: str) -> str:
    """What a command writes to a terminal, both streams."""
    ours, theirs = pty.openpty()
    env = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")
    }
    env |= {"TERM": "xterm-256color", "COLUMNS": "80"} | environment
    # A real start: whether the output is a terminal is asked when the command line is imported.
    with warm.Command(
        *arguments, stdout=theirs, stderr=theirs, env=env, interpreter=True
    ) as command:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            written += part
        command.wait()
    os.close(ours)
    return written.decode()


RED = "\x1b[31m"


def test_colour_is_for_terminals_and_for_those_who_want_it(run: Run) -> None:
    wrong = ("norms", "--model", "sd1.5")
    assert RED in on_a_terminal(*wrong)
    assert RED not in on_a_terminal(*wrong, NO_COLOR="1")
    assert "\x1b" not in run(*wrong, NO_COLOR="", TERM="xterm-256color").stderr


def test_json_is_pure_on_a_terminal_too() -> None:
    assert json.loads(on_a_terminal("models", "--json", NO_COLOR="1"))


STEERING = "\x9b31m\u202egnp\x7f\u2066\x1b[2J\u2028"


def test_json_has_the_value_of_what_would_steer_a_terminal_and_not_its_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = {STEERING: [f"<é深{STEERING}>", -1.5, "\U0001f600\U000e0041"]}
    output.print_json(result)
    text = capsys.readouterr().out
    assert all(line.isprintable() for line in text.splitlines())
    assert "é深" in text
    assert json.loads(text) == result


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_json_has_the_same_value_in_any_encoding(encoding: str) -> None:
    text = json.dumps({"×": "<é深\U0001f600>"}, ensure_ascii=False)
    escaped = output.escaped_json(text, encoding)
    assert json.loads(escaped.encode(encoding).decode(encoding)) == json.loads(text)


NO_UNICODE = [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["norms", "norms --json", "inspect files", "--help"])
@pytest.mark.parametrize("variables", NO_UNICODE, ids=["ascii", "C"])
def test_commands_work_where_the_output_has_no_unicode(
    command: str, variables: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    torch.save({"<深×>": torch.ones(256)}, tmp_path / "files" / "é.bin")
    done = warm.run(*command.split(), cwd=tmp_path, env=os.environ | variables, interpreter=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    if "norms" in command:
        assert " x1.38" in done.stdout or json.loads(done.stdout)


def test_without_unicode_columns_stay_aligned_and_other_characters_are_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    output.accept_any_text(stream)
    stream.write("× ÷ – … 深 \udc80")
    stream.flush()
    assert raw.getvalue() == rb"x / - . \u6df1 \udc80"


@pytest.mark.parametrize("label", ["x[/nope]", "[red]x", "\x1b[2Jx", "[link=x]"])
def test_no_label_or_file_name_ends_or_steers_a_bar(
    label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=120)
    for module in (output, progress):
        monkeypatch.setattr(module, "ERRORS", console)
    (cell,) = plan_of(
        {"concepts": ["green-fox"], "methods": [{"name": "dti", "label": label}]}, "x"
    ).cells
    with progress.cell_progress() as cells:
        cells(None, 0, 2)
        cells(Outcome(cell, "no"), 1, 2)
    with progress.working_progress() as work:
        work(label, 1, 2)
    assert visible(label) in written.getvalue()
    assert "\x1b[2Jx" not in written.getvalue()
