"""What is seen of long work where there is no terminal, and at one."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from dti_geom_cli import progress
from dti_geom_cli.progress import Lines, training_progress, working_progress

Seconds = Callable[[float], None]


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    """Let a time pass by moving the clock."""
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def move(by: float) -> None:
        clock[0] += by

    return move


def printed(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.StringIO:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=200, soft_wrap=True)
    monkeypatch.setattr(progress, "ERRORS", console)
    return stream


def test_a_log_gets_a_line_every_few_seconds_with_the_remaining_time(
    seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = printed(monkeypatch, terminal=False)
    with working_progress() as listen:
        listen("pictures", 0, 100)
        for done in range(1, 13):
            seconds(1)
            listen("pictures", done, 100)
    assert stream.getvalue().splitlines() == [
        "pictures 5 of 100, 0:01:35 left",
        "pictures 10 of 100, 0:01:30 left",
    ]


def test_work_of_a_moment_prints_nothing(seconds: Seconds, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = printed(monkeypatch, terminal=False)
    with working_progress() as listen:
        seconds(4)
        listen("pictures", 10, 10)
    assert stream.getvalue() == ""


def test_lines_become_rarer_in_hours(seconds: Seconds, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = printed(monkeypatch, terminal=False)
    lines = Lines(lambda done, total: f"{done} of {total}")
    for done in range(6 * 3600):
        seconds(1)
        lines("cells", done, 6 * 3600)
    assert 100 < len(stream.getvalue().splitlines()) < 200


def test_what_was_done_before_does_not_count_in_the_pace(
    seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = printed(monkeypatch, terminal=False)
    lines = Lines(lambda done, total: f"{done} of {total}")
    lines("cells", 90, 100)
    seconds(10)
    lines("cells", 91, 100)
    assert stream.getvalue() == "cells 91 of 100, 0:01:30 left\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_stages_are_named_and_no_count_is_shown_before_there_is_one(
    terminal: bool, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = printed(monkeypatch, terminal=terminal)
    with training_progress() as (_update, stage, _download):
        seconds(6)
        stage("opening [/mini]")
    assert "opening [/mini]" in stream.getvalue()
    assert "0/" not in stream.getvalue()
    assert "None" not in stream.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_download_is_counted_in_megabytes_before_the_updates(
    terminal: bool, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = printed(monkeypatch, terminal=terminal)
    with training_progress() as (_update, _stage, download):
        download("downloading x", 0, 6_900_000_000)
        seconds(10)
        download("downloading x", 690_000_000, 6_900_000_000)
        if terminal:
            seconds(1)
    assert "downloading x" in stream.getvalue()
    assert "MB" in stream.getvalue()
    assert ("690/6900" if terminal else "690 of 6900, 0:01:30 left") in stream.getvalue()
