"""Leases: one holder at a time, and none that outlives its process."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tune.cluster.leases import ClusterLeases
from tune.execution.trial import leases_of
from tune.storage.folder import Storage
from tune.storage.leases import FileLeases
from tune.storage.store import Store

HOLD = """
import sys, time
from pathlib import Path
from tune.storage.leases import FileLeases
assert FileLeases(Path(sys.argv[1])).acquire(["key"]) == "key"
print("held", flush=True)
time.sleep(60)
"""
ROOT = Path(__file__).parents[3]


def test_a_lease_has_one_holder(tmp_path: Path) -> None:
    one, other = FileLeases(tmp_path), FileLeases(tmp_path)
    assert one.acquire(["key"])
    assert not other.acquire(["key"])
    assert other.acquire(["another"])
    one.release("key")
    assert other.acquire(["key"])


def test_the_same_holder_does_not_get_it_twice(tmp_path: Path) -> None:
    leases = FileLeases(tmp_path)
    assert leases.acquire(["key"])
    assert not leases.acquire(["key"])


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        leases = FileLeases(tmp_path)
        assert not leases.acquire(["key"])
    finally:
        holder.kill()
        holder.wait()
    began = time.monotonic()
    assert leases.acquire(["key"])
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("kind", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_left_to_the_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    store = Store(Storage(tmp_path, patience=600.0))
    assert isinstance(leases_of(store), FileLeases)

    def flock(handle: int, operation: int) -> None:
        raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr("tune.storage.patience.time.sleep", lambda seconds: pytest.fail("it is waited for"))
    assert isinstance(leases_of(store), ClusterLeases)


def test_a_colleague_may_lease_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        assert FileLeases(tmp_path).acquire(["abc"]) == "abc"
    finally:
        os.umask(before)
    assert (tmp_path / "abc.lock").stat().st_mode & 0o777 == 0o664
