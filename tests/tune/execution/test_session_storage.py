"""The end of a session whose storage is gone."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, tiny_space
from tune.execution.session import Session
from tune.planning.experiment import Options
from tune.planning.preflight import Plan
from tune.storage.folder import Storage
from tune.storage.patience import PATIENCE


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
