import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dti_geom.errors import FolderInUse, SweepError
from dti_geom.files import save_result
from dti_geom.sweeps import LocalEngine, run_sweep
from dti_geom.sweeps.engines import Engine, Outcome
from dti_geom.sweeps.plan import Plan

Kept = Callable[[Path], dict[str, bytes]]

pytestmark = pytest.mark.slow  # every test starts processes


@contextmanager
def killer(due: Callable[[], bool], most: int) -> Iterator[list[int]]:
    """Kill worker processes whenever it is due, each once and `most` in all. Yields their ids."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005) and len(killed) < most:
            for process in multiprocessing.active_children():
                if due() and process.pid and process.pid not in killed:
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield killed
    over.set()
    thread.join()


def test_a_worker_killed_in_mid_cell_costs_nothing_but_time(
    long: tuple[Plan, Path], kept: Kept, tmp_path: Path
) -> None:
    plan, whole = long
    folder = tmp_path / "broken"
    ended: list[str] = []

    def under_way() -> bool:
        return any(folder.glob("runs/*/checkpoints/step-000040.state")) and not any(
            folder.glob("cells/*/cell.json")
        )

    def note(outcome: Outcome | None, *_: int) -> None:
        if outcome:
            ended.append(outcome.cell.key)

    with killer(under_way, most=1) as killed:
        states = run_sweep(plan, folder, LocalEngine(1), progress=note)
    assert len(killed) == 1
    assert {state.state for state in states} == {"done"}
    assert sorted(ended) == sorted(cell.key for cell in plan.cells)  # each once
    assert kept(folder) == kept(whole)


def test_a_sweep_whose_workers_keep_dying_gives_up_and_says_why(
    long: tuple[Plan, Path], tmp_path: Path
) -> None:
    plan, _ = long
    started = time.monotonic()

    def always() -> bool:
        return time.monotonic() - started > 0.5  # no worker has opened a model by then

    with (
        killer(always, most=9) as killed,
        pytest.raises(SweepError, match="3 workers were killed one after another"),
    ):
        run_sweep(plan, tmp_path, LocalEngine(1))
    assert len(killed) == 3


SCRIPT = """
import sys
from pathlib import Path
from dti_geom.files import load_result
from dti_geom.sweeps import LocalEngine, run_sweep
from dti_geom.sweeps.plan import Plan
if __name__ == "__main__":
    run_sweep(load_result(Path(sys.argv[1]), Plan), sys.argv[2], LocalEngine(1))
"""


def settled(path: Path, seconds: float = 1.0, limit: float = 60.0) -> int:
    """Wait until a file has kept its size for some seconds; returns the size."""
    end, size, since = time.monotonic() + limit, -1, time.monotonic()
    while time.monotonic() < end:
        now = path.stat().st_size
        if now != size:
            size, since = now, time.monotonic()
        if time.monotonic() - since > seconds:
            return size
        time.sleep(0.02)
    raise AssertionError(f"{path} still grows after {limit} s")


def test_a_killed_sweep_leaves_no_worker_behind_and_resumes(
    long: tuple[Plan, Path], in_process: Engine, kept: Kept, tmp_path: Path
) -> None:
    plan, whole = long
    save_result(tmp_path / "plan.json", plan)
    (tmp_path / "sweep.py").write_text(SCRIPT)
    folder = tmp_path / "broken"
    sweep = subprocess.Popen(
        [sys.executable, tmp_path / "sweep.py", tmp_path / "plan.json", folder]
    )
    while not any(folder.glob("runs/*/checkpoints/step-000040.state")):
        assert sweep.poll() is None
        time.sleep(0.01)
    with pytest.raises(FolderInUse, match="another process is at work there"):
        run_sweep(plan, folder, in_process)
    sweep.kill()
    sweep.wait()
    settled(next(folder.glob("runs/*/events.jsonl")))
    # A worker that outlived the sweep would have come to the end of its run.
    assert not any(folder.glob("runs/*/result.json"))
    run_sweep(plan, folder, in_process)
    assert kept(folder) == kept(whole)
