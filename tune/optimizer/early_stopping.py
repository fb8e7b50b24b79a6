"""Stops U-Nets early that are clearly worse than others of equal fidelity, or sets them aside to go on later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from components.intervals import paired_error, standard_error
from tune.optimizer.cost_limit import CostLimit
from tune.space.config import Fidelity, rungs, stops_early
from tune.space.space import SearchSpace
from tune.storage.ledger import Outcome, Params

COMPARED = "psd"  # reported with `epoch`; a share of the validation images, higher is better


class Score(NamedTuple):
    """A score that a trial had reached after an epoch."""

    value: float
    right: str | None  # which validation images are right, the bits of a number as hex; None = not known


class Rung(NamedTuple):
    """An epoch after which the trials of one fidelity are compared, those within the allowed cost with each other."""

    fidelity: Fidelity
    epoch: int
    allowed: bool


class SuccessiveHalving(FIFOScheduler):
    """Asynchronous successive halving (Li et al., MLSys 2020): after `search.warmup_epochs`, twice, four times as many
    the better half goes on.

    Ray's own ASHA forgets its rungs with the driver, and may stop a trial after its last epoch, when the work is done.
    This one is told what the ledger knows, so a resumed search decides as the undisturbed one would, and compares a
    trial only with others that had learned from as many images after as many of as many epochs. What lies below the
    better half by less than one standard error goes on, too: it may be as good. The error is that of the difference on
    the same validation images where it is known which are right, and else that of a share of them.

    With `search.promotion` a trial that does not go on is set aside, and may be promoted (algorithm 2 there): once it
    belongs to the better half, as worse ones have come to its rung since, it goes on from where it was.

    Args:
        space: what is searched.
        known: outcomes of earlier trials.
        images: validation images, of which a score is the share that is right; None = it has no noise.
    """

    def __init__(self, space: SearchSpace, known: Iterable[Outcome] = (), images: int | None = None) -> None:
        super().__init__()
        self._space, self._images = space, images
        self._limit = CostLimit(space, space.fixed["search.max_cost"])
        self._scores: dict[Rung, dict[int, Score]] = defaultdict(dict)  # by trial
        self._aside: dict[int, Rung] = {}  # trial → where it was set aside
        self._promoted: dict[int, int] = {}  # trial → epoch up to which it is not judged again
        for outcome in known:
            self._learn(outcome)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if COMPARED not in result:
            return TrialScheduler.CONTINUE
        number = int(result["trial"])
        rung = next((rung for rung in self._rungs(trial.config["params"]) if rung.epoch == result.get("epoch")), None)
        if rung is None:
            return TrialScheduler.CONTINUE
        # by number, so that a trial that is taken up again replaces its own entry
        own = self._scores[rung][number] = Score(result[COMPARED], result.get("right"))
        if rung.epoch <= self._promoted.get(number, 0) or self._goes_on(own, self._least(rung)):
            return TrialScheduler.CONTINUE
        self._aside[number] = rung
        return TrialScheduler.STOP

    @property
    def promotes(self) -> bool:
        """True where trials are set aside, and not stopped for good."""
        return bool(self._space.fixed["search.promotion"])

    @property
    def promotable(self) -> list[int]:
        """The trials that were set aside and may go on by now: those after most epochs first, and of these the best."""
        if not self.promotes:
            return []
        least = {rung: self._least(rung) for rung in set(self._aside.values())}
        found = []
        for number, rung in self._aside.items():
            own = self._scores[rung][number]
            if self._goes_on(own, least[rung]):
                found.append((-rung.epoch, -own.value, number))
        return [number for *_, number in sorted(found)]

    def promote(self, number: int) -> None:
        """Notes that a trial that was set aside goes on."""
        self._promoted[number] = self._aside.pop(number).epoch

    def _learn(self, outcome: Outcome) -> None:
        reached = [rung for rung in self._rungs(outcome.params) if str(rung.epoch) in outcome.intermediate]
        for rung in reached:
            epoch = str(rung.epoch)
            self._scores[rung][outcome.trial] = Score(outcome.intermediate[epoch], outcome.right.get(epoch))
        if reached and outcome.status == "pruned":
            self._aside[outcome.trial] = reached[-1]

    def _rungs(self, params: Params) -> Iterator[Rung]:
        fidelity, allowed = self._space.fidelity(params), self._limit.allows(params)
        epochs = rungs(self._space.fixed["search.warmup_epochs"], fidelity.epochs)
        return (Rung(fidelity, epoch, allowed) for epoch in epochs)

    def _least(self, rung: Rung) -> Score:
        """The worst of the better half; of equals the later trial's, whichever came to the rung first."""
        ranked = sorted(self._scores[rung].items(), key=lambda item: (-item[1].value, item[0]))
        return ranked[(len(ranked) - 1) // 2][1]

    def _goes_on(self, own: Score, least: Score) -> bool:
        """Tells whether a score is in the better half, or as good as that within the noise."""
        return own.value >= least.value - self._noise(least, own)

    def _noise(self, least: Score, own: Score) -> float:
        if not self._images:
            return 0.0
        if least.right is None or own.right is None:
            return standard_error(least.value, self._images)
        return paired_error(int(least.right, 16), int(own.right, 16), self._images)[1]


def halving_of(space: SearchSpace, known: Iterable[Outcome], images: int) -> SuccessiveHalving | None:
    """Early stopping, where it is wanted and the target has U-Net epochs to compare.

    Args: see `SuccessiveHalving`.
    """
    return SuccessiveHalving(space, known, images) if stops_early(space.fixed) else None
