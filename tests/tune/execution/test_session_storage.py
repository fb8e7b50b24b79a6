"""The beginning of a session beside who removes from the store, and its end where the storage is gone."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, tiny_space
from tune.execution.session import Session
from tune.planning.experiment import Options
from tune.planning.preflight import Plan
from tune.storage.care import exclusion
from tune.storage.care.exclusion import StoreLock
from tune.storage.care.usage import usage_of
from tune.storage.folder import Storage
from tune.storage.patience import PATIENCE


def test_a_search_that_waits_for_the_store_can_be_found_as_its_user(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tiny_space()
    plan = Plan(space, Storage(tmp_path), "one", False, space.config(PARAMS), tiny_dataset)
    lock = StoreLock(plan.storage.child("store"))
    found: list[Storage] = []

    def look(seconds: float) -> None:
        found.extend(usage_of(plan.storage).experiments)
        lock.__exit__(None, None, None)

    with lock:
        monkeypatch.setattr(exclusion, "time", SimpleNamespace(sleep=look))
        Session(plan, mock.Mock(address=None), Options(quiet=True), mock.Mock())._begin()
    assert found == [plan.home]
    assert "Note: waiting until process" in capsys.readouterr().err


def test_a_storage_that_ended_the_search_is_not_waited_for_again(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = tiny_space()
    plan = Plan(space, Storage(tmp_path, PATIENCE), "one", False, space.config(PARAMS), tiny_dataset)
    session = Session(plan, mock.Mock(address=None), Options(quiet=True), mock.Mock())

    def silent(*words: Any) -> Any:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def search(earlier: Any) -> None:
        monkeypatch.setattr(Storage, "reading", silent)
        monkeypatch.setattr("tune.storage.folder.names_in", silent)
        monkeypatch.setattr("tune.storage.patience.time.sleep", lambda seconds: pytest.fail("waited once more"))
        silent()

    monkeypatch.setattr(session, "_search", search)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        session.run([])
