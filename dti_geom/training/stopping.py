"""Stop a run between two updates when Ctrl-C or SIGTERM asks for it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Which signal has asked the run to stop, if any."""

    signal: int | None = None

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Remember the signal. The next one ends the process at once."""
        self.signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def stop_between_updates(processes: int = 1) -> Iterator[StopRequest]:
    """Note Ctrl-C and SIGTERM while the block runs, instead of ending the process.

    Signals keep their meaning outside the main thread, where Python cannot catch them, and among
    several processes, which would wait for one that stopped.
    """
    request = StopRequest()
    if processes > 1 or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, request.note)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
