"""Limits TensorBoard's runs: of a search with many trials those of the best, the latest and a sample of others stay.

TensorBoard reads every run again and again, and its pages list each of them. What is left out is in the ledger, in
trials.csv and in the report.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping

from tune.metrics import Direction
from tune.monitor.runs import SEED, run_name
from tune.optimizer.choice import has_objectives, losses_of
from tune.optimizer.selection import Selection
from tune.storage.folder import Storage
from tune.storage.ledger import Outcome

BEST, LATEST, SAMPLE = 25, 300, 500  # runs, in the terms of `Selection`: some 1,000 after 10,000 trials
log = logging.getLogger(__name__)


class KeptRuns:
    """The runs of one experiment's ended trials.

    Args:
        experiment: its folder.
        objectives: metric → "max" or "min", by which the best are known.
    """

    def __init__(self, experiment: Storage, objectives: Mapping[str, Direction]) -> None:
        self._folder, self._objectives = experiment.child("tensorboard"), objectives
        self._selection = Selection(BEST, LATEST, SAMPLE)
        self._names: dict[int, str] = {}
        self.left_out = 0  # trials that have no run any more

    def resume(self, outcomes: Iterable[Outcome]) -> None:
        """Takes the trials of earlier sessions in; removes runs that a driver has left which was killed."""
        ordered = sorted(outcomes, key=lambda outcome: outcome.trial)
        if gone := {name for outcome in ordered for name in self._add(outcome)}:
            _remove(self._folder, gone.__contains__)

    def add(self, outcome: Outcome) -> None:
        """Takes a trial in that has just ended, and removes the run that is one too many."""
        for name in self._add(outcome, again=outcome.promotions > 0):
            _remove_one(self._folder, name)

    def _add(self, outcome: Outcome, again: bool = False) -> list[str]:
        self.left_out -= again and outcome.trial not in self._selection  # it has a run again
        self._names[outcome.trial] = run_name(outcome.trial, outcome.params)
        known = has_objectives(outcome, self._objectives)
        losses = losses_of(outcome, self._objectives) if known else None
        gone = self._selection.add(outcome.trial, losses, again=again)
        self.left_out += len(gone)
        return [self._names.pop(trial) for trial in gone]


def forget_seeds(experiment: Storage, kept: Collection[str]) -> None:
    """Removes the runs of all retrained seeds but those named: of an earlier choice."""
    _remove(experiment.child("tensorboard"), lambda name: name.startswith(SEED) and name not in kept)


def _remove(folder: Storage, gone: Callable[[str], bool]) -> None:
    """Removes those of all runs. A storage that fails is no reason to end a search; the next start tries again."""
    try:
        there = folder.folders()
    except OSError as error:
        log.warning("TensorBoard's runs cannot be listed: %s", error)
        return
    for name in filter(gone, there):
        _remove_one(folder, name)


def _remove_one(folder: Storage, name: str) -> None:
    try:
        folder.child(name).remove_tree()
    except OSError as error:
        log.warning("TensorBoard's run %s is not removed: %s", name, error)
