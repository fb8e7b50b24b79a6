"""Searches and what removes from their store: whichever comes second sees the first."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tune.storage.test_lock import Remote
from tune.errors import Refused
from tune.storage import lock as lock_module
from tune.storage.care import exclusion
from tune.storage.care.exclusion import StoreLock, searches_kept_out, wait_for_removals
from tune.storage.folder import Storage


@pytest.fixture(params=[Storage, Remote], ids=["kernel", "heartbeat"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """The folder `store/` on a file system, and where there are no locks."""
    folder: Storage = request.param(tmp_path / "store")
    return folder


def test_a_search_waits_until_nothing_is_removed(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    lock = StoreLock(store, beat=0.05)
    left = [3]

    def look(seconds: float) -> None:
        left[0] -= 1
        if not left[0]:
            lock.__exit__(None, None, None)

    lock.__enter__()
    monkeypatch.setattr(exclusion, "time", SimpleNamespace(sleep=look))
    wait_for_removals(store, told.append)
    assert left == [0]
    assert len(told) == 1
    assert f"has removed from {store.uri} what nobody uses" in told[0]
    wait_for_removals(store, lambda said: pytest.fail(said))


def test_who_was_killed_while_it_removed_is_not_waited_for(store: Storage, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    signed = lock_module._Holder(
        host="here", pid=gone.pid, place=lock_module._place(), token="t", time=time.time(), started=1
    )
    Storage(tmp_path / "store").write(StoreLock.file, signed.model_dump_json().encode())
    wait_for_removals(store, lambda said: pytest.fail(said))
    assert StoreLock(store).holder() is None


def test_two_that_remove_are_refused(tmp_path: Path) -> None:
    place = Storage(tmp_path)
    place.child("store").write("note", b"")
    said = "store: expected no other command that removes from this store, found one on"
    with searches_kept_out(place), pytest.raises(Refused, match=said), searches_kept_out(place):
        pass
