"""The driver's end of a trial: what it takes from the trial, and what it asks the storage for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, setting_on
from tune.execution.trial_callback import TrialCallback
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome


def test_what_a_trial_tells_is_not_read(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = setting_on(tmp_path, tiny_dataset)
    outcome = Outcome(trial=3, status="finished", params=PARAMS, metrics={"psd": 0.5, "cost": 8.0}, seconds=1.0, seed=0)
    told = Ledger(setting.home).record(outcome)
    asked: list[str] = []

    def counted(name: str) -> Any:
        method = getattr(Storage, name)
        return lambda storage, *args: asked.append(name) or method(storage, *args)

    view, empty = mock.Mock(), Ledger(setting.home.child("empty"))
    callback = TrialCallback(setting, empty, view, mock.Mock(), mock.Mock(), lambda: None)
    callback._ledger = Ledger(setting.home)
    for name in ("read", "exists", "_listed"):
        monkeypatch.setattr(Storage, name, counted(name))
    trial = SimpleNamespace(config={"trial": 3, "params": PARAMS})
    callback.on_trial_start(1, [], trial)
    callback.on_trial_result(1, [], trial, {"trial": 3, "outcome": told.model_dump_json()})
    callback.on_trial_complete(1, [], trial)
    callback.refresh(last=True)
    assert asked == []
    ((shown, _), _) = view.update.call_args
    assert [(trial.number, trial.state) for trial in shown] == [(3, "finished")]
