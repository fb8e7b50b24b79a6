"""Chooses among candidates by what they promise per second that is not spent yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tune.optimizer.acquisition import expected_front, expected_improvement
from tune.optimizer.choice import Objectives, has_objectives
from tune.optimizer.cost_limit import CostLimit
from tune.optimizer.costs import StageCosts
from tune.optimizer.selection import BEST, LATEST, SAMPLE, Selection
from tune.optimizer.surrogate import Array, Encoding, Surrogate
from tune.space.space import SearchSpace
from tune.storage.ledger import Outcome, Params

FEWEST = 3  # scores from which a surrogate says anything
_SECTIONS = ("classifier", "gan", "projector", "unet")  # in the order in which stages follow from them
_RECENT = 8  # trials whose stages candidates go on from


@dataclass
class CostAwareChoice:
    """Expected improvement per uncached second, of the first objective, or of it and the projection cost.

    Attributes:
        space: what is searched.
        objectives: metric → "max" or "min"; the first is modelled, the cost is known from the parameters.
        costs: seconds of what is not there yet.
        limit: tells the projection cost of candidates.
    """

    space: SearchSpace
    objectives: Objectives
    costs: StageCosts
    limit: CostLimit
    _scores: dict[int, tuple[Params, float]] = field(default_factory=dict)  # of the trials that the surrogate sees
    _seen: Selection = field(default_factory=lambda: Selection(BEST, LATEST, SAMPLE))
    _finished: int = 0
    _running: dict[int, Params] = field(default_factory=dict)
    _started: list[Params] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._encoding = Encoding({key: values.written() for key, values in self.space.ranges.items()})

    @property
    def ready(self) -> bool:
        """True where enough trials have a score."""
        return self._finished >= FEWEST

    @property
    def begun(self) -> bool:
        """True where a trial has stages that others may go on from."""
        return bool(self._started)

    def start(self, number: int, params: Params) -> None:
        """A trial begins: its stages are there, or will be. Its number is that among all that are learned from."""
        self._running[number] = params
        self._started.append(params)
        self.costs.start(params)

    def finish(self, number: int, outcome: Outcome | None) -> None:
        """A trial has ended; one that was stopped early counts with its last score."""
        params = self._running.pop(number, None)
        if params is not None and outcome is not None:
            self.costs.learn(params, outcome)
            self.learn(number, params, outcome)

    def learn(self, number: int, params: Params, outcome: Outcome) -> None:
        """The score of a trial, of this experiment or another."""
        metric, direction = next(iter(self.objectives.items()))
        if has_objectives(outcome, self.objectives):
            score = float(outcome.metrics[metric])
            self._finished += 1
        elif outcome.status == "pruned" and outcome.intermediate:
            score = float(outcome.intermediate[max(outcome.intermediate, key=int)])
        else:
            return
        score = score if direction == "max" else -score
        self._scores[number] = params, score
        cost = (self.limit.cost(params),) if "cost" in self.objectives else ()
        for left_out in self._seen.add(number, (-score, *cost)):
            del self._scores[left_out]

    def continued(self, drawn: Sequence[Params]) -> Iterator[Params]:
        """Candidates that go on from stages of earlier trials: their first sections, and the rest as drawn."""
        for earlier, new, cut in itertools.product(self._started[-_RECENT:], drawn, range(1, len(_SECTIONS))):
            kept = {key: value for key, value in earlier.items() if key.split(".")[0] in _SECTIONS[:cut]}
            rest = {key: value for key, value in new.items() if key.split(".")[0] not in _SECTIONS[:cut]}
            if self.space.contains({**kept, **rest}):
                yield {**kept, **rest}

    def choose(self, candidates: Sequence[Params], left: float) -> Params:
        """The candidate with the largest expected improvement per second to the power of `left`.

        Args:
            candidates: at least one.
            left: share of the search that is left, in [0, 1].
        """
        return self._most_per_second(candidates, self._gains(candidates), left)

    def spread(self, candidates: Sequence[Params], left: float) -> Params:
        """The candidate farthest from all trials so far per second to the power of `left`: for the first trials.

        So these learn of what is cheap to vary, inside the stages of the very first. Arguments as those of `choose`.
        """
        tried = self._encoding(self._started)
        apart = np.linalg.norm(self._encoding(candidates)[:, None] - tried, axis=2).min(1)
        return self._most_per_second(candidates, apart, left)

    def _most_per_second(self, candidates: Sequence[Params], gains: Array, left: float) -> Params:
        worth = np.log(np.maximum(gains, 1e-300)) - left * np.log(self.costs.seconds(candidates))
        return candidates[int(worth.argmax())]

    def _gains(self, candidates: Sequence[Params]) -> Array:
        points = [self._scores[number][0] for number in sorted(self._scores)]
        surrogate = self._surrogate(points)
        mean, deviation = surrogate.predict(self._encoding(candidates))
        # against what the surrogate makes of the trials, not their own scores: the best of those is a bit lucky
        believed = surrogate.predict(self._encoding(points))[0]
        if "cost" not in self.objectives:
            return expected_improvement(mean, deviation, float(believed.max()))
        costs = [self.limit.cost(params) for params in points]
        reached = front_of([(cost, float(score)) for cost, score in zip(costs, believed, strict=True)])
        return expected_front(mean, deviation, np.array([self.limit.cost(p) for p in candidates]), reached)

    def _surrogate(self, points: Sequence[Params]) -> Surrogate:
        """Of the scores; running trials stand with what is expected of them, so that none is proposed beside them."""
        values = np.array([self._scores[number][1] for number in sorted(self._scores)])
        surrogate = Surrogate.fit(self._encoding(points), values)
        running = [params for _, params in sorted(self._running.items())]
        return surrogate.expecting(self._encoding(running)) if running else surrogate


def front_of(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, score) those that no other beats, by cost."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front
