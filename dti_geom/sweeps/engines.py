"""Engines that compute cells: worker processes of this machine, or an existing Ray cluster.

Both call `try_cell`, and no cell depends on another, so both compute the same bytes on CPUs.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.queues import Queue
from pathlib import Path
from shutil import rmtree
from socket import create_connection
from tempfile import gettempdir
from threading import Thread
from typing import Any
from uuid import uuid4

from dti_geom.errors import SweepError
from dti_geom.files import write_files, write_text
from dti_geom.sweeps.cells import COST, ERROR, RESULT, try_cell, use_threads
from dti_geom.sweeps.plan import Cell

LOSSES = 3  # workers lost in a row, without a finished cell, after which a sweep gives up
RETRIES = 5  # of a cell whose worker or node Ray lost: a cell that kills its workers must end
# Seconds for a file of another node to appear: a network file system caches what a folder holds.
LAG = 60.0


@dataclass(frozen=True)
class Outcome:
    """A cell that has ended."""

    cell: Cell
    error: str | None  # None: the cell is done


Engine = Callable[[Sequence[Cell], Path], Iterator[Outcome]]


@dataclass(frozen=True)
class LocalEngine:
    """Worker processes of this machine.

    workers: by default one for each GPU if the cells ask for one, else one for each core.
    threads: of each worker. Two workers of one thread are faster than one of two, whose threads
    wait for each other between small matrix products.
    """

    workers: int | None = None
    threads: int = 1

    def __call__(self, cells: Sequence[Cell], folder: Path) -> Iterator[Outcome]:
        """Yield cells as they end. Raises SweepError when workers die without a finished cell."""
        devices = _gpus(cells)
        workers = min(len(cells), self.workers or len(devices) or max(1, _cores() // self.threads))
        left, losses = list(cells), 0
        while left:
            with self._pool(workers, devices) as pool:
                futures = {pool.submit(try_cell, cell, folder): cell for cell in left}
                try:
                    for cell, error in _as_completed(futures):
                        left.remove(cell)
                        losses = 0
                        yield Outcome(cell, error)
                except BrokenProcessPool:
                    # A worker was killed, perhaps for lack of memory; another resumes its cell.
                    losses += 1
                    if losses == LOSSES:
                        raise SweepError(
                            f"{LOSSES} workers were killed one after another and no cell was "
                            "finished; memory may be short. Try fewer with --workers, and run the "
                            "same command again: it resumes."
                        ) from None
                finally:
                    pool.shutdown(cancel_futures=True)

    def _pool(self, workers: int, devices: Sequence[str]) -> ProcessPoolExecutor:
        """Worker processes, each of which takes a GPU from a queue if there are any."""
        context = get_context("spawn")
        free: Queue[str] = context.Queue()
        for number in range(workers):
            free.put(devices[number % len(devices)] if devices else "")
        return ProcessPoolExecutor(workers, context, _start_worker, (self.threads, free))


@dataclass(frozen=True)
class RayEngine:
    """An existing Ray cluster. It places cells, and restarts those whose worker or node was lost.

    address: of its head, as host:port; "auto" finds the cluster that this machine belongs to.
    threads: of each worker. shared: whether the sweep's folder is the same one on all nodes; if
    not, a cell is computed in a temporary folder of its node, and its files are sent. Models,
    images and prompts must be at the same paths on all nodes.
    """

    address: str = "auto"
    threads: int = 1
    shared: bool = True

    def __call__(self, cells: Sequence[Cell], folder: Path) -> Iterator[Outcome]:
        """Yield cells as they end.

        Raises SweepError without Ray, a cluster, or the shared folder.
        """
        gpus = 1 if any(cell.run.device.startswith("cuda") for cell in cells) else 0
        ray = _joined(self.address, {"CPU": self.threads, "GPU": gpus})
        # max_calls: by default Ray ends a process after each task with a GPU, and the open model
        # with it.
        task = ray.remote(num_cpus=self.threads, num_gpus=gpus, max_calls=0, max_retries=RETRIES)(
            _ray_cell
        )
        folder.mkdir(parents=True, exist_ok=True)
        place = str(folder.resolve()) if self.shared else f"dti-geom-{uuid4().hex}"
        try:
            waiting = {}
            for cell in cells:
                files = {} if self.shared else _pack(cell, folder)
                waiting[task.remote(cell, place, os.getcwd(), self.threads, files)] = cell
            while waiting:
                [reference], _ = ray.wait(list(waiting))
                yield _arrived(waiting.pop(reference), ray, reference, folder)
        finally:
            ray.shutdown()


def _as_completed(futures: dict["Future[str | None]", Cell]) -> Iterator[tuple[Cell, str | None]]:
    """Yield done cells; raise BrokenProcessPool for a lost worker after those that were done."""
    left = set(futures)
    while left:
        done, left = wait(left, return_when=FIRST_COMPLETED)
        broken = [future for future in done if isinstance(future.exception(), BrokenProcessPool)]
        for future in done:
            if future not in broken:
                yield futures[future], future.result()
        if broken:
            broken[0].result()


def _start_worker(threads: int, free: "Queue[str]") -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    device = free.get()
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    use_threads(threads)


def _end_with_parent() -> None:
    """End this worker with its sweep, or it would write into the folder of the next sweep."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _joined(address: str, needs: dict[str, int]) -> Any:
    """Return Ray, joined to a cluster where a node has what a cell needs. Raises SweepError."""
    # By default Ray looks for a missing cluster for 15 minutes, and prints what its nodes log.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
    try:
        import ray
    except ImportError as error:
        raise SweepError("the engine ray needs Ray: pip install 'dti-geom[ray]'.") from error
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            create_connection((host, int(port)), timeout=5).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise SweepError(
            f"no Ray cluster was joined at {address} ({error}). Expected host:port of its head, or "
            "auto on one of its machines. Start one with: ray start --head"
        ) from error
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if not any(_has(node, needs) for node in nodes):
        ray.shutdown()
        most = {name: max(node.get(name, 0) for node in nodes) for name in needs}
        raise SweepError(
            f"no node of the cluster has what a cell needs, {needs}; {len(nodes)} have at most "
            f"{most}. Try other --threads or device."
        )
    return ray


def _has(node: dict[str, float], needs: dict[str, int]) -> bool:
    return all(node.get(name, 0) >= number for name, number in needs.items())


def _ray_cell(
    cell: Cell, place: str, directory: str, threads: int, files: dict[str, bytes]
) -> tuple[str | None, dict[str, bytes]]:
    """Compute a cell on a node. Returns its error, and its files unless `place` is shared."""
    _keep_gpu()
    use_threads(threads)
    if os.path.isdir(directory):  # relative paths start where the sweep was started
        os.chdir(directory)
    if os.path.isabs(place):
        return try_cell(cell, Path(place)) if os.path.isdir(place) else None, {}
    # A cell that is restarted on this node finds the folder by its name, and resumes.
    folder = Path(gettempdir(), f"{place}-{cell.key}")
    _unpack(files, folder, overwrite=False)
    try:
        return try_cell(cell, folder), _pack(cell, folder)
    finally:
        rmtree(folder)


def _keep_gpu() -> None:
    """End a worker that Ray gives another GPU: its open model is on the first one."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if os.environ.setdefault("DTI_GEOM_GPU", given) != given:
        os._exit(1)


def _arrived(cell: Cell, ray: Any, reference: Any, folder: Path) -> Outcome:
    """The outcome of a cell, once its files are in the sweep's folder. Raises SweepError."""
    place = folder / "cells" / cell.key
    try:
        error, files = ray.get(reference)
    except ray.exceptions.RayError as lost:  # it did not start there, or killed every worker
        log = re.sub("\x1b\\[[0-9;]*m", "", str(lost)).strip()  # without Ray's colours
        error, files = log.splitlines()[-1], {}
        write_text(place / ERROR, log, overwrite=True)
    _unpack(files, folder, overwrite=True)
    if error is None:
        patience = time.monotonic() + LAG
        while not (place / RESULT).exists():
            if time.monotonic() > patience:
                raise SweepError(
                    f"a node reports a cell as done, but {place / RESULT} does not appear: "
                    f"{folder} is not the same folder on all nodes. Name one that is, or have the "
                    "files sent: --results returned."
                )
            time.sleep(1)
        (place / ERROR).unlink(missing_ok=True)
    return Outcome(cell, error)


def _pack(cell: Cell, folder: Path) -> dict[str, bytes]:
    """The files of a cell and its run, by their paths in the sweep's folder."""
    files: dict[str, bytes] = {}
    for place in (folder / "runs" / cell.run_key, folder / "cells" / cell.key):
        for path in sorted(place.rglob("[!.]*")):
            if path.is_file():
                files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def _unpack(files: dict[str, bytes], folder: Path, *, overwrite: bool) -> None:
    """Write a cell's files. Without `overwrite`, only those that are missing."""
    for name in sorted(files, key=_rank):
        if overwrite or not (folder / name).exists():
            write_files({folder / name: files[name]}, overwrite=True)


def _rank(name: str) -> int:
    """The place of a file in the order of writing: the result is last, as it marks a done cell."""
    return name.endswith((COST, RESULT)) + name.endswith(RESULT)


def _gpus(cells: Sequence[Cell]) -> list[str]:
    if not any(cell.run.device.startswith("cuda") for cell in cells):
        return []
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
