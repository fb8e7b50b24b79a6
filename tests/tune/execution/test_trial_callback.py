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


def test_a_promoted_trial_goes_on_from_what_it_was_set_aside_with(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, view = setting_on(tmp_path, tiny_dataset), mock.Mock()
    ledger = Ledger(setting.home)
    work = {"gan": {"built": 1, "reused": 0, "seconds": 4.0}, "unet": {"built": 0, "reused": 0, "seconds": 3.0}}
    known = {"intermediate": {"1": 0.5}, "right": {"1": "f"}, "seconds": 7.0, "ended": 100.0, "work": work}
    ledger.record(Outcome(trial=3, status="pruned", params=PARAMS, **known))
    callback = TrialCallback(setting, ledger, view, mock.Mock(), mock.Mock(), lambda: None)

    def shown() -> tuple[list[tuple[str, bool]], dict[str, tuple[int, int]]]:
        callback.refresh(last=True)
        ((trials, stages), _) = view.update.call_args
        return [(trial.state, trial.promoted) for trial in trials], dict(stages)

    assert shown() == ([("pruned", False)], {"gan": (1, 0), "unet": (0, 0)})
    trial = SimpleNamespace(config={"trial": 3, "params": PARAMS, "promotions": 1})
    monkeypatch.setattr("time.time", lambda: 200.0)
    for _ in range(2):  # the second time as its worker was lost
        callback.on_trial_start(1, [], trial)
        assert shown() == ([("running", True)], {"gan": (0, 0), "unet": (0, 0)})
    told = {"epoch": 2, "psd": 0.75, "metrics": {}, "right": "7", "work": {**work, "unet": {"seconds": 5.0}}}
    callback.on_trial_result(1, [], trial, told)
    monkeypatch.setattr("time.time", lambda: 202.0)
    callback.on_trial_complete(1, [], trial)
    assert shown() == ([("pruned", False)], {"gan": (1, 0), "unet": (0, 0)})
    outcome = ledger.outcome(3)
    assert outcome is not None
    assert (outcome.status, outcome.seconds, outcome.spans) == ("pruned", 9.0, [[93.0, 100.0], [200.0, 202.0]])
    assert (outcome.intermediate, outcome.right) == ({"1": 0.5, "2": 0.75}, {"1": "f", "2": "7"})
    assert outcome.work["unet"] == {"seconds": 5.0}


@pytest.mark.parametrize("seen", [True, False], ids=["and was seen so", "unseen"])
def test_of_a_trial_that_was_paused_the_share_that_it_had_counts(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    ledger, now = Ledger(setting_on(tmp_path, tiny_dataset).home), [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    callback = TrialCallback(
        setting_on(tmp_path, tiny_dataset), ledger, mock.Mock(), mock.Mock(), mock.Mock(), lambda: None
    )
    trial = SimpleNamespace(config={"trial": 3, "params": PARAMS}, status="PAUSED", PAUSED="PAUSED")
    callback.on_trial_start(1, [trial], trial)
    now[0] += 10
    trial.config["before"] = 10.0  # as the scheduler gives it back
    if seen:
        callback.refresh([trial], last=True)
    now[0] += 600
    callback.on_trial_start(1, [trial], trial)
    now[0] += 5
    callback.on_trial_complete(1, [trial], trial)
    outcome = ledger.outcome(3)
    assert outcome is not None
    assert outcome.seconds == 15


def test_a_promoted_trial_whose_worker_is_lost_at_once_keeps_its_scores(tmp_path: Path, tiny_dataset: Dataset) -> None:
    setting = setting_on(tmp_path, tiny_dataset)
    ledger = Ledger(setting.home)
    ledger.record(Outcome(trial=3, status="pruned", params=PARAMS, intermediate={"1": 0.5}, ended=1.0))
    callback = TrialCallback(setting, ledger, mock.Mock(), mock.Mock(), mock.Mock(), lambda: None)
    config = {"trial": 3, "params": PARAMS, "promotions": 1}
    trial = SimpleNamespace(config=config, error_file=None, num_failures=3)
    callback.on_trial_start(1, [], trial)
    callback.on_trial_error(1, [], trial)
    outcome = ledger.outcome(3)
    assert outcome is not None
    assert (outcome.status, outcome.promotions, outcome.intermediate) == ("failed", 1, {"1": 0.5})


LOST = "Failure # 1 (occurred at …)\nThe actor died unexpectedly before finishing this task.\n"
FULL = "Failure # 1 (occurred at …)\nTask was killed as memory is short.\n7 0.5 ray::ImplicitFunc.train\n"
RAISED = "Failure # 2 (occurred at …)\nray::ImplicitFunc.train() (pid=1)\n  File …\nImportError: no plug-in here\n"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (LOST, "its worker was lost 2 times: The actor died unexpectedly before finishing this task."),
        (RAISED + LOST, "its worker was lost 2 times: The actor died unexpectedly before finishing this task."),
        (FULL, "its worker was lost 2 times: 7 0.5 ray::ImplicitFunc.train"),
        (LOST + RAISED, "its worker failed 2 times: ImportError: no plug-in here"),
    ],
)
def test_a_worker_that_was_not_lost_is_not_said_to_be(
    tmp_path: Path, tiny_dataset: Dataset, said: str, error: str
) -> None:
    setting = setting_on(tmp_path, tiny_dataset)
    ledger = Ledger(setting.home)
    callback = TrialCallback(setting, ledger, mock.Mock(), mock.Mock(), mock.Mock(), lambda: None)
    (tmp_path / "error.txt").write_text(said)
    config = {"trial": 3, "params": PARAMS}
    trial = SimpleNamespace(config=config, error_file=f"{tmp_path}/error.txt", num_failures=2)
    callback.on_trial_error(1, [], trial)
    (outcome,) = ledger.outcomes()
    assert outcome.error == error


def test_a_node_that_may_not_use_the_storage_is_named(tmp_path: Path, tiny_dataset: Dataset) -> None:
    setting = setting_on(tmp_path, tiny_dataset)
    ledger = Ledger(setting.home)
    callback = TrialCallback(setting, ledger, mock.Mock(), mock.Mock(), mock.Mock(), lambda: None)
    trial = SimpleNamespace(config={"trial": 3, "params": PARAMS}, error_file=None, num_failures=1)
    callback.on_trial_result(1, [], trial, {"outage": "s3://b/a: ACCESS_DENIED", "hostname": "worker-1"})
    callback.on_trial_error(1, [], trial)
    with pytest.raises(OSError, match=r"^s3://b/a: ACCESS_DENIED \(on worker-1\)$"):
        callback.on_step_end(1, [])
    assert ledger.outcomes() == []


def test_who_watches_the_trials_sees_them_twice_a_second(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, now, seen = setting_on(tmp_path, tiny_dataset), [1000.0], []
    monkeypatch.setattr("time.time", lambda: now[0])
    ledger = Ledger(setting.home)
    callback = TrialCallback(setting, ledger, mock.Mock(), mock.Mock(), mock.Mock(), lambda: None, seen.append)
    trials = [SimpleNamespace(config={"trial": 3, "params": PARAMS}, status="RUNNING", PAUSED="PAUSED")]
    for _ in range(11):
        callback.on_step_end(1, trials)
        now[0] += 0.1
    assert seen == [trials] * 3
