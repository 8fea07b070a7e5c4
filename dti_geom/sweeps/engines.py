"""Who computes the cells: worker processes of this machine, or an existing Ray cluster.

Both call `try_cell` on cells that do not depend on each other, so both come to the same bytes.
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

LOSSES = (
    3  # workers in a row that may be lost without a cell being finished, before a sweep gives up
)
RETRIES = 5  # of a cell whose worker or node Ray lost: one that kills its workers must end too
LAG = 60.0  # seconds in which a file written on another node appears: what a network file system remembers of a folder


@dataclass(frozen=True)
class Outcome:
    """A cell that has ended."""

    cell: Cell
    error: str | None  # None: it is done


Engine = Callable[[Sequence[Cell], Path], Iterator[Outcome]]


@dataclass(frozen=True)
class LocalEngine:
    """Worker processes of this machine.

    workers: by default one for each GPU if the cells ask for one, else one for each core. threads: of each worker. Two
    workers of one thread beat one of two: threads wait for each other between small matrix products.
    """

    workers: int | None = None
    threads: int = 1

    def __call__(self, cells: Sequence[Cell], folder: Path) -> Iterator[Outcome]:
        """Outcomes, as they come. Raises SweepError when workers die and nothing gets done."""
        devices = _gpus(cells)
        workers = min(len(cells), self.workers or len(devices) or max(1, _cores() // self.threads))
        left, losses = list(cells), 0
        while left:
            context = get_context("spawn")
            free: Queue[str] = context.Queue()
            for number in range(workers):
                free.put(devices[number % len(devices)] if devices else "")
            with ProcessPoolExecutor(workers, context, _start_worker, (self.threads, free)) as pool:
                futures = {pool.submit(try_cell, cell, folder): cell for cell in left}
                try:
                    for cell, error in _as_completed(futures):
                        left.remove(cell)
                        losses = 0
                        yield Outcome(cell, error)
                except BrokenProcessPool:
                    # A worker was killed, for want of memory perhaps; its cell goes on in another.
                    losses += 1
                    if losses == LOSSES:
                        raise SweepError(
                            f"{LOSSES} workers were killed one after another and no cell was finished; memory may be "
                            "short. Try fewer with --workers, and run the same command again: it goes on."
                        ) from None
                finally:
                    pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class RayEngine:
    """An existing Ray cluster: it places cells, and restarts those whose worker or node was lost.

    address: of its head, as host:port; "auto" finds the cluster this machine belongs to. threads: of each worker.
    shared: the sweep's folder is the same one on all nodes; otherwise a cell is computed in a temporary folder of its
    node, and its files travel. Models, images and prompts have to lie at the same paths on all nodes.
    """

    address: str = "auto"
    threads: int = 1
    shared: bool = True

    def __call__(self, cells: Sequence[Cell], folder: Path) -> Iterator[Outcome]:
        """Outcomes, as they come. Raises SweepError where there is no Ray, no cluster, or no shared folder."""
        gpus = 1 if any(cell.run.device.startswith("cuda") for cell in cells) else 0
        ray = _joined(self.address, {"CPU": self.threads, "GPU": gpus})
        # max_calls: Ray would end a process after each task with a GPU, and the model with it.
        task = ray.remote(num_cpus=self.threads, num_gpus=gpus, max_calls=0, max_retries=RETRIES)(
            _ray_cell
        )
        folder.mkdir(parents=True, exist_ok=True)
        place = str(folder.resolve()) if self.shared else f"dti-geom-{uuid4().hex}"
        try:
            waiting = {
                task.remote(
                    cell,
                    place,
                    os.getcwd(),
                    self.threads,
                    {} if self.shared else _pack(cell, folder),
                ): cell
                for cell in cells
            }
            while waiting:
                [reference], _ = ray.wait(list(waiting))
                yield _arrived(waiting.pop(reference), ray, reference, folder)
        finally:
            ray.shutdown()


def _as_completed(futures: dict["Future[str | None]", Cell]) -> Iterator[tuple[Cell, str | None]]:
    """What is done, and only then the news that a worker was lost."""
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
    """A worker that outlived a killed sweep would write into the same folder as the next one."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _joined(address: str, needs: dict[str, int]) -> Any:
    """Ray, joined to a cluster where some node has what a cell needs. Raises SweepError."""
    # By default Ray looks for a cluster that is not there for a quarter of an hour, and prints what a node reports.
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
            f"no Ray cluster was joined at {address} ({error}). Expected host:port of its head, or auto on one of its "
            "machines. One is started by: ray start --head"
        ) from error
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(
        all(node.get(name, 0) >= number for name, number in needs.items()) for node in nodes
    ):
        ray.shutdown()
        raise SweepError(
            f"no node of the cluster has what a cell needs, {needs}; {len(nodes)} have at most "
            f"{ {name: max(node.get(name, 0) for node in nodes) for name in needs} }. Try other --threads or device."
        )
    return ray


def _ray_cell(
    cell: Cell, place: str, directory: str, threads: int, files: dict[str, bytes]
) -> tuple[str | None, dict[str, bytes]]:
    """A cell on a node: its failure, and, unless `place` is a shared folder, its files."""
    _keep_gpu()
    use_threads(threads)
    if os.path.isdir(directory):  # relative paths are meant from where the sweep was started
        os.chdir(directory)
    if os.path.isabs(place):
        return try_cell(cell, Path(place)) if os.path.isdir(place) else None, {}
    folder = Path(
        gettempdir(), f"{place}-{cell.key}"
    )  # a cell that is restarted on this node finds it, and goes on
    _unpack(files, folder, overwrite=False)
    try:
        return try_cell(cell, folder), _pack(cell, folder)
    finally:
        rmtree(folder)


def _keep_gpu() -> None:
    """A model stays where it was opened; a worker that Ray gives another GPU makes way for a fresh process."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if os.environ.setdefault("DTI_GEOM_GPU", given) != given:
        os._exit(1)


def _arrived(cell: Cell, ray: Any, reference: Any, folder: Path) -> Outcome:
    """What came of a cell, when its files lie in the sweep's folder. Raises SweepError."""
    place = folder / "cells" / cell.key
    try:
        error, files = ray.get(reference)
    except ray.exceptions.RayError as lost:  # it could not even begin there, or killed every worker
        log = re.sub("\x1b\\[[0-9;]*m", "", str(lost)).strip()  # Ray colours it
        error, files = log.splitlines()[-1], {}
        write_text(place / ERROR, log, overwrite=True)
    _unpack(files, folder, overwrite=True)
    if error is None:
        patience = time.monotonic() + LAG
        while not (place / RESULT).exists():
            if time.monotonic() > patience:
                raise SweepError(
                    f"a node reports a cell as done, but {place / RESULT} does not appear: {folder} is not the same "
                    "folder on all nodes. Name one that is, or have the files sent: --results returned."
                )
            time.sleep(1)
        (place / ERROR).unlink(missing_ok=True)
    return Outcome(cell, error)


def _pack(cell: Cell, folder: Path) -> dict[str, bytes]:
    """The files of a cell and its run, by their paths in the sweep's folder."""
    places = (folder / "runs" / cell.run_key, folder / "cells" / cell.key)
    paths = [path for place in places for path in sorted(place.rglob("[!.]*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _unpack(files: dict[str, bytes], folder: Path, *, overwrite: bool) -> None:
    """Write a cell's files, what says that it is done at the very end; without `overwrite`, those that are missing."""
    for name in sorted(
        files, key=lambda name: name.endswith((COST, RESULT)) + name.endswith(RESULT)
    ):
        if overwrite or not (folder / name).exists():
            write_files({folder / name: files[name]}, overwrite=True)


def _gpus(cells: Sequence[Cell]) -> list[str]:
    if not any(cell.run.device.startswith("cuda") for cell in cells):
        return []
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
