from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dti_geom.errors import SweepError
from dti_geom.sweeps import collect, read_finished, run_sweep
from dti_geom.sweeps.engines import Engine, Outcome
from dti_geom.sweeps.plan import Plan
from dti_geom.sweeps.protocol import beside_the_paper, estimate_protocol, paper_plan

CLASSES = "Classes\n\nsubject_name,class\nrex,dog\ntom,cat\nvase,vase\n\nPrompts\n\n"
OBJECTS = "Object Prompts\n\nprompt_list = [\n'a {0} {1} in the jungle'.format(a, b)\n]\n"
LIVE = "Live Subject Prompts\n\nprompt_list = [\n'a {0} {1} in a hat'.format(a, b)\n]\n"

Protocol = Callable[..., Plan]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The DreamBooth dataset's layout: two of three subjects, one of them with masks."""
    folder = tmp_path / "dreambooth"
    for number, name in enumerate(("rex", "tom")):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (24, 20), (80 * number, 120, 40)).save(folder / name / "00.jpg")
    (folder / "rex" / "masks").mkdir()
    mask = Image.new("L", (24, 20), 0)
    mask.paste(255, (0, 0, 12, 20))
    mask.save(folder / "rex" / "masks" / "00.png")
    (folder / "prompts_and_classes.txt").write_text(CLASSES + OBJECTS + LIVE)
    return folder


@pytest.fixture
def protocol(dataset: Path, asked: Callable[..., dict[str, Any]]) -> Protocol:
    """A plan on the tiny model with tiny scorers, one seed, few steps. Keywords replace these."""
    known = asked()

    def protocol(**replaced: Any) -> Plan:
        settings = {
            "seeds": 1,
            "steps": 2,
            "sampling_steps": 1,
            "image_encoder": known["evaluate"]["image_encoder"],
            "text_encoder": known["evaluate"]["text_encoder"],
            "dtype": "float32",
        }
        return paper_plan(known["model"], dataset, **settings | replaced)

    return protocol


def test_every_subject_meets_every_method_with_the_papers_prompts_and_seeds(
    protocol: Protocol, dataset: Path
) -> None:
    plan = protocol(seeds=4, steps=None, sampling_steps=None)
    assert [(cell.label, *cell.subjects) for cell in plan.cells] == [
        (method, subject) for subject in ("rex", "tom") for method in ("ti", "crossinit", "dti")
    ]
    assert {cell.run.concepts[0].init for cell in plan.cells} == {"dog", "cat"}
    assert {(cell.evaluation.prompts, cell.evaluation.seeds) for cell in plan.cells} == {
        ("paper", 4)
    }
    assert {cell.run.steps for cell in plan.cells} == {cell.evaluation.steps for cell in plan.cells}
    # Rescaled tokens are those of TI, at another length.
    assert {cell.label for cell in plan.cells if cell.evaluation.baselines} == {"ti"}
    assert not any(cell.evaluation.baselines for cell in protocol(methods=["ti", "dti"]).cells)


def test_references_are_cut_out_only_where_each_has_a_mask(
    protocol: Protocol, dataset: Path
) -> None:
    masked = {cell.subjects[0]: cell.evaluation.masked for cell in protocol().cells}
    assert masked == {"rex": True, "tom": False}
    Image.new("RGB", (24, 20)).save(dataset / "rex" / "01.jpg")
    with pytest.raises(SweepError, match=r"masks has no mask for 01\.jpg"):
        protocol()


def test_mistakes_are_named(protocol: Protocol, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"no method called 'dty'\. Did you mean 'dti'"):
        protocol(methods=["dty"])
    with pytest.raises(SweepError, match=r"no subject called 'vase'.*There are: rex, tom"):
        protocol(subjects=["vase"])
    (dataset / "prompts_and_classes.txt").unlink()
    with pytest.raises(SweepError, match="Name the folder of the DreamBooth dataset"):
        protocol()


def test_missing_subjects_are_said(protocol: Protocol, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        protocol()
    assert "no images of 1 subjects: vase." in caplog.text
    assert "1 of 2 subjects have masks" in caplog.text


def test_the_cost_on_paper_grows_with_the_work_and_shrinks_with_cards(protocol: Protocol) -> None:
    plan = protocol()
    cost = estimate_protocol(plan, 1.0, cards=(1, 4, 6, 100))
    assert (cost.cells, cost.subjects, cost.updates) == (6, 2, 12)
    # TI's cells also paint the class word and the rescaled token.
    prompts = 1 + 16 + 16 + 16 + 40
    assert cost.pictures == 2 * prompts * (3 + 1 + 1)
    operations = cost.updates * cost.update_flops + cost.pictures * cost.picture_flops
    assert cost.hours == pytest.approx(operations / 1e12 / 3600)
    # Six equal cells: two rounds on four cards, one on six, and no less on more.
    shares = [hours / cost.hours for hours in cost.by_cards.values()]
    assert shares == pytest.approx([1, 2 / 6, 1 / 6, 1 / 6])
    assert estimate_protocol(plan, 2.0).hours == pytest.approx(cost.hours / 2)
    assert cost.gib_low <= cost.gib
    assert cost.disk == int(cost.pictures * 64**2 * 1.1)
    # Each step of the sampler costs the same; prompts and decoder come once.
    one, two, three = (
        estimate_protocol(protocol(sampling_steps=steps), 1.0).picture_flops for steps in (1, 2, 3)
    )
    assert 0 < two - one == three - two < one


def test_a_stopped_protocol_resumes_and_ends_beside_the_papers_tables(
    protocol: Protocol, in_process: Engine, tmp_path: Path
) -> None:
    plan, folder = protocol(subjects=["rex"], methods=["ti-rescaled", "dti"]), tmp_path / "out"
    ended: list[Outcome | None] = []

    class Stopped(Exception):
        pass

    def stop(outcome: Outcome | None, *_: int) -> None:
        ended.append(outcome)
        if len(ended) == 2:  # after the first cell
            raise Stopped

    with pytest.raises(Stopped):
        run_sweep(plan, folder, in_process, progress=stop)
    files = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/cell.json")}
    assert len(files) == 1
    states = run_sweep(plan, folder, in_process)
    assert [state.state for state in states] == ["done"] * 2, [state.error for state in states]
    assert all(path.stat().st_mtime_ns == before for path, before in files.items())
    finished = read_finished(plan, folder)
    compared = beside_the_paper(finished, collect(finished))
    assert {row.method for row in compared.others} == {"ti", "ti-rescaled", "dti", "class word"}
    notes = " ".join(compared.notes)
    assert "not a model of the paper" in notes
    assert "References of 1 of 1 subjects are cut out by masks" in notes
    assert "trained for 2 updates" in notes
    assert "Pictures took 1 steps" in notes
    # The same pictures beside whole references score otherwise.
    (*_, cell) = plan.cells
    whole = replace(cell, evaluation=replace(cell.evaluation, masked=False))
    run_sweep(replace(plan, cells=(whole,)), folder, in_process)
    ((_, uncut),) = read_finished(replace(plan, cells=(whole,)), folder).results
    (*_, (_, cut)) = finished.results
    assert [image.text_score for image in cut.images] == [i.text_score for i in uncut.images]
    assert cut.images[0].subject_score != uncut.images[0].subject_score
