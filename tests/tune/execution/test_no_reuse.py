"""The stores of trials that share nothing: nothing of them stays, however a trial ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, setting_on, tiny_space
from tune.execution import driver
from tune.execution.trial import Setting
from tune.execution.trial_callback import TrialCallback
from tune.optimizer.searcher import LedgerSearcher
from tune.storage.ledger import Ledger, Outcome

ENDS = {0: "finished", 1: "failed", 2: "pruned", 3: "lost"}


def setting_of(folder: Path, dataset: Dataset, *, promotion: bool = False, reuse: bool = False) -> Setting:
    """A search of a trial for each way to end."""
    early = {"search__early_stopping": True, "search__warmup_epochs": 1, "search__promotion": promotion}
    return replace(setting_on(folder, dataset, tiny_space(search__trials=len(ENDS), **early)), reuse=reuse)


def run_trials(setting: Setting, dataset: Dataset) -> LedgerSearcher:
    """What a driver does in a session of it."""
    searcher = LedgerSearcher(setting.space, Ledger(setting.home), trials=len(ENDS), seed=0)
    driver.run_trials(setting, dataset, searcher, 1, mock.Mock(), lambda: None)
    return searcher


def drive(setting: Setting, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Runs the trials, with this test in the place of Tune; returns the stores that are left after each."""
    ledger, left = Ledger(setting.home), {}

    def fit(setting: Setting, dataset: Any, feed: Any, scheduler: Any, callback: TrialCallback, samples: int) -> None:
        for number, end in ENDS.items():
            config = {"trial": number, "params": {**PARAMS, "unet.high_level_weight": 1.0 + number}}
            trial = SimpleNamespace(config=config, error_file=None, num_failures=3)
            ledger.propose(number, config["params"])
            callback.on_trial_start(1, [], trial)
            setting.unshared.write(f"{number:03d}/gan/a/generator.safetensors", b"x" * 10)
            if end in ("finished", "failed"):  # by the worker, which lives on
                ledger.record(Outcome(**config, status=end))
            (callback.on_trial_error if end == "lost" else callback.on_trial_complete)(1, [], trial)
            left[end] = setting.unshared.folders()

    monkeypatch.setattr(driver, "_fit", fit)
    monkeypatch.setattr(driver, "ProgressFeed", mock.Mock(return_value=mock.Mock(look=dict)))
    run_trials(setting, dataset)
    return left


def test_no_trial_leaves_its_store(tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    left = drive(setting_of(tmp_path, tiny_dataset), tiny_dataset, monkeypatch)
    assert left == {"finished": [], "failed": [], "pruned": [], "lost": []}


def test_one_that_was_set_aside_keeps_it_until_the_search_is_over(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = setting_of(tmp_path, tiny_dataset, promotion=True)
    left = drive(setting, tiny_dataset, monkeypatch)
    assert left == {"finished": [], "failed": [], "pruned": ["002"], "lost": ["002"]}
    assert setting.unshared.folders() == ["002"]
    assert run_trials(setting, tiny_dataset).over
    assert setting.unshared.folders() == []


def test_a_session_that_shares_removes_those_of_one_that_did_not(tmp_path: Path, tiny_dataset: Dataset) -> None:
    setting = setting_of(tmp_path, tiny_dataset, reuse=True)
    for number in range(len(ENDS)):
        Ledger(setting.home).record(Outcome(trial=number, status="finished", params=PARAMS))
    setting.unshared.write("000/gan/a/generator.safetensors", b"x" * 10)
    assert run_trials(setting, tiny_dataset).over
    assert setting.unshared.folders() == []
