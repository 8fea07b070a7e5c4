import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dti_geom.errors import SweepError
from dti_geom.sweeps import RayEngine, engines, plan_of, run_sweep
from dti_geom.sweeps.cells import try_cell
from dti_geom.sweeps.engines import Engine, Outcome
from dti_geom.sweeps.plan import Plan
from dti_geom.sweeps.sweep import CellState

Asked = Callable[..., dict[str, Any]]
Kept = Callable[[Path], dict[str, bytes]]

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="needs Ray: pip install 'dti-geom[ray]'"
)

SEEN = 40  # updates before a worker or a node is lost
STARTS = 3  # attempts: on a machine that is busy, Ray gives up after 15 seconds
# Python runs this first where PYTHONPATH names its folder. It writes a line for each time that a
# process opens a model.
NOTE_OPENED = """
import os, sys
def note(event, found):
    if event == "open" and str(found[0]).endswith("scheduler_config.json"):
        handle = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, b"%d\\n" % os.getpid())
        os.close(handle)
sys.addaudithook(note)
"""


class Cluster:
    """Two nodes on 127.0.0.1 whose temporary files lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.opened = folder, folder / "opened"
        (folder / "sitecustomize.py").write_text(NOTE_OPENED)
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        own = {
            "PYTHONPATH": path,
            "OPENED": self.opened,
            "TMPDIR": folder,
            "RAY_raylet_start_wait_time_s": 30,
        }
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).parents[1] / "ray_cluster.py", folder],
            env=os.environ | {name: str(value) for name, value in own.items()},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.address = self.stdout.readline().strip()

    def tell(self, line: str) -> None:
        print(line, file=self.stdin, flush=True)
        assert self.stdout.readline() == "done\n"

    def workers(self) -> list[int]:
        """Processes that compute a cell."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(place.name)] = parent, (place / "cmdline").read_text()
        busy = [pid for pid, (_, title) in found.items() if title.startswith("ray::_ray_cell")]
        # Children of this cluster's raylets.
        return [pid for pid in busy if found[found[pid][0]][0] == self.process.pid]

    def close(self) -> None:
        self.stdin.close()
        self.process.wait(60)
        self.stdout.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # before Ray is imported here
        for _ in range(STARTS):
            folder = Path(tempfile.mkdtemp(prefix="ray"))  # short, for the names of sockets
            started = Cluster(folder)
            if started.address:
                break
            started.close()
            shutil.rmtree(folder)
        assert started.address, "Ray does not start"
        yield started
        started.close()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def short(
    asked: Asked,
    in_process: Engine,
    sd15_pipeline: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Plan, Path]:
    """A plan of six cells with a relative path, two of which fail; and its folder."""
    methods = ["dti", "ti", {"name": "dti", "magnitude": "token:nowhere", "label": "wrong"}]
    plan = plan_of(asked(methods=methods, model=f"./{sd15_pipeline.name}"), "short")
    folder = tmp_path_factory.mktemp("short")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(sd15_pipeline.parent)
        run(plan, folder, in_process)
    return plan, folder


@contextmanager
def once(due: Callable[[], Any], action: Callable[[], Any]) -> Iterator[list[Any]]:
    """Do something as soon as it is due. Yields a list that is empty until then."""
    done: list[Any] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005) and not done:
            now = None
            with suppress(FileNotFoundError):  # workers remove folders while they are searched
                now = due()
            if now:
                done.append(action())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield done
    over.set()
    thread.join()


def run(plan: Plan, folder: Path, engine: Engine) -> list[CellState]:
    """Run a sweep: every cell ends once, and a done run has kept every update once."""
    ended: list[str] = []

    def note(outcome: Outcome | None, *_: int) -> None:
        if outcome:
            ended.append(outcome.cell.key)

    states = run_sweep(plan, folder, engine, progress=note)
    assert sorted(ended) == sorted(cell.key for cell in plan.cells)
    for result in folder.glob("runs/*/result.json"):
        steps = [
            json.loads(line)["step"]
            for line in (result.parent / "events.jsonl").read_text().splitlines()
        ]
        assert steps == list(range(1, json.loads(result.read_text())["result"]["steps"] + 1))
    return states


def runs_under_way(places: list[Path], count: int) -> dict[str, list[str]]:
    """Events of the runs below the folders, once `count` runs have a checkpoint and none ended."""
    found = [
        run
        for place in places
        for run in place.glob("**/runs/*")
        if (run / "events.jsonl").exists()
    ]
    if len(found) < count or any((run / "result.json").exists() for run in found):
        return {}
    if not all((run / "checkpoints" / f"step-{SEEN:06d}.state").exists() for run in found):
        return {}
    return {run.name: (run / "events.jsonl").read_text().splitlines()[:SEEN] for run in found}


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_two_nodes_come_to_the_bytes_of_one_machine_and_open_the_model_once_each(
    cluster: Cluster,
    short: tuple[Plan, Path],
    kept: Kept,
    sd15_pipeline: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    shared: bool,
) -> None:
    plan, expected = short
    # Relative paths start here, wherever the cluster was started.
    monkeypatch.chdir(sd15_pipeline.parent)
    cluster.opened.unlink(missing_ok=True)
    capfd.readouterr()
    states = run(plan, tmp_path / "ray", RayEngine(cluster.address, shared=shared))
    assert capfd.readouterr().out == ""
    assert kept(tmp_path / "ray") == kept(expected)
    opened = Counter(cluster.opened.read_text().splitlines())
    assert set(opened.values()) == {1}
    assert len(opened) == 2  # of six cells, on two nodes
    for state in states:
        assert (state.state == "failed") == (state.label == "wrong")
        if state.label == "wrong":
            log = (tmp_path / "ray" / "cells" / state.key / "error.txt").read_text()
            assert "Traceback" in log
            assert "nowhere" in log.splitlines()[-1]


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_a_worker_killed_in_mid_cell_costs_nothing_but_time(
    cluster: Cluster,
    long: tuple[Plan, Path],
    kept: Kept,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    shared: bool,
) -> None:
    plan, expected = long
    folder = tmp_path / "sweep"
    seen: dict[str, list[str]] = {}
    capfd.readouterr()

    def due() -> dict[str, list[str]]:
        seen.update(runs_under_way([folder, *cluster.folder.glob("dti-geom-*")], len(plan.cells)))
        return seen

    with once(due, lambda: os.kill(cluster.workers()[0], signal.SIGKILL)) as killed:
        states = run(plan, folder, RayEngine(cluster.address, shared=shared))
    assert len(killed) == 1
    assert capfd.readouterr().out == ""
    assert {state.state for state in states} == {"done"}
    assert kept(folder) == kept(expected)
    for (
        name,
        events,
    ) in seen.items():  # with their seconds: the updates before the checkpoint were not made again
        assert (folder / "runs" / name / "events.jsonl").read_text().splitlines()[:SEEN] == events
    assert not list(cluster.folder.glob("dti-geom-*"))


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_a_node_removed_in_mid_sweep_costs_nothing_but_time(
    cluster: Cluster, long: tuple[Plan, Path], kept: Kept, tmp_path: Path, shared: bool
) -> None:
    plan, expected = long
    folder = tmp_path / "sweep"

    def due() -> dict[str, list[str]]:
        return runs_under_way([folder, *cluster.folder.glob("dti-geom-*")], len(plan.cells))

    with once(due, lambda: cluster.tell("remove")) as removed:
        states = run(plan, folder, RayEngine(cluster.address, shared=shared))
    cluster.tell("add")
    assert len(removed) == 1
    assert {state.state for state in states} == {"done"}
    assert kept(folder) == kept(expected)


@needs_ray
@pytest.mark.slow
def test_a_cell_that_kills_its_workers_fails_and_the_rest_goes_on(
    cluster: Cluster, long: tuple[Plan, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engines, "RETRIES", 0)
    plan, _ = long
    with once(cluster.workers, lambda: os.kill(cluster.workers()[0], signal.SIGKILL)) as killed:
        states = run(plan, tmp_path, RayEngine(cluster.address))
    assert len(killed) == 1
    assert sorted(state.state for state in states) == ["done", "failed"]
    [failed] = [state for state in states if state.state == "failed"]
    assert "died" in (tmp_path / "cells" / failed.key / "error.txt").read_text()


@needs_ray
@pytest.mark.slow
def test_cells_that_no_node_has_room_for_are_not_waited_for(
    cluster: Cluster, asked: Asked, tmp_path: Path
) -> None:
    with pytest.raises(SweepError, match=r"'CPU': 64.* 2 have at most \{'CPU': 1"):
        run_sweep(plan_of(asked(), "short"), tmp_path, RayEngine(cluster.address, threads=64))


def test_without_ray_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, asked: Asked, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SweepError, match=r"pip install 'dti-geom\[ray\]'"):
        run_sweep(plan_of(asked(), "short"), tmp_path, RayEngine())


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:{}", "nowhere", "ray://127.0.0.1"])
def test_an_address_where_no_cluster_is_gets_one_line_and_soon(
    asked: Asked, tmp_path: Path, address: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(SweepError, match=r"no Ray cluster was joined at .*ray start --head"):
        run_sweep(plan_of(asked(), "short"), tmp_path, RayEngine(address.format(port)))
    assert time.monotonic() - started < 30  # most of it to import Ray


def test_a_folder_that_is_not_shared_is_told(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engines, "LAG", 0.1)
    monkeypatch.setenv("DTI_GEOM_GPU", "")  # a worker's note to itself; this process is none
    cell, elsewhere = plan_of(asked(), "short").cells[0], tmp_path / "mounted" / "elsewhere"
    came = engines._ray_cell(cell, str(elsewhere), os.getcwd(), 1, {})
    assert not elsewhere.exists()
    ray = SimpleNamespace(
        get=lambda reference: came, exceptions=SimpleNamespace(RayError=ValueError)
    )
    with pytest.raises(
        SweepError, match=r"is not the same folder on all nodes.*--results returned"
    ):
        engines._arrived(cell, ray, None, tmp_path)


def test_what_a_node_could_not_even_begin_leaves_its_log_in_the_sweeps_folder(
    asked: Asked, tmp_path: Path
) -> None:
    def get(reference: None) -> None:
        raise OSError(
            "\x1b[36mray::_ray_cell()\x1b[39m (pid=7)\nTraceback\nTrainingError: no folder images"
        )

    cell = plan_of(asked(), "short").cells[0]
    ray = SimpleNamespace(get=get, exceptions=SimpleNamespace(RayError=OSError))
    assert engines._arrived(cell, ray, None, tmp_path).error == "TrainingError: no folder images"
    log = (tmp_path / "cells" / cell.key / "error.txt").read_text()
    assert log.startswith("ray::_ray_cell() (pid=7)\nTraceback")


def test_a_run_that_is_there_travels_to_the_node_and_is_not_made_again(
    asked: Asked, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    [first, *_] = plan_of(asked(evaluate={"seeds": 1}), "first").cells
    [second, *_] = plan_of(asked(), "second").cells
    try_cell(first, tmp_path / "head")
    before = engines._pack(first, tmp_path / "head")
    error, files = engines._ray_cell(
        second, "sweep", os.getcwd(), 1, engines._pack(second, tmp_path / "head")
    )
    assert error is None
    result = f"runs/{second.run_key}/result.json"
    assert files[result] == before[result]  # with its seconds
    assert f"cells/{second.key}/cell.json" in files
    assert [path.name for path in tmp_path.iterdir()] == ["head"]


def test_a_worker_that_is_given_another_gpu_makes_way_for_a_fresh_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.delenv("DTI_GEOM_GPU", raising=False)
    for given, expected in (("0", []), ("0", []), ("1", [1])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        engines._keep_gpu()
        assert ended == expected
