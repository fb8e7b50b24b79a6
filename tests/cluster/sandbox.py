"""A private corner of the machine: own processes, network, mounts and shared memory; nothing of it stays.

`ray stop` ends every Ray process that it can see, and pretended hosts need addresses of their own. So a
program that plays a cloud runs inside Linux namespaces: `enter()` starts the same command again inside, and
waits outside.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
INSIDE = "TUNE_TEST_SANDBOX"  # set inside; its value is the scratch folder
PROGRAMS = ("unshare", "nsenter", "ip", "mount", "sshd", "ssh", "ssh-keygen", "rsync")
START = time.monotonic()


class Failure(Exception):
    """A step of the test did not happen; the message is the reason."""


def say(*words: object) -> None:
    print(f"{time.monotonic() - START:6.1f} s ", *words, flush=True)


def until(condition: Callable[[], T], seconds: float, every: float = 0.3) -> T:
    """The first true value of `condition()`, or its last value once `seconds` are over."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(every)
    return value


def sh(*words: str) -> str:
    """Output of a system command that must succeed.

    Raises:
        Failure: it did not; with what it said.
    """
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Failure(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def why_not() -> str | None:
    """What this machine lacks for a sandbox with hosts in it, or None."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [program for program in PROGRAMS if not shutil.which(program, path=path)]
    if absent:
        return f"not installed: {', '.join(absent)} (apt install openssh-server rsync iproute2)"
    if os.geteuid():
        return "needs root, to make network namespaces"
    trial = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "true"], capture_output=True
    )
    return f"namespaces are not allowed here: {trial.stderr.decode().strip()}" if trial.returncode else None


def enter(limit_s: float) -> Path:
    """Outside: run this command inside and exit with its status. Inside: return the scratch folder.

    Everything inside ends with this process, after `limit_s` seconds, or with a signal; the folder goes too.
    """
    if INSIDE in os.environ:
        sh("ip", "link", "set", "lo", "up")
        sh("mount", "-t", "tmpfs", "tmpfs", "/run")
        return Path(os.environ[INSIDE])
    reason = why_not()
    if reason:
        print(f"FAILED: {reason}", file=sys.stderr)
        sys.exit(2)
    _run_inside(limit_s)


def _run_inside(limit_s: float) -> NoReturn:
    scratch, status = tempfile.mkdtemp(prefix="tune-cluster-"), 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    environment = {**os.environ, INSIDE: scratch, "TMPDIR": scratch}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    process = subprocess.Popen(_words(), env=environment, start_new_session=True, preexec_fn=_die_with_parent)
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        print(f"FAILED: not done after {limit_s:.0f} s", file=sys.stderr)
        status = 124
    except KeyboardInterrupt:
        status = 130
    finally:
        if process.poll() is None:
            process.kill()  # --kill-child: the namespace's PID 1 dies with it, and the kernel ends the rest
            process.wait(15)
        until(lambda: _removed(scratch), 15)
    sys.exit(status)


def _words() -> list[str]:
    # bash as PID 1 collects dead processes; without one `ray stop` waits for zombies for half a minute.
    kinds = ["--net", "--mount", "--pid", "--ipc"]
    return [
        "unshare",
        *kinds,
        "--fork",
        "--kill-child",
        "--mount-proc",
        "bash",
        "-c",
        '"$@"; exit $?',
        "init",
        sys.executable,
        *sys.orig_argv[1:],  # as typed, with -m
    ]


def _die_with_parent() -> Any:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _removed(folder: str) -> bool:
    shutil.rmtree(folder, ignore_errors=True)  # again while dying processes still write
    return not os.path.exists(folder)


def memory_mib() -> float:
    """Memory of all processes in the sandbox in MiB; pages that several share are counted once (PSS)."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/smaps_rollup"):
        try:
            total += next(
                int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith("Pss:")
            )
        except (OSError, StopIteration):  # ended meanwhile, or a kernel thread
            continue
    return total / 1024


def ray_processes() -> list[str]:
    """Ray's servers in the sandbox, on whichever machine."""
    names = [_command(process) for process in Path("/proc").glob("[0-9]*")]
    return [name for name in names if name in ("raylet", "gcs_server")]


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:  # ended meanwhile
        return ""
