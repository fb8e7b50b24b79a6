"""Ends what a killed driver leaves behind.

Of what Ray 2.60 starts on a machine, the raylet and the control store get a signal from the kernel when their parent
dies, and workers end with their raylet. Its agents are the raylet's children: adopted by process 1, they try for up to
a minute to report to a control store that is gone. Hence a small process beside the driver, in a session of its own,
that outlives it however it ends. The same file is its program: it imports nothing but what Python brings.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_NAME = "LATENT_DEFENSE_DRIVER"  # in the environment of every process that the driver starts within the block
_SECONDS = 30.0  # for which what is left is looked for; a process in the kernel's hands cannot be ended at once


@contextmanager
def watched() -> Iterator[None]:
    """Within the block, all that this process starts ends with it; where there is no /proc, nothing is done.

    When the block is left in order, too, what was started in it and not ended is ended.
    """
    if not os.path.isdir("/proc/self"):
        yield
        return
    mark = f"{_NAME}={uuid.uuid4().hex}"
    before = os.environ.get(_NAME)
    watcher = subprocess.Popen(
        [sys.executable, "-S", "-E", __file__, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ[_NAME] = mark.partition("=")[2]
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NAME]
        else:
            os.environ[_NAME] = before
        watcher.communicate()  # closes its standard input, which is the sign, and waits for it


def _marked(mark: str) -> list[int]:
    """Processes that have `mark` in their environment and are not dead yet."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:  # it has ended, or is another user's
            if mark.encode() in file.read().split(b"\0"):
                found.append(int(name))
    return found


def _watch(mark: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the driver may have more to do when it gets these
    sys.stdin.buffer.read()  # ends when the driver does
    end = time.monotonic() + _SECONDS
    while (left := _marked(mark)) and time.monotonic() < end:
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    _watch(sys.argv[1])
