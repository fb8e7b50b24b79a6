"""Signals that end a search early: Ctrl-C, SIGTERM of schedulers and preempted machines, SIGHUP of a lost terminal."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from tune.errors import INTERRUPTED

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


def leave_at_once() -> None:
    """Lets the signals end the process without a word: for as long as nothing has begun."""
    _handle(lambda number, frame: os._exit(INTERRUPTED))


def interrupt() -> None:
    """Lets the signals raise KeyboardInterrupt. To be called again once Ray has put handlers of its own in place."""
    _handle(_interrupt)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # Python takes handlers from the main thread alone
    for name in _NAMES:
        number = getattr(signal, name, None)
        ignored = number is not None and name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN
        if number is not None and not ignored:  # nohup has it ignored
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for stream in (1, 2):  # a terminal that has hung up takes no last words, and must not be what stops them
        try:
            os.write(stream, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    raise KeyboardInterrupt
