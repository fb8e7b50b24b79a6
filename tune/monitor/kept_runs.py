"""Limits TensorBoard's runs: of a search with many trials those of the best, the latest and a sample of others stay.

TensorBoard reads every run again and again, and its pages list each of them. What is left out is in the ledger, in
trials.csv and in the report.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from tune.metrics import Direction
from tune.monitor.runs import run_name
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
            try:
                there = self._folder.folders()
            except OSError as error:
                log.warning("TensorBoard's runs cannot be listed: %s", error)
            else:
                self._remove(name for name in there if name in gone)

    def add(self, outcome: Outcome) -> None:
        """Takes a trial in that has just ended, and removes the run that is one too many."""
        self._remove(self._add(outcome, again=outcome.promotions > 0))

    def _add(self, outcome: Outcome, again: bool = False) -> list[str]:
        self.left_out -= again and outcome.trial not in self._selection  # it has a run again
        self._names[outcome.trial] = run_name(outcome.trial, outcome.params)
        known = has_objectives(outcome, self._objectives)
        losses = losses_of(outcome, self._objectives) if known else None
        gone = self._selection.add(outcome.trial, losses, again=again)
        self.left_out += len(gone)
        return [self._names.pop(trial) for trial in gone]

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._folder.child(name).remove_tree()
            except OSError as error:  # no reason to end a search; the next start tries again
                log.warning("TensorBoard's run %s is not removed: %s", name, error)
