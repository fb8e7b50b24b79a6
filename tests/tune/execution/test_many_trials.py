"""The driver's own work for a trial does not grow with the trials before it; Tune's trials are pretended."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from components.datasets.dataset import Dataset
from components.datasets.raw import RawSplit
from tests.tune.searches import RANGES, space_of
from tune.execution import ended_trials
from tune.execution.ended_trials import EndedTrials
from tune.execution.trial import Setting
from tune.execution.trial_callback import TrialCallback
from tune.metrics import OBJECTIVES
from tune.monitor import kept_runs
from tune.monitor.kept_runs import KeptRuns
from tune.monitor.terminal import LiveView
from tune.optimizer.searcher import LedgerSearcher
from tune.pipeline.recipe import Development
from tune.pipeline.saves import Saves
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome
from tune.storage.store import Store

TRIALS = 60


def pretended(config: dict[str, Any]) -> SimpleNamespace:
    """A trial as far as the driver looks at Tune's."""
    state = {"status": "RUNNING", "PAUSED": "PAUSED", "num_failures": 1, "error_file": None}
    statistics = SimpleNamespace(metric_analysis={"psd": {"max": 0.5}}, metric_n_steps={"psd": {"5": [0.5]}})
    return SimpleNamespace(config=config, run_metadata=statistics, **state)


class Search:
    """A search whose trials end at once, every seventh by a lost worker."""

    def __init__(self, folder: Path, trials: int) -> None:
        home = Storage(folder).child("one")
        space = space_of("defense", f"search.sampler: random\n{RANGES}")
        self.searcher = LedgerSearcher(space, Ledger(home), trials=trials, seed=0)
        split = RawSplit(np.zeros((40, 1, 8, 8), np.uint8), (np.arange(40) % 4).astype(np.uint8))
        data = Development.for_search(Dataset.cut("empty", split, split, validation_fraction=0.2))
        saves = Saves(space, data, 0, Store(Storage(folder).child("store")), lambda: self.searcher.going_on)
        runs = KeptRuns(home, OBJECTIVES["defense"])
        runs.resume(self.searcher.ledger.known())
        setting = Setting(space, str(folder), "one", 0, 1.0, 0.0, 4, "none")
        self.file = io.StringIO()
        self.view = LiveView("one", trials, OBJECTIVES["defense"], console=Console(file=self.file, width=120))
        self.callback = TrialCallback(setting, self.searcher.ledger, self.view, saves, runs, lambda: None)
        self.callback.refresh(last=True)
        self.workers = Ledger(home)
        self.listed: list[Any] = []  # Tune's own list

    def trials(self) -> Iterator[int]:
        """Runs one trial after another."""
        while isinstance(proposal := self.searcher.suggest("ray"), dict):
            trial, number = pretended(proposal), proposal["trial"]
            self.listed.append(trial)
            self.callback.on_trial_start(0, self.listed, trial)
            metrics = {"psd": number / 100, "cost": 10}
            if number % 7 != 3:
                self.workers.record(Outcome(**proposal, status="finished", metrics=metrics, work={"gan": {"built": 1}}))
            self.searcher.on_trial_complete("ray")
            ended = self.callback.on_trial_complete if number % 7 != 3 else self.callback.on_trial_error
            ended(0, self.listed, trial)
            self.callback.on_step_end(0, self.listed)
            yield number


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the storage is asked to read or list."""
    calls: list[str] = []
    for method in ("read", "names", "folders"):
        original = getattr(Storage, method)

        def counted(self: Storage, *names: str, of: Any = original, method: str = method) -> Any:
            calls.append(" ".join([method, Path(self.uri).name, *names]))
            return of(self, *names)

        monkeypatch.setattr(Storage, method, counted)
    return calls


def test_a_trial_costs_as_many_requests_after_fifty_others(tmp_path: Path, asked: list[str]) -> None:
    search, requests = Search(tmp_path, TRIALS), []
    asked.clear()
    for number in search.trials():
        if number % 7 != 3:  # one whose worker was lost is recorded here, and its run ended
            assert [call for call in asked if "trials" in call or "proposals" in call] == [
                f"read trials {number:03d}.json"
            ]
            requests.append(len(asked))
        asked.clear()
    assert set(requests) == {1}


def test_tunes_list_of_ended_trials_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_trials, "KEPT", 5)
    search = Search(tmp_path, TRIALS)
    assert max(len(search.listed) for _ in search.trials()) == 5


def test_ended_trials_give_their_statistics_up_and_others_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_trials, "KEPT", 2)
    *over, running = (pretended({"trial": number, "params": {}}) for number in range(5))
    listed, ended = [*over, running], EndedTrials()
    for trial in over:
        ended.add(trial)
    assert len(listed) == 5
    ended.forget(listed)
    assert listed == [*over[-2:], running]
    assert not any(trial.run_metadata.metric_analysis or trial.run_metadata.metric_n_steps for trial in over)
    assert running.run_metadata.metric_analysis
    assert {trial._state_json for trial in over} == {"{}"}
    assert not hasattr(running, "_state_json")


def test_a_resumed_search_counts_all_and_tells_of_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_runs, "LATEST", 5)
    first = Search(tmp_path, 20)
    list(first.trials())
    resumed = Search(tmp_path, 30)
    assert list(resumed.trials()) == list(range(20, 30))
    resumed.callback.refresh(last=True)
    told = resumed.view.snapshot()
    assert told.counted == {"finished": 26, "failed": 4}
    assert told.stages == {"gan": (26, 0)}
    assert told.known == 20
    lines = resumed.file.getvalue()
    assert lines.count("finished") == 9 + 1  # and in what is known from before
