"""Standard output as a user has it: of any encoding, and closed by a reader that has seen enough."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Within the block what the output's encoding lacks is printed as `?`, and at its end all is written.

    Raises:
        BrokenPipeError: the reader has gone.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    yield
    if sys.stdout is not None:  # it is None where it was closed from the beginning
        sys.stdout.flush()


def reader_is_gone() -> bool:
    """True where the output is a pipe that nobody reads any more, as after `| head`."""
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, or it is a notebook's
        return False
    pipe = select.poll()
    pipe.register(output, select.POLLOUT)
    return any(event & select.POLLERR for _, event in pipe.poll(0))


def drop_output() -> None:
    """Sends nowhere what was printed and cannot be written, so that Python does not complain of it when it ends."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
