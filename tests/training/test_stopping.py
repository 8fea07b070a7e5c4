import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dti_geom.errors import TrainingStopped
from dti_geom.files.run_layout import state_files
from dti_geom.training import RunConfig, resume, train
from dti_geom.training.stopping import stop_between_updates
from dti_geom.training.trainer import StepRecord


def learned_bytes(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("learned_embeds*"))]


def signal_after(step: int, number: int) -> Callable[[StepRecord, int], None]:
    """A listener that sends this process a signal after an update."""

    def listen(record: StepRecord, _total: int) -> None:
        if record.step == step:
            signal.raise_signal(number)

    return listen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_from_which_the_run_ends_on_the_same_bytes(
    number: signal.Signals, config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    asked = config(checkpoint_every=100)
    train(asked, tmp_path / "whole")
    with pytest.raises(TrainingStopped, match="stopped after update 3 of 6") as stopped:
        train(asked, tmp_path / "stopped", progress=signal_after(3, number))
    assert stopped.value.signal == number
    assert f"dti-geom train --resume {tmp_path / 'stopped'}" in str(stopped.value)
    assert [path.stem for path in state_files(tmp_path / "stopped")] == ["step-000003"]
    resume(tmp_path / "stopped")
    assert learned_bytes(tmp_path / "stopped") == learned_bytes(tmp_path / "whole") != []


def test_a_signal_in_the_last_update_is_too_late_to_stop_the_run(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    result = train(config(), tmp_path / "run", progress=signal_after(6, signal.SIGINT))
    assert result.steps == 6


def test_without_a_folder_a_signal_says_that_nothing_is_kept(
    config: Callable[..., RunConfig],
) -> None:
    with pytest.raises(TrainingStopped, match="nothing was kept"):
        train(config(), progress=signal_after(2, signal.SIGINT))


def test_a_second_signal_ends_the_process_at_once() -> None:
    with stop_between_updates() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_afterwards_and_among_several_processes_signals_keep_their_meaning() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_between_updates(processes=2):
        assert signal.getsignal(signal.SIGINT) is before[0]
    with stop_between_updates():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_trains_without_catching_signals() -> None:
    caught: list[object] = []

    def work() -> None:
        with stop_between_updates() as request:
            caught.append(request.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught == [None]
