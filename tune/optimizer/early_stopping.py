"""Stops U-Nets early that are clearly worse than others were after as many epochs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from components.intervals import paired_error, standard_error
from tune.space.config import rungs
from tune.storage.ledger import Outcome


class Score(NamedTuple):
    """A score that a trial had reached after an epoch."""

    value: float
    right: str | None  # which validation images are right, the bits of a number as hex; None = not known


class SuccessiveHalving(FIFOScheduler):
    """Asynchronous successive halving (Li et al., MLSys 2020): after `first`, 2·`first`, 4·`first` … epochs the better
    half goes on.

    Ray's own ASHA forgets its rungs with the driver, and may stop a trial after its last epoch, when the work is done.
    This one is told what the ledger knows, so a resumed search decides as the undisturbed one would, and compares a
    trial only with others at the same epoch. What lies below the better half by less than one standard error goes on,
    too: it may be as good. The error is that of the difference on the same validation images where it is known which
    are right, and else that of a share of them.

    Args:
        metric: reported with `epoch`; higher is better.
        first: epochs before the first decision.
        epochs: of a whole training; no decision is made at its end.
        known: outcomes of earlier trials.
        images: that the metric is a share of; None = it has no noise.
    """

    def __init__(
        self, metric: str, first: int, epochs: int, known: Iterable[Outcome] = (), images: int | None = None
    ) -> None:
        super().__init__()
        self._images = images
        self._compared = metric
        self._rungs: dict[int, dict[str, Score]] = {epoch: {} for epoch in rungs(first, epochs)}
        for outcome in known:
            for epoch, value in outcome.intermediate.items():
                if int(epoch) in self._rungs:
                    score = Score(value, outcome.right.get(epoch))
                    self._rungs[int(epoch)][f"known-{outcome.trial}"] = score

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        rung = self._rungs.get(int(result.get("epoch") or 0))
        value = result.get(self._compared)
        if rung is None or value is None:
            return TrialScheduler.CONTINUE
        # by number, so that a trial that is taken up again replaces its own entry
        own = rung[f"known-{result['trial']}"] = Score(value, result.get("right"))
        ranked = sorted(rung.values(), key=lambda score: score.value, reverse=True)
        least = ranked[(len(ranked) - 1) // 2]
        return TrialScheduler.CONTINUE if value >= least.value - self._noise(least, own) else TrialScheduler.STOP

    def _noise(self, least: Score, own: Score) -> float:
        if not self._images:
            return 0.0
        if least.right is None or own.right is None:
            return standard_error(least.value, self._images)
        return paired_error(int(least.right, 16), int(own.right, 16), self._images)[1]
