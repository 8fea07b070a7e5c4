"""Start `dti-geom` commands from a process that has imported everything already.

Starting an interpreter and importing torch, transformers and diffusers takes seconds, running a
small command takes a tenth of one. `run` and `Command` therefore ask one *parent* per pytest
process to fork. Each command is a process of its own all the same, with its own arguments, working
directory, environment, streams and exit status, and it can be killed.

A real interpreter is started instead where

- the system cannot fork safely or has no process descriptors (anything but Linux),
- `interpreter=True` asks for it: startup, import order, hash seeds, process groups,
- the environment differs in a variable that libraries may read while they are imported.
"""

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

Completed = subprocess.CompletedProcess[str]
Run = Callable[..., Completed]  # the fixture `run` of tests/cli
RunJson = Callable[..., Any]  # the fixture `run_json` of tests/cli

MODULE = "dti_geom_cli"
SUPPORTED = sys.platform == "linux" and hasattr(os, "pidfd_open")
MESSAGE_BYTES = 1 << 20

# One thread: a fork copies only the thread that calls it, and locks of others would stay locked.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

# Variables that are read when a command runs, not when a library is imported. pytest sets the last.
READ_LATE = {"NO_COLOR", "COLUMNS", "TERM", "DTI_GEOM_CACHE", "PWD", "PYTEST_CURRENT_TEST"}

# Variables that diffusers, scikit-learn and Ray set when they are imported or connect. A test
# process that has done so hands them on; the parent has imported the same libraries.
SET_BY_IMPORTS = {
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "PYTHONBREAKPOINT",
    "RAY_CLIENT_MODE",
    "RAY_DEDUP_LOGS_SKIP_REGEX",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    "RAY_NUM_REDIS_GET_RETRIES",
    "TORCHINDUCTOR_CACHE_DIR",
}

# What commands import while they run. Only speed depends on this list being complete.
LIBRARIES = (
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "accelerate",
    "diffusers.models.autoencoders.autoencoder_dc",
    "diffusers.pipelines.sana.pipeline_sana",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
    "diffusers.schedulers.scheduling_ddpm",
    "diffusers.schedulers.scheduling_dpmsolver_singlestep",
    "jinja2",
    "plotly.graph_objs._bar",
    "plotly.graph_objs._figure",
    "plotly.graph_objs._heatmap",
    "plotly.graph_objs._scatter",
    "plotly.subplots",
    "rich.progress",
    "scipy.stats",
    "sklearn.linear_model",
    "torch",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
    "transformers.models.gemma2.modeling_gemma2",
    "typer._adapters",
    "typer.rich_utils",
    "yaml",
)


def run(
    *arguments: object,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    interpreter: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run `dti-geom ARGUMENTS` to its end; return its exit status and what it printed.

    Raises subprocess.TimeoutExpired, after killing the command, once `timeout` seconds are over.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as err,
        Command(
            *arguments,
            cwd=cwd,
            env=env,
            stdout=out.fileno(),
            stderr=err.fileno(),
            interpreter=interpreter,
        ) as command,
    ):
        status = command.wait(timeout)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read())
    return subprocess.CompletedProcess(command.arguments, status, *texts)


class Command:
    """A running `dti-geom` command, with the part of subprocess.Popen's interface tests need.

    The command is killed when the `with` block ends, if it still runs. Streams that are not named
    go to /dev/null.
    """

    def __init__(
        self,
        *arguments: object,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        interpreter: bool = False,
    ) -> None:
        self.arguments = [str(argument) for argument in arguments]
        environment = dict(os.environ if env is None else env)
        streams = [subprocess.DEVNULL if fd is None else fd for fd in (stdout, stderr)]
        self._process: subprocess.Popen[bytes] | _Forked
        if interpreter or not SUPPORTED or not _parent().serves(environment):
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=streams[0],
                stderr=streams[1],
                cwd=cwd,
                env=environment,
            )
        else:
            directory = os.path.abspath(cwd or ".")
            self._process = _parent().start(self.arguments, directory, environment, streams)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, −signal of a killed command, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status, or raise subprocess.TimeoutExpired."""
        return self._process.wait(timeout)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()


class _Forked:
    """A process that the parent forked. The parent reaps it only on request, so its id is safe."""

    def __init__(self, parent: "_Parent", pid: int, arguments: list[str]) -> None:
        self.pid = pid
        self._parent, self._arguments = parent, arguments
        self._descriptor: int | None = os.pidfd_open(pid)
        self._status: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        if self._status is None:
            assert self._descriptor is not None
            poller = select.poll()
            poller.register(self._descriptor, select.POLLIN)
            if not poller.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(self._arguments, timeout or 0)
            os.close(self._descriptor)
            self._descriptor = None
            self._status = os.waitstatus_to_exitcode(self._parent.ask({"reap": self.pid}))
        return self._status


class _Parent:
    """The process that forks, seen from pytest."""

    def __init__(self) -> None:
        self._environment = _import_time(os.environ)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | ONE_THREAD,
                start_new_session=True,  # Ctrl-C belongs to pytest, which then closes the channel
            )
        atexit.register(self.close)

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Say whether a fork sees what a fresh interpreter would see in this environment."""
        return _import_time(environment) == self._environment

    def start(
        self, arguments: list[str], directory: str, environment: dict[str, str], streams: list[int]
    ) -> _Forked:
        request = {"arguments": arguments, "directory": directory, "environment": environment}
        with open(os.devnull, "r+b", buffering=0) as null:
            descriptors = [null.fileno()]
            for stream in streams:
                descriptors.append(null.fileno() if stream == subprocess.DEVNULL else stream)
            return _Forked(self, self.ask(request, descriptors), arguments)

    def ask(self, request: dict[str, Any], descriptors: list[int] | None = None) -> int:
        message = json.dumps(request).encode()
        assert len(message) < MESSAGE_BYTES
        socket.send_fds(self._channel, [message], descriptors or [])
        reply = self._channel.recv(64)
        if not reply:
            raise RuntimeError(f"{__file__} ended with status {self._process.wait()}")
        return int(reply)

    def close(self) -> None:
        self._channel.close()
        self._process.wait()


_PARENTS: list[_Parent] = []


def _parent() -> _Parent:
    if not _PARENTS:
        _PARENTS.append(_Parent())
    return _PARENTS[0]


def _import_time(environment: Mapping[str, str]) -> dict[str, str]:
    irrelevant = READ_LATE | SET_BY_IMPORTS
    return {name: value for name, value in environment.items() if name not in irrelevant}


def serve(channel: socket.socket) -> None:
    """Import everything, then fork a command for each request until the channel is closed."""
    _import_everything()
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise SystemExit(f"{__file__}: imports started threads ({threads} now): cannot fork safely")
    gc.collect()
    gc.freeze()  # children then leave the memory of these objects shared
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 3)
        if not message:
            return
        request = json.loads(message)
        if "reap" in request:
            answer = os.waitpid(request["reap"], 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                channel.close()
                _become(**request, descriptors=descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
        channel.send(str(answer).encode())


def _import_everything() -> None:
    for name in (MODULE, "dti_geom"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in LIBRARIES:
        with contextlib.suppress(ModuleNotFoundError):  # moved: commands are slower, not wrong
            importlib.import_module(name)


def _become(
    arguments: list[str], directory: str, environment: dict[str, str], descriptors: list[int]
) -> NoReturn:
    """Turn this forked process into `python -m dti_geom_cli ARGUMENTS`, and end with its status."""
    status = 1
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        _open_streams()
        sys.argv = [MODULE, *arguments]
        sys.path[0] = directory  # as `python -m` has it
        status = _run_module()
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(ValueError, OSError):  # closed, or its reader has gone
            sys.stderr.flush()
        os._exit(status)  # nothing of the parent's own clean-up may run here


def _run_module() -> int:
    try:
        runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _open_streams() -> None:
    """Open the three streams again: buffering depends on whether they are terminals."""
    sys.stdin = sys.__stdin__ = _stream(0, "r", "strict")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _stream(1, "w", "strict")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, "w", "backslashreplace")  # type: ignore[misc]


def _stream(number: int, mode: str, errors: str) -> io.TextIOWrapper:
    by_lines = number == 2 or os.isatty(number)
    raw = os.fdopen(number, f"{mode}b", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, line_buffering=by_lines)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
