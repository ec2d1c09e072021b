"""How a command ends that is stopped: by Ctrl-C, by a job queue or container, or with its terminal.

All raise KeyboardInterrupt where the command is, so that nothing half-written is left. Only
commands call this; a program that imports Hemascope keeps its own signal handlers.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import NoReturn

STOPPED = "stopped; no half-written file is left; --resume continues long work"
# Ctrl-C; job queues and containers; a terminal or a connection that closes; a used-up time limit.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))  # not on Windows


class Stop:
    """Whether a signal to stop has come, and the exit status that then tells which."""

    def __init__(self) -> None:
        self.status: int | None = None

    def raise_on_signals(self) -> None:
        """Lets the signals raise KeyboardInterrupt; those that are ignored stay so."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._raise)

    def _raise(self, number: int, frame: FrameType | None) -> NoReturn:
        self.status = 128 + number
        for later in SIGNALS:  # a second one must not stop the tidying up; a second Ctrl-C may
            if later != signal.SIGINT:
                signal.signal(later, signal.SIG_IGN)
        raise KeyboardInterrupt


def leave_on_signals() -> None:
    """Ends the process at once, in one line: for its first second, while it still imports."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"{STOPPED}\n".encode())
    os._exit(128 + number)
