import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from dti_geom.errors import FolderInUse, SweepError
from dti_geom.files import save_result
from dti_geom.sweeps import LocalEngine, plan_of, run_sweep

LONG = {"steps": 200, "checkpoint_every": 20, "dtype": "float32"}


@contextmanager
def killer(due, most):
    """Kills worker processes, each once and so many in all, whenever it is due. Yields what it killed."""
    killed, over = [], threading.Event()

    def watch():
        while not over.wait(0.005) and len(killed) < most:
            for process in multiprocessing.active_children():
                if due() and process.pid not in killed:
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield killed
    over.set()
    thread.join()


def test_a_worker_killed_in_mid_cell_costs_nothing_but_time(asked, kept, tmp_path):
    plan = plan_of(asked(train=LONG, methods=["dti"]), "killed")
    run_sweep(plan, tmp_path / "whole", LocalEngine(1))
    folder, ended = tmp_path / "broken", []

    def under_way():
        return any(folder.glob("runs/*/checkpoints/step-000040.state")) and not any(
            folder.glob("cells/*/cell.json")
        )

    with killer(under_way, most=1) as killed:
        states = run_sweep(
            plan,
            folder,
            LocalEngine(1),
            progress=lambda outcome, *_: outcome and ended.append(outcome.cell.key),
        )
    assert len(killed) == 1
    assert {state.state for state in states} == {"done"}
    assert sorted(ended) == sorted(cell.key for cell in plan.cells)  # each once
    assert kept(folder) == kept(tmp_path / "whole")


def test_a_sweep_whose_workers_keep_dying_gives_up_and_says_why(asked, tmp_path):
    plan = plan_of(asked(train=LONG, methods=["dti"]), "dying")
    started = time.monotonic()

    def always():
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
from dti_geom.sweeps import LocalEngine, Plan, run_sweep
if __name__ == "__main__":
    run_sweep(load_result(Path(sys.argv[1]), Plan), sys.argv[2], LocalEngine(1))
"""


def test_a_killed_sweep_leaves_no_worker_behind_and_goes_on(asked, kept, tmp_path):
    plan = plan_of(
        asked(train=LONG | {"steps": 600}, methods=["dti"], concepts=asked()["concepts"][:1]),
        "stopped",
    )
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
        run_sweep(plan, folder, LocalEngine(1))
    sweep.kill()
    sweep.wait()
    time.sleep(2)
    events = next(folder.glob("runs/*/events.jsonl"))
    before = events.stat().st_size
    time.sleep(1)
    assert events.stat().st_size == before
    run_sweep(plan, folder, LocalEngine(1))
    run_sweep(plan, tmp_path / "whole", LocalEngine(1))
    assert kept(folder) == kept(tmp_path / "whole")
