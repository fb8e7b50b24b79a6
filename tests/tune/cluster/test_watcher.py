"""What a killed process leaves behind is ended: with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tune.cluster.watcher import watched

pytestmark = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
ROOT = Path(__file__).parents[3]
# A driver, whose child leaves a grandchild to process 1, as a raylet its agents.
DRIVER = """
import subprocess, sys, time
from tune.cluster.watcher import watched
with watched():
    child = "import subprocess, sys; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True)"
    subprocess.run([sys.executable, "-c", child], check=True)
    print("ready", flush=True)
    if sys.argv[1] == "wait":
        sys.stdin.read()
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(pid: int) -> None:
    while runs(pid):  # the test's own time limit is the limit
        time.sleep(0.02)


def begun(how: str) -> tuple[subprocess.Popen[str], int]:
    """A driver, and the process that it leaves behind."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    left = int(process.stdout.readline())
    assert process.stdout.readline() == "ready\n"
    return process, left


@pytest.mark.timeout(30)
def test_kill_9_ends_what_was_started() -> None:
    process, left = begun("wait")
    assert runs(left)
    process.kill()
    process.communicate()
    wait_for_end(left)


@pytest.mark.timeout(30)
def test_an_orderly_end_waits_for_it_too() -> None:
    process, left = begun("end")
    process.communicate()
    assert process.returncode == 0
    assert not runs(left)


@pytest.mark.timeout(30)
def test_what_others_started_goes_on() -> None:
    other = subprocess.Popen(["sleep", "600"])
    process, left = begun("wait")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for_end(left)
    assert other.poll() is None
    other.kill()
    other.wait()


def test_the_environment_is_as_before() -> None:
    before = dict(os.environ)
    with watched(), watched():
        assert dict(os.environ) != before
    assert dict(os.environ) == before
