"""The calls that people guess, on the embedded model."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import dti_geom as dti
from dti_geom.api import Model, _own_options
from dti_geom.errors import DtiGeomError, UnknownToken, WrongArgument
from dti_geom.files import dumps
from dti_geom.models import open_encoders
from dti_geom.probes import PROBES, measure, measure_model
from dti_geom.probes.neighbors import find_neighbors
from dti_geom.result import Result
from dti_geom.training.story import TrainingRun
from example_results import (
    evaluation_result,
    interpolation_result,
    similarity_result,
    sweep_result,
)

DOCS = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
GUESSES = re.findall(r"^\| `(m\.[^\n]*|run\.[^\n]*)` \| `(\w+)` \|$", DOCS, re.MULTILINE)


@pytest.fixture(scope="module")
def m() -> Model:
    return dti.open("mini")


@pytest.fixture(scope="module")
def run() -> TrainingRun:
    return dti.train("mini", images="green-fox", method="dti", steps=1, preview_every=0)


def test_there_are_twelve_guesses() -> None:
    assert len(GUESSES) == 12


@pytest.mark.parametrize(("guess", "kind"), GUESSES)
def test_a_guess_gives_what_the_page_says(
    m: Model, run: TrainingRun, guess: str, kind: str
) -> None:
    scope: dict[str, Any] = {"m": m, "run": run}
    if kind == "AttributeError":
        with pytest.raises(AttributeError, match="Did you mean"):
            eval(guess, scope)  # noqa: S307
        return
    value = eval(guess, scope)  # noqa: S307
    assert type(value).__name__ == kind
    assert value is not None


def test_every_probe_is_a_method_with_the_options_of_its_registration(m: Model) -> None:
    assert set(PROBES) <= set(dir(m))
    for probe in PROBES.values():
        assert probe.question in (getattr(m, probe.name).__doc__ or "")
        for option in probe.options:
            if option.name != "tokens" and option.companion is None:
                assert _own_options(probe, {option.name: option.default})


def test_a_method_measures_what_the_command_prints(m: Model) -> None:
    expected = measure_model(PROBES["norms"], "mini", open_encoders("mini"))
    assert json.loads(m.norms().to_json()) == json.loads(dumps(expected))


def test_a_word_its_row_and_its_vector_are_the_same_token(m: Model) -> None:
    (row,) = m.encoders[0].vocabulary.rows("fox")
    placed = [m.norms(token).learned[0].norm for token in ("fox", f"#{row}", m.vector("fox"))]
    assert placed == pytest.approx([float(m.encoders[0].token_table[row].float().norm())] * 3)
    found = m.neighbors({"<long>": 10 * m.vector("fox")}, k=1).queries[0]
    assert (found.query, found.cosine[0].token) == ("<long>", "fox")
    assert m.neighbors("fox", k=1).queries[0].cosine[0].token != "fox"


def test_a_run_its_folder_and_its_file_are_the_same_token(m: Model, run: TrainingRun) -> None:
    file = Path(run.folder) / "learned_embeds.safetensors"
    norms = [m.norms(token).learned[0].norm for token in (run, run.folder, Path(run.folder), file)]
    assert norms == [float(run.vector.norm())] * 4


def test_a_temporary_run_goes_with_its_result() -> None:
    short = dti.train(images="green-fox", method="dti", steps=1, preview_every=0)
    folder = Path(short.folder)
    assert folder.is_dir()
    del short
    assert not folder.exists()


def test_every_result_prints_as_one_line(m: Model, run: TrainingRun) -> None:
    encoder = m.encoders[0]
    neighbors = m.neighbors("fox")
    objects = [m, encoder, encoder.vocabulary, neighbors, neighbors[0], run, *run.learned]
    objects += [neighbors.queries[0], m.text_to_image]
    for shown in objects:
        line = repr(shown)
        assert "\n" not in line
        assert 20 < len(line) < 220
        assert " object at " not in line
    assert neighbors.queries[0]._repr_html_()


def test_find_neighbors_takes_a_word(m: Model) -> None:
    encoder = m.encoders[0]
    assert find_neighbors(encoder, "fox") == measure(encoder, "neighbors", tokens="fox").queries


def test_fields_of_several_encoders_are_not_guessed(sdxl_folder: Path) -> None:
    norms = dti.open(sdxl_folder).norms()
    assert [result.dim for result in norms] == [32, 48]
    with pytest.raises(AttributeError, match="2 results"):
        _ = norms.longest


def test_a_table_has_the_rows_of_its_result(m: Model) -> None:
    norms = m.norms()
    assert list(norms.table("longest").iloc[:, 0]) == [row.token for row in norms.longest]
    with pytest.raises(DtiGeomError, match="There are: 0 "):
        norms.table("no such title")
    with pytest.raises(DtiGeomError, match="There are: 0 "):
        norms.figure(99)


def test_a_table_without_pandas_says_what_to_install(
    m: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DtiGeomError, match=r"pip install 'dti-geom\[pandas\]'"):
        m.norms().table()


@pytest.mark.parametrize(
    "result",
    [
        evaluation_result(("dti", "ti")),
        interpolation_result(("<a>", "<b>")),
        sweep_result(),
        similarity_result(("<a>", "<b>", "<c>")),
    ],
    ids=lambda result: type(result).__name__,
)
def test_results_of_commands_show_themselves_as_those_of_probes_do(result: Result) -> None:
    line = repr(result)
    assert "\n" not in line
    assert 20 < len(line) < 220
    assert result.figure().data
    assert len(result.table())
    assert json.loads(result.to_json())
    assert result._repr_html_()


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda m: m.neighbors(3), "int 3"),
        (lambda m: m.norms(torch.ones(2, 2, 2)), r"shape \(2, 2, 2\)"),
        (lambda m: m.neighbors("fox", n=3), "'n'"),
        (lambda m: dti.open(cast("Any", 3)), "int 3"),
        (lambda m: dti.open("mini", dtype="int8"), "'int8'"),
        (lambda m: dti.train(m, images=cast("Any", [1])), "list"),
        (lambda m: m.train(images="green-fox", stepz=3), "Did you mean 'steps'"),
        (lambda m: m.generate("a fox", "fox"), "shows no token"),
        (lambda m: m.generate("a {}"), "no token was given"),
    ],
)
def test_a_wrong_argument_is_named(m: Model, call: Any, found: str) -> None:
    with pytest.raises(WrongArgument, match=found):
        call(m)


def test_a_missing_file_is_no_word(m: Model) -> None:
    with pytest.raises(DtiGeomError, match="does not exist"):
        m.norms("runs/missing")
    with pytest.raises(UnknownToken, match="one was expected"):
        m.vector("foxglovesque")


def test_the_names_are_listed_before_anything_is_loaded() -> None:
    code = "import dti_geom, sys; print(*dir(dti_geom), 'torch' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert {"open", "train", "read_run", "False"} <= set(printed.stdout.split())
