"""Rules that end a search before its last trial: budget spent, no gain beyond noise, or nothing left to gain."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import optuna
from optuna.terminator import RegretBoundEvaluator, StaticErrorEvaluator, Terminator
from optuna.trial import create_trial

from components.intervals import standard_error
from tune.durations import seconds_of
from tune.metrics import Direction, images_measured, objectives_of
from tune.optimizer.choice import Objectives, has_objectives
from tune.optimizer.cost_limit import CostLimit
from tune.space.space import SearchSpace
from tune.storage.ledger import Outcome


@dataclass(frozen=True)
class StopRules:
    """The rules `search.budget`, `search.patience` and `search.terminator`, where they are set.

    Everything but the clock of running trials is read from the ledger. The first objective is a share of images.

    Attributes:
        space: what is searched.
        validation: number of validation images: from it follows of how many that is a share, and so its noise.
    """

    space: SearchSpace
    validation: int

    @property
    def objectives(self) -> Objectives:
        """Metric → "max" or "min"; the first decides."""
        return objectives_of(self.space.fixed["search.target"], self.space.fixed["search.objective"])

    @property
    def _startup(self) -> int:
        return int(self.space.fixed["search.startup_trials"])

    def reason(self, outcomes: Iterable[Outcome], spent: float) -> str | None:
        """The reason why no further trial may begin, in words; None while one may.

        Args:
            outcomes: of the search.
            spent: seconds in which trials ran, by `Clock`.
        """
        outcomes = list(outcomes)
        metric = next(iter(self.objectives))
        ended = frozenset((o.trial, o.status, o.ended, o.metrics.get(metric)) for o in outcomes)
        if ended not in self._found:  # it is asked for many times a second while the last trials run
            self._found.clear()
            self._found[ended] = self._stalled(outcomes) or self._settled(outcomes)
        return self._overdrawn(spent) or self._found[ended]

    @cached_property
    def _found(self) -> dict[Hashable, str | None]:
        return {}

    def used(self, spent: float) -> float:
        """Share of the budget that these seconds are; 0 where there is none."""
        budget = self.space.fixed["search.budget"]
        return 0.0 if budget is None else spent / seconds_of(budget)

    def _overdrawn(self, spent: float) -> str | None:
        if self.used(spent) < 1:
            return None
        return f"budget: trials ran for {spent / 60:.1f} minutes of {self.space.fixed['search.budget']}"

    def _stalled(self, outcomes: Iterable[Outcome]) -> str | None:
        patience = self.space.fixed["search.patience"]
        if patience is None or len(scores := self._scores(outcomes)) < self._startup:
            return None
        best, since = -math.inf, 0
        for score in scores:
            gained = score is not None and (best == -math.inf or score > best + self.noise(best))
            best, since = (score, 0) if gained and score is not None else (best, since + 1)
        if since < patience or best == -math.inf:
            return None
        return f"patience: {since} trials in a row were no better than {best:.4f} by more than {self.noise(best):.4f}"

    def _settled(self, outcomes: Iterable[Outcome]) -> str | None:
        if not self.space.fixed["search.terminator"]:
            return None
        finished = [o for o in self._eligible(outcomes) if has_objectives(o, self.objectives)]
        shared = bool(finished) and set.intersection(*(set(o.params) for o in finished))
        if not shared or len(finished) < max(self._startup, 2):
            return None
        metric, direction = next(iter(self.objectives.items()))
        study = _study(finished, self.space, metric, direction)
        noise = self.noise(max(o.metrics[metric] for o in finished))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna 5 has marked its terminator as one that is to go
            judge = Terminator(RegretBoundEvaluator(seed=0), StaticErrorEvaluator(noise), min_n_trials=1)
            if not judge.should_terminate(study):
                return None
        return f"terminator: Optuna's bound on what is left to gain is below the noise of {noise:.4f}"

    def _scores(self, outcomes: Iterable[Outcome]) -> list[float | None]:
        """The first objective of each trial that did not fail, larger is better; None of one stopped early."""
        metric, direction = next(iter(self.objectives.items()))
        sign = 1 if direction == "max" else -1
        return [
            sign * outcome.metrics[metric] if has_objectives(outcome, self.objectives) else None
            for outcome in self._eligible(outcomes)
            if outcome.status != "failed"
        ]

    def _eligible(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """The outcomes of trials that may be chosen, in the order in which they ended."""
        fit = [outcome for outcome in outcomes if self._limit.allows(outcome.params)]
        return sorted(fit, key=lambda outcome: (outcome.ended or 0.0, outcome.trial))

    @cached_property
    def _limit(self) -> CostLimit:
        return CostLimit(self.space, self.space.fixed["search.max_cost"])

    def noise(self, share: float) -> float:
        """One standard error of the first objective, a share of images: it may be as much by chance."""
        metric, robust_images = next(iter(self.objectives)), self.space.fixed["search.robust_images"]
        return standard_error(share, images_measured(metric, self.validation, robust_images))


class Clock:
    """Seconds in which at least one trial ran: pauses between two sessions do not count."""

    def __init__(self, outcomes: Iterable[Outcome] = ()) -> None:
        self._spans: list[tuple[float, float]] = []  # apart from each other, in order
        self._total = 0.0  # seconds of all spans
        for outcome in outcomes:
            self.add(outcome)

    def add(self, outcome: Outcome) -> None:
        """Takes an ended trial in; one that does not say when it ended has no time."""
        for begin, end in outcome.spans:
            self._add(begin, end)

    def _add(self, begin: float, end: float) -> None:
        first = bisect_left(self._spans, begin, key=lambda span: span[1])
        last = bisect_right(self._spans, end, key=lambda span: span[0])
        touched = self._spans[first:last]
        whole = (min([begin, *(span[0] for span in touched)]), max([end, *(span[1] for span in touched)]))
        self._total += whole[1] - whole[0] - sum(span[1] - span[0] for span in touched)
        self._spans[first:last] = [whole]

    def seconds(self, running: Iterable[float] = (), now: float = 0.0) -> float:
        """Seconds so far, with trials that began at the times `running` and run still, `now`."""
        since = min(running, default=now)
        later = self._spans[bisect_left(self._spans, since, key=lambda span: span[1]) :]
        counted = sum(max(0.0, min(end, now) - max(begin, since)) for begin, end in later)
        return self._total + max(0.0, now - since) - counted


def _study(finished: Sequence[Outcome], space: SearchSpace, metric: str, direction: Direction) -> optuna.Study:
    """The first objective alone, as the terminator takes no other."""
    study = optuna.create_study(direction="maximize" if direction == "max" else "minimize")
    for outcome in finished:
        distributions = {key: space.distribution(key) for key in outcome.params}
        study.add_trial(
            create_trial(params=outcome.params, distributions=distributions, value=outcome.metrics[metric])
        )
    return study
