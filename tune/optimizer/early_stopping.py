"""Stops U-Nets early that are clearly worse than others were after as many epochs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from components.intervals import standard_error
from tune.storage.ledger import Outcome


class SuccessiveHalving(FIFOScheduler):
    """Asynchronous successive halving (Li et al., MLSys 2020): after `first`, 2·`first`, 4·`first` … epochs the better
    half goes on.

    Ray's own ASHA forgets its rungs with the driver, and may stop a trial after its last epoch, when the work is done.
    This one is told what the ledger knows, so a resumed search decides as the undisturbed one would, and compares a
    trial only with others at the same epoch. What lies below the better half by less than one standard error of a share
    of the validation images goes on, too: it may be as good.

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
        self._rungs: dict[int, dict[str, float]] = {}
        while first < epochs:
            self._rungs[first] = {}
            first *= 2
        for outcome in known:
            for epoch, value in outcome.intermediate.items():
                if int(epoch) in self._rungs:
                    self._rungs[int(epoch)][f"known-{outcome.trial}"] = value

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        rung = self._rungs.get(int(result.get("epoch") or 0))
        value = result.get(self._compared)
        if rung is None or value is None:
            return TrialScheduler.CONTINUE
        # by number, so that a trial that is taken up again replaces its own entry
        rung[f"known-{result['trial']}"] = value
        ranked = sorted(rung.values(), reverse=True)
        least = ranked[(len(ranked) - 1) // 2]
        noise = standard_error(least, self._images) if self._images else 0.0
        return TrialScheduler.CONTINUE if value >= least - noise else TrialScheduler.STOP
