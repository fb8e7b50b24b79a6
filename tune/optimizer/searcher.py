"""Optuna's ask and tell as a Ray Tune Searcher whose memory is the ledger.

Ray's own OptunaSearch pickles its state, leaves NaN trials running for ever, tells early-stopped trials
complete and replays its first points when resumed (ray 2.60). This one is made anew from the ledger at every
start.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ray.tune.search import Searcher

from tune.optimizer.choice import Objectives
from tune.optimizer.costs import StageCosts
from tune.optimizer.early_stopping import SuccessiveHalving
from tune.optimizer.stopping import Clock, StopRules
from tune.optimizer.study import LedgerStudy
from tune.space.space import SearchSpace
from tune.storage.ledger import Ledger, Outcome, Params

__all__ = ["LedgerSearcher", "WarmStart"]

_log = logging.getLogger(__name__)


class WarmStart(NamedTuple):
    """Number of outcomes taken from another experiment."""

    used: int  # finished outcomes that fit this space
    left_out: int  # finished outcomes that do not


class LedgerSearcher(Searcher):
    """Proposes the trials of one search, numbered from 0, until each number below `trials` has a proposal, every point
    of the space has been tried, or a rule ends it.

    A proposal is in the ledger before Ray hears of it, and a trial has ended when its outcome is there. Those
    proposed and not ended when a driver dies are proposed again, unchanged, before any new one.

    Args:
        space: the search space.
        ledger: this experiment's; what it holds already is taken as known.
        trials: how many trials the search has in the end, resumed or not.
        seed: of all suggestions.
        warm_start: ledgers of other experiments to learn from; their trials are never ones of this search.
        points: parameters for the first trials, which come before any suggestion; one left out is suggested.
        startup: how many trials are spread evenly before results guide the others; warm starts count.
        max_cost: the largest metric `cost` that is feasible; None for any.
        objectives: metric → "max" or "min"; by default those of the space's target.
        rules: what ends the search earlier; None = nothing.
        costs: makes what proposals are ranked by, seconds of stages; None = the sampler's own stand.
        halving: says which of the trials that were stopped early are to go on, before any new one is proposed; None =
            none is.

    Attributes:
        halving: as above.

    Raises:
        ValueError: a point that is not in the space.
        OSError: a ledger that cannot be read.
    """

    def __init__(
        self,
        space: SearchSpace,
        ledger: Ledger,
        *,
        trials: int,
        seed: int,
        warm_start: Sequence[Ledger] = (),
        points: Sequence[Mapping[str, Any]] = (),
        startup: int = 8,
        max_cost: float | None = None,
        objectives: Objectives | None = None,
        rules: StopRules | None = None,
        costs: Callable[[], StageCosts] | None = None,
        halving: SuccessiveHalving | None = None,
    ) -> None:
        super().__init__()
        _check(points, space)
        self._ledger = ledger
        self._trials = trials
        self._points = [dict(point) for point in points]
        self._warm_start = list(warm_start)
        self._settings = (space, seed, startup, max_cost, objectives)
        self._rules, self._costs, self.halving = rules, costs, halving
        self._began: dict[int, float] = {}  # number → seconds since 1970, of trials that were handed out here
        self._numbers: dict[str, int] = {}  # Ray's trial id → number, of trials that run
        self._promotions: dict[int, int] = {}  # number → how often it was promoted
        self._outdated = False  # of a trial that was promoted the study knows the outcome before
        self.warm_started: dict[str, WarmStart] = {}
        self._rebuild()

    @property
    def ledger(self) -> Ledger:
        """The ledger of this experiment."""
        return self._ledger

    @property
    def objectives(self) -> Objectives:
        """Metric → "max" or "min"; the first decides."""
        return self._study.objectives

    @property
    def study(self) -> LedgerStudy:
        """The study that Optuna's sampler sees."""
        return self._study

    @property
    def stopped(self) -> str | None:
        """The reason why no further trial is proposed, with the rule that ended it; None while one may be."""
        if self._next is None:
            return f"all {self._trials} trials that were asked for have run"
        if self._study.exhausted:
            within = "" if self._settings[3] is None else " within search.max_cost"
            return f"exhausted: all {self._study.size} points of the space{within} were tried"
        return self._ended_by_rule

    @property
    def _ended_by_rule(self) -> str | None:
        return None if self._rules is None else self._rules.reason(self._ledger.known(), self._spent())

    def _spent(self) -> float:
        """Seconds in which trials ran, until now."""
        return self._clock.seconds([self._began[number] for number in self._numbers.values()], time.time())

    @property
    def over(self) -> bool:
        """True where there is nothing to run: no trial was interrupted, none is promoted, and none is proposed."""
        return not self._interrupted and self.stopped is not None and self._promotable is None

    @property
    def finished(self) -> bool:
        """True where no trial will be handed out any more, whatever becomes of those that run."""
        return self.over and not self._may_promote and not self._may_go_on

    @property
    def most(self) -> int:
        """The largest number of trials that there can be."""
        return min(self._trials, self._study.size or self._trials)

    @property
    def reissued(self) -> list[int]:
        """The numbers of the interrupted trials that are to run again, and have not been handed out yet."""
        return list(self._interrupted)

    @property
    def going_on(self) -> dict[int, Params]:
        """Parameters of the trials that run, are to run again or may be promoted, by number."""
        promotes = self.halving is not None and self.halving.promotes
        aside = [outcome.trial for outcome in self._ledger.known() if promotes and outcome.status == "pruned"]
        return {n: self._params[n] for n in (*self._numbers.values(), *self._interrupted, *aside) if n in self._params}

    def suggest(self, trial_id: str) -> Any:
        """The next trial as `{"trial": number, "params": {…}}`, or Searcher.FINISHED.

        One that goes on after it was set aside also has `promotions`, how often it has done so. None where there may be
        one once those that run have come further.

        Raises:
            OSError: the proposal cannot be written; nothing is lost.
        """
        self._settle(final=True)
        number = self._interrupted.popleft() if self._interrupted else self._promote()
        number = self._propose(trial_id) if number is None else number
        if number is None:
            return None if self._may_promote or self._may_go_on else Searcher.FINISHED
        self._numbers[trial_id], self._began[number] = number, time.time()
        promoted = {"promotions": self._promotions[number]} if number in self._promotions else {}
        return {"trial": number, "params": dict(self._params[number]), **promoted}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learns from the ledger what became of a trial; what Ray says of it is not needed."""
        if trial_id in self._numbers:
            self._ended.add(number := self._numbers.pop(trial_id))
            del self._began[number]
            self._settle(final=False)

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Reads the ledger again."""
        self._rebuild()

    def _settle(self, final: bool) -> None:
        """Tells the study what became of ended trials.

        The driver records some outcomes (pruned, died) just after Ray called `on_trial_complete`. One that is
        missing at the next suggestion is a failure for Optuna, and in the ledger a trial to run again.
        """
        for number in sorted(self._ended):
            outcome = self._ledger.outcome(number, self._promotions.get(number, 0))
            if outcome is not None or final:
                self._finish(number, outcome)
                self._ended.remove(number)
                self._outdated = self._outdated or number in self._promotions

    @property
    def _promotable(self) -> int | None:
        """The trial to promote; None where none is, or the search has ended by a rule."""
        waiting = self.halving.promotable if self.halving else []
        return waiting[0] if waiting and self._ended_by_rule is None else None

    @property
    def _may_promote(self) -> bool:
        """True where no trial is left to propose, but one that runs may bring others into the better half."""
        if self.halving is None or not self.halving.promotes or self.halving.promotable:
            return False  # what could be promoted and was not is held back by a rule
        return bool(self._numbers) and (self._next is None or self._study.exhausted)

    @property
    def _may_go_on(self) -> bool:
        """True where a rule holds further trials back that no longer does once one that runs has gained something."""
        if self._rules is None or not self._numbers or self._next is None or self._study.exhausted:
            return False
        return self._rules.used(self._spent()) < 1  # what is spent does not come back

    def _promote(self) -> int | None:
        number = self._promotable
        if number is not None and self.halving:
            self.halving.promote(number)
            earlier = self._ledger.outcome(number)
            self._promotions[number] = 1 + (earlier.promotions if earlier else 0)
        return number

    def _propose(self, trial_id: str) -> int | None:
        number = self._next
        if number is None or self.stopped is not None:
            return None
        if self._outdated:
            self._rebuild()
        wanted = self._points[number] if number < len(self._points) else {}
        suggested = self._study.suggest(number, wanted, self._remaining(number))
        if suggested is None:
            return None
        params = self._ledger.propose(number, suggested)
        if number < len(self._params):  # a number whose record was lost takes its place among the others
            self._numbers[trial_id] = number  # so that it is none of those that were interrupted
            self._rebuild()
        else:
            self._start(number, params)
        return number

    @property
    def _next(self) -> int | None:
        """The lowest number that no trial has; None where the search has no more."""
        while self._lowest in self._params:
            self._lowest += 1
        return self._lowest if self._lowest < self._trials else None

    def _remaining(self, number: int) -> float:
        """Share of the search that is left before a trial, by number or by budget."""
        used = self._rules.used(self._clock.seconds()) if self._rules else 0.0
        return 1 - min(1.0, max(number / self._trials, used))

    def _rebuild(self) -> None:
        """The study as the ledgers have it."""
        self._study = LedgerStudy(*self._settings, self._costs() if self._costs else None)
        self._outdated = False
        self._ended: set[int] = set()
        for source in self._warm_start:
            self._learn(source)
        self._params: dict[int, Params] = {}
        self._lowest = 0  # no number below it is free
        self._clock = Clock()
        outcomes = {outcome.trial: outcome for outcome in self._ledger.outcomes()}
        ran = {number: outcome.params for number, outcome in outcomes.items()}
        for number, params in sorted({**self._ledger.proposals(), **ran}.items()):
            self._start(number, params)
            if number in outcomes:
                self._finish(number, outcomes[number])
        settled = {*outcomes, *self._numbers.values()}
        self._interrupted = deque(n for n in self._params if n not in settled and n < self._trials)

    def _start(self, number: int, params: Params) -> None:
        self._params[number] = params
        self._study.start(number, params)

    def _finish(self, number: int, outcome: Outcome | None) -> None:
        self._study.finish(number, outcome)
        if outcome is not None:
            self._clock.add(outcome)

    def _learn(self, source: Ledger) -> None:
        finished = [outcome for outcome in source.outcomes() if outcome.status == "finished"]
        used = sum(self._study.learn(outcome, source.uri) for outcome in finished)
        self.warm_started[source.uri] = WarmStart(used, len(finished) - used)
        _log.info("%s: %d outcomes used, %d do not fit this space", source.uri, used, len(finished) - used)


def _check(points: Sequence[Mapping[str, Any]], space: SearchSpace) -> None:
    for index, point in enumerate(points):
        for key, value in point.items():
            if key not in space.ranges or value not in space.ranges[key]:
                raise ValueError(f"points[{index}].{key}: expected a value of the space, found {value!r}")
