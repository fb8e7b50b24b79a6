"""Sizes and times on the command line, as people write and read them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from tune.durations import AMOUNT, DAY, seconds_of

_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES |= {f"{unit[0]}IB": 1024**power for power, unit in enumerate(_SIZES) if power}


def size_of(text: str, flag: str) -> int:
    """Bytes: `10GB`, `1.5 TB`, `500 MiB`. Raises ValueError, naming the flag."""
    match = AMOUNT.fullmatch(text.strip())
    size = float(match[1]) * _SIZES.get(match[2].upper(), 0) if match else 0
    if not match or size < 1:
        raise ValueError(f"{flag}: expected a size above 0 with its unit, such as 500MB or 10GB, found {text!r}")
    return int(size)


def age_of(text: str, flag: str) -> float:
    """Seconds: `30d`, `12h`, `2w`; a number without a unit is days. Raises ValueError, naming the flag."""
    try:
        return seconds_of(text, unit="d")
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from error


def time_text(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `12 days`."""
    for size, unit in ((DAY, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size or (unit != "days" and seconds >= size):
            return f"{seconds / size:.0f} {unit}" if unit != "h" else f"{seconds / size:.1f} h"
    return f"{max(0.0, seconds):.0f} s"


@contextmanager
def pulse(tell: Callable[[], None], seconds: float = 30.0) -> Iterator[None]:
    """Within the block `tell` is called every so many seconds, from a thread of its own, to say that it goes on."""
    over = Event()

    def keep_telling() -> None:
        while not over.wait(seconds):
            tell()

    teller = Thread(target=keep_telling, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


class Ticker:
    """One line on stderr that says how far a long work is: in place on a terminal, elsewhere every ten seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._pause = 0.2 if self._terminal else 10.0
        self._next = time.monotonic() + self._pause
        self._shown = False

    def __call__(self, text: str) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._pause
        print(f"\r\x1b[K{text}" if self._terminal else text, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()
        self._shown = True

    def end(self) -> None:
        """Takes the line away again."""
        if self._terminal and self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
