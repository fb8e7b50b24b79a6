"""Ends what a killed driver leaves behind.

Of what Ray 2.60 starts on a machine, the raylet and the control store get a signal from the kernel when their parent
dies, and workers end with their raylet. Its agents are the raylet's children: adopted by process 1, they try for up to
a minute to report to a control store that is gone. Hence a small process beside the driver, in a session of its own,
that outlives it however it ends. The same file is its program: it imports nothing but what Python brings.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_NAME = "LATENT_DEFENSE_DRIVER"  # in the environment of every process that the driver starts within the block
_LOOK = 1.0  # seconds between two looks at what the driver has started
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
    watcher = subprocess.Popen(  # noqa: S603  (this very file)
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


def _marked(mark: str) -> set[int]:
    """Processes that have `mark` in their environment and are not dead yet."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:  # it has ended, or is another user's
            if mark.encode() in file.read().split(b"\0"):
                found.add(int(name))
    return found


def _descendants(ancestor: int) -> dict[int, str]:
    """Process id → time of its start, by which a later process of that id differs, of all that it has started.

    The agents write their titles over their environments, so that it takes more than the mark to know them.
    """
    children: dict[int, list[int]] = {}
    starts: dict[int, str] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            parent, starts[int(name)] = _parent_and_start(int(name))
            children.setdefault(parent, []).append(int(name))
    found, waiting = dict[int, str](), [ancestor]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found[child] = starts[child]
            waiting.append(child)
    return found


def _parent_and_start(process: int) -> tuple[int, str]:
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()  # what stands before it may hold spaces
    if fields[0] == "Z":  # dead, and waiting for its parent to ask how
        raise ProcessLookupError(process)
    return int(fields[1]), fields[19]


def _still(known: dict[int, str]) -> set[int]:
    found = set()
    for process, start in known.items():
        with suppress(OSError):
            if _parent_and_start(process)[1] == start:
                found.add(process)
    return found


def _watch(mark: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the driver may have more to do when it gets these
    driver, known = os.getppid(), dict[int, str]()
    others = _descendants(driver)  # of before the block, this process among them
    while not select.select([sys.stdin], [], [], _LOOK)[0]:  # readable when the driver has closed it, or died
        known |= {process: start for process, start in _descendants(driver).items() if process not in others}
    end = time.monotonic() + _SECONDS
    while (left := _marked(mark) | _still(known)) and time.monotonic() < end:
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    _watch(sys.argv[1])
