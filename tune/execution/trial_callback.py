"""Follows running trials, and keeps ledger, TensorBoard and terminal told."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune import Callback

from tune.execution.ended_trials import EndedTrials
from tune.execution.memory_monitor import in_words
from tune.execution.trainings import LOOK, running_view
from tune.execution.trial import Setting
from tune.monitor.kept_runs import KeptRuns
from tune.monitor.progress import ProgressFeed, work_seconds
from tune.monitor.runs import run_name
from tune.monitor.tensorboard import close_run
from tune.monitor.terminal import LiveView, TrialView
from tune.pipeline.saves import Saves
from tune.storage.ledger import Ledger, Outcome

_RAISED = "ray::"  # where Ray begins to tell of an error that a worker's own code has raised


class TrialCallback(Callback):
    """Follows the trials: the view is refreshed, and a trial that could not record its own end gets it recorded.

    Args:
        setting: that all trials share.
        ledger: of their outcomes.
        view: for the user.
        saves: of trainings, forgotten as trials end.
        runs: those in TensorBoard that are kept.
        check: raises where this driver must stop, and is called often.
        watch: is shown Tune's trials often.
    """

    def __init__(
        self,
        setting: Setting,
        ledger: Ledger,
        view: LiveView,
        saves: Saves,
        runs: KeptRuns,
        check: Callable[[], None],
        watch: Callable[[Sequence[Any]], None] = lambda trials: None,
    ) -> None:
        self._setting, self._ledger, self._view, self._saves, self._runs = setting, ledger, view, saves, runs
        self._check, self._watch = check, watch
        self._feed: ProgressFeed | None = None
        self._looked = 0.0
        self._values: dict[int, dict[str, float]] = {}
        self._right: dict[int, dict[str, str]] = {}
        self._last: dict[int, dict[str, Any]] = {}  # trial → what it told after its last epoch
        self._aside: dict[int, Outcome] = {}  # of trials that were promoted, the outcome before
        self._outage: OSError | None = None
        self._over = EndedTrials()
        self._active: dict[int, TrialView] = {}
        self._ended: list[TrialView] = []  # of which the view does not know
        self._stages: dict[str, tuple[int, int]] = {}  # times built, times reused
        for outcome in ledger.known():
            self._count(outcome)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks into a state that is never read

    def listen(self, feed: ProgressFeed) -> None:
        """Takes the trials' progress from there."""
        self._feed = feed
        self.refresh(last=True)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number, params = trial.config["trial"], trial.config["params"]
        if trial.config.get("promotions") and number not in self._aside and (aside := self._ledger.outcome(number)):
            self._aside[number] = aside
            self._add_work(aside, -1)  # its next record has this work, too
        earlier = self._aside.get(number)
        self._values.setdefault(number, dict(earlier.intermediate) if earlier else {})
        self._right.setdefault(number, dict(earlier.right) if earlier else {})
        before = trial.config.get("before") or (earlier.seconds if earlier else 0.0)
        started = time.time() - before
        shown = TrialView(number, run_name(number, params), "running", started=started, promoted=earlier is not None)
        self._active[number] = shown

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "outage" in result:
            self._outage = OSError(result["outage"] + _on(result.get("hostname")))
        if "outcome" in result:
            self._ledger.learn(trial.config["trial"], result["outcome"])
        if "epoch" in result:
            number = trial.config["trial"]
            self._values[number][str(result["epoch"])] = result["psd"]
            self._last[number] = result
            if "right" in result:
                self._right[number][str(result["epoch"])] = result["right"]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._settle(trial, "pruned", None)
        self._over.add(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._settle(trial, "failed", _reason(trial))
        self._over.add(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._outage is not None:  # raised here, as Tune takes what other callbacks raise for a trial's failure
            raise self._outage
        self._check()
        if self.refresh(trials):
            self._watch(trials)
        self._over.forget(trials)

    def refresh(self, trials: Sequence[Any] = (), last: bool = False) -> bool:
        """Brings the view up to date, at most every half second; returns True where it did. `trials` are Tune's."""
        if not last and time.time() - self._looked < LOOK:
            return False
        self._looked = time.time()
        self._collect()
        for number in (trial.config["trial"] for trial in trials if trial.status == trial.PAUSED):
            if self._active[number].state == "running":
                self._active[number] = replace(self._active[number], state="waiting", done=0, total=0)
        self._view.update([*self._ended, *self._active.values()], self._stages)
        self._ended.clear()
        return True

    def _collect(self) -> None:
        """Shows what is new of the trials' progress."""
        for number, message in self._feed.look().items() if self._feed else ():
            if number in self._active and self._active[number].state == "running":
                self._active[number] = running_view(self._active[number], message)

    def _settle(self, trial: Any, status: Any, error: str | None) -> None:
        if self._outage is not None:
            return  # the trial runs again once the storage does
        try:
            self._record(trial, status, error)
        except OSError as problem:
            self._outage = problem

    def _record(self, trial: Any, status: Any, error: str | None) -> None:
        number, params = trial.config["trial"], trial.config["params"]
        outcome = self._ledger.outcome(number, trial.config.get("promotions", 0))
        if outcome is None:
            outcome = self._ledger.record(self._unrecorded(number, params, status, error))
            last = self._last.get(number, {"metrics": {}, "epoch": 0})
            end = (outcome.status, last["metrics"], last["epoch"])
            close_run(self._setting.home, self._setting.space, number, params, *end)
        self._saves.forget([outcome])
        self._runs.add(outcome)
        self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        """Takes a trial among those that have ended."""
        for told in (self._active, self._values, self._right, self._last, self._aside):
            told.pop(outcome.trial, None)
        self._ended.append(_ended(outcome))
        self._add_work(outcome, 1)

    def _add_work(self, outcome: Outcome, sign: int) -> None:
        for name, row in outcome.work.items():
            built, reused = self._stages.get(name, (0, 0))
            self._stages[name] = built + sign * int(row.get("built", 0)), reused + sign * int(row.get("reused", 0))

    def _unrecorded(self, number: int, params: dict[str, Any], status: Any, error: str | None) -> Outcome:
        ended = round(time.time(), 3)
        started = (number in self._active and self._active[number].started) or ended
        work = self._last.get(number, {}).get("work", {})
        return Outcome(
            trial=number,
            status=status,
            params=params,
            seconds=round(max(ended - started, work_seconds(work)), 3),
            ended=ended,
            seed=self._setting.seed,
            error=error,
            intermediate=self._values.get(number, {}),
            right=self._right.get(number, {}),
            work=work,
            earlier=self._aside[number].spans if number in self._aside else [],
        )


def _reason(trial: Any) -> str:
    """Says why a trial is not tried again: its worker was lost once too often, or raised what is no trial's own."""
    said = "its worker died"
    with suppress(OSError, TypeError):  # Tune's get_error() looks where the file has not been copied to yet
        said = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    last = said.strip().rpartition("Failure # ")[2]
    what = "its worker failed" if _RAISED in "".join(last.splitlines()[:2]) else "its worker was lost"
    return f"{what} {trial.num_failures} times: {in_words(last)}"


def _on(host: str | None) -> str:
    """The node that something comes from, where it is not this one."""
    return "" if host in (None, socket.gethostname()) else f" (on {host})"


def _ended(outcome: Outcome) -> TrialView:
    return TrialView(
        outcome.trial,
        run_name(outcome.trial, outcome.params),
        outcome.status,
        metrics=outcome.metrics,
        error=outcome.error,
    )
