"""Optuna's view of a ledger: what its sampler is shown, and what it suggests.

The order of its trials is part of what TPE sees. It is always: other experiments' outcomes as given, then
this search's trials by number, in whatever order they ended. So a study rebuilt from the ledger equals one
that was never interrupted.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tune.metrics import objectives_of
from tune.optimizer.choice import Objectives, has_objectives
from tune.optimizer.cost_limit import CostLimit
from tune.optimizer.costs import StageCosts
from tune.optimizer.grid import identity, points_of, shuffled
from tune.optimizer.history import History
from tune.optimizer.sampler import Generations, sampler_for, spread
from tune.optimizer.selection import BEST, LATEST, SAMPLE, Selection
from tune.space.config import Sampler
from tune.space.space import SearchSpace
from tune.storage.ledger import Outcome, Params

_ATTEMPTS = 10  # at a point that no trial has tried, before one is taken from those that are left
_MORE = 200  # draws at random, before a trial may cost more than is allowed
_DRAWS, _SLOW_DRAWS, _RANDOM = 8, 2, 16  # candidates of the sampler, of one that takes its time, and at random
_MOST = 2000  # points of a finite space that are looked at
_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}


class LedgerStudy:
    """The trials of a search as Optuna sees them; kept in memory, so that a suggestion costs no rebuilding.

    Args:
        space: the search space.
        seed: of all suggestions.
        startup: how many trials are spread evenly before results guide the others; known outcomes count.
        max_cost: the largest projection cost that is proposed, where a trial within it is found; None for any.
        objectives: metric → "max" or "min"; by default those of the space's target.
        costs: seconds of stages, by which proposals are ranked; None = the sampler's own stand.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        startup: int = 8,
        max_cost: float | None = None,
        objectives: Objectives | None = None,
        costs: StageCosts | None = None,
    ) -> None:
        self._space = space
        self._seed = seed
        self._startup = startup
        self._limit = CostLimit(space, max_cost)
        fixed = space.fixed
        self.objectives = dict(objectives or objectives_of(fixed["search.target"], fixed["search.objective"]))
        self._cost_aware: CostAwareChoice | None = None
        if costs is not None:
            from tune.optimizer.cost_aware import CostAwareChoice  # with it SciPy, which others need not wait for

            self._cost_aware = CostAwareChoice(space, self.objectives, costs, self._limit)
        self._known = 0  # outcomes of other experiments
        self._running: dict[int, optuna.Trial] = {}
        self._tried: set[Hashable] = set()
        self._sampler: Sampler = space.fixed["search.sampler"]
        points = points_of(space)
        # of a finite space the points that no trial had, in a random order, and those that cost more than is allowed
        everything = {identity(point): point for point in shuffled(points or [], seed)}
        self._left = {key: point for key, point in everything.items() if self._limit.allows(point)}
        self._dear = {key: point for key, point in everything.items() if key not in self._left}
        self._size = None if points is None else len(self._left)
        self._spread = spread(startup, len(space.ranges), seed)
        self._history = History()
        self._study = new_study(self._history, self.objectives)
        self._none = RandomSampler(seed=0)  # for trials whose parameters are all given; it leaves no notes
        sampler = sampler_for(self._sampler, "", startup, {})
        self._generations = sampler if isinstance(sampler, Generations) else None  # bred from whole generations
        self._seen = None if self._generations else Selection(BEST, LATEST, SAMPLE)
        self._failed = Selection(0, LATEST, 0)  # no sampler looks at them

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that the sampler sees, in its order."""
        return self._study.get_trials()

    def learn(self, outcome: Outcome, source: str) -> bool:
        """Adds a finished outcome of another experiment, before the first trial of this one.

        Args:
            outcome: parameters that this space fixes to the same value are left out.
            source: where it is from, for the trial's user attribute `warm_start`.

        Returns:
            False where it is left out: it does not fit this space, or lacks an objective.
        """
        params = {key: value for key, value in outcome.params.items() if not self._fixes(key, value)}
        if not has_objectives(outcome, self.objectives) or not self._space.contains(params):
            return False
        self._tell(self._enter(params, {"warm_start": source, "trial": outcome.trial}), outcome)
        if self._cost_aware:
            self._cost_aware.learn(self._known, params, outcome)
        self._known += 1
        return True

    def start(self, trial: int, params: Params) -> None:
        """Adds a running trial. Trials must start in the order of their numbers, which is the study's.

        Parameters that the space cannot have suggested, as it was changed since, are passed over.
        """
        self._tried.add(identity(params))
        self._left.pop(identity(params), None)
        self._dear.pop(identity(params), None)
        if self._space.contains(params):
            self._running[trial] = self._enter(params, {"trial": trial})
            if self._cost_aware:
                self._cost_aware.start(self._known + trial, params)

    def finish(self, trial: int, outcome: Outcome | None) -> None:
        """Says what became of a running trial: complete, pruned, or failed, as one without outcome is."""
        if trial in self._running:
            self._tell(self._running.pop(trial), outcome)
            if self._cost_aware:
                self._cost_aware.finish(self._known + trial, outcome)

    @property
    def size(self) -> int | None:
        """The number of points of the space within the allowed cost; None where it has infinitely many."""
        return self._size

    @property
    def exhausted(self) -> bool:
        """True where every point has been tried."""
        return self._size is not None and not self._left

    def suggest(
        self, trial: int, wanted: Mapping[str, Any] | None = None, remaining: float = 1.0
    ) -> Params | None:
        """Parameters for the trial of that number, which does not start it; None where every point was tried.

        They depend on space, seed, number and what the study knows, and on nothing else. No point is proposed twice
        where there are finitely many: its result is known. One that costs more than is allowed could never be chosen.

        Args:
            wanted: parameters to take as they are, as long as they are new; only the others are suggested.
            remaining: share of the search that is left, in [0, 1]: the less, the less seconds count.
        """
        wanted = wanted or {}
        left = self._untried(wanted) or self._untried({})
        if left == []:
            return None
        if left and self._sampler == "grid":
            return left[0]
        if self._cost_aware and self._cost_aware.begun:
            first = not self._cost_aware.ready or self._known + trial < self._startup
            choose = self._cost_aware.spread if first else self._cost_aware.choose
            if candidates := self._candidates(trial, wanted, left):
                return choose(candidates, remaining)
        params: Params = {}
        for params in self._drawn(trial, wanted):
            if self._fits(params):
                return params
        return left[0] if left else params

    def _drawn(self, trial: int, wanted: Mapping[str, Any]) -> Iterator[Params]:
        """Draws of the sampler, and then at random, where that may find one within the allowed cost."""
        for attempt in range(_ATTEMPTS):
            yield self._ask(trial, attempt, wanted)
        more = 0 if self._limit.most is None or wanted or self._size is not None else _MORE
        for attempt in range(_ATTEMPTS, _ATTEMPTS + more):
            yield self._ask(trial, attempt, wanted, "random")

    def _fits(self, params: Params) -> bool:
        return identity(params) not in self._tried and self._limit.allows(params)

    def _candidates(self, trial: int, wanted: Mapping[str, Any], left: Sequence[Params] | None) -> Sequence[Params]:
        """All points that are left, where there are not too many; else draws of the sampler with some of those, or in
        an infinite space with random points and such as go on from stages that are there.
        """
        assert self._cost_aware is not None
        if left and len(left) <= _MOST:
            return left
        draws = range(_SLOW_DRAWS if self._sampler == "gp" else _DRAWS)
        drawn = [self._ask(trial, attempt, wanted) for attempt in draws]
        others: Sequence[Params] = left[:_MOST] if left else []
        if left is None:
            drawn += [self._ask(trial, attempt, wanted, "random") for attempt in range(_RANDOM)]
            others = [p for p in self._cost_aware.continued(drawn) if wanted.items() <= p.items()]
        unique = {identity(params): params for params in [*drawn, *others]}
        return [params for params in unique.values() if self._fits(params)]

    def _untried(self, wanted: Mapping[str, Any]) -> list[Params] | None:
        """The points with the wanted values that no trial had, in a random order; None: no end to them."""
        if self._size is None:
            return None
        found = [point for point in self._left.values() if wanted.items() <= point.items()]
        return found or [point for point in self._dear.values() if wanted and wanted.items() <= point.items()]

    def _ask(self, trial: int, attempt: int, wanted: Mapping[str, Any], sampler: Sampler | None = None) -> Params:
        """One suggestion, by a draft of a trial.

        Samplers leave notes in a trial that they are asked for, and read them while it runs. A resumed study has no
        such notes, so the draft is given up: none of them looks at failed trials.
        """
        first = self._first_points(trial) if attempt == 0 and sampler is None else {}
        kind = sampler or self._sampler
        # a sampler that sees fewer trials than it waits for would never begin; generations are of the size asked for
        startup = self._startup if kind == "nsga2" else min(self._startup, LATEST)
        self._study.sampler = sampler_for(kind, f"{self._seed}/{trial}/{attempt}", startup, first)
        self._study.enqueue_trial(dict(wanted))
        draft = self._study.ask()
        params = self._space.suggest(draft)
        self._study.tell(draft, state=TrialState.FAIL)
        self._history.withdraw()
        return params

    def _first_points(self, trial: int) -> dict[str, float]:
        index = self._known + trial
        if index >= self._startup:
            return {}
        return dict(zip(sorted(self._space.ranges), self._spread[index].tolist(), strict=True))

    def _enter(self, params: Params, attributes: dict[str, Any]) -> optuna.Trial:
        self._study.sampler = self._none
        self._study.enqueue_trial(params, user_attrs=attributes)
        trial = self._study.ask()
        self._space.suggest(trial)
        if self._generations is not None:
            self._generations.enter(self._study, self._history.get_trial(trial.number))
        return trial

    def _tell(self, trial: optuna.Trial, outcome: Outcome | None) -> None:
        state = state_of(outcome, self.objectives)
        # Optuna 5.0's TPE raises in a study of several objectives that holds a pruned trial with reports
        if outcome is not None and len(self.objectives) == 1:
            for epoch, value in outcome.intermediate.items():
                trial.report(value, int(epoch))
        for name, value in constraints_of(outcome, state, self._limit).items():
            trial.set_constraint(name, value)
        self._study.tell(trial, values_of(outcome, state, self.objectives), state)
        self._forget(self._history.get_trial(trial.number))

    def _forget(self, ended: FrozenTrial) -> None:
        """Takes a trial among those that the sampler sees, and others out where they are too many."""
        if ended.state == TrialState.FAIL:
            left_out = self._failed.add(ended.number)
        elif self._seen is not None:
            left_out = self._seen.add(ended.number, *_ranked(ended, self._study.directions))
        else:
            left_out = []
        for number in left_out:
            self._history.forget(number)

    def _fixes(self, key: str, value: Any) -> bool:
        return key in self._space.fixed and bool(self._space.fixed[key] == value)


def _ranked(ended: FrozenTrial, directions: Sequence[StudyDirection]) -> tuple[tuple[float, ...], str]:
    """Losses by which TPE ranks a trial, and the kind of trials among which it does."""
    excess = sum(value for value in ended.constraints.values() if value > 0)
    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions]
    if excess > 0:
        return (excess,), "infeasible"
    if ended.state == TrialState.COMPLETE:
        return tuple(sign * value for sign, value in zip(signs, ended.values, strict=True)), "complete"
    step = max(ended.intermediate_values, default=0)
    # TPE ranks them by the first of these, and by the second where the first is equal
    return (-step, signs[0] * ended.intermediate_values.get(step, 0.0)), "pruned"


def state_of(outcome: Outcome | None, objectives: Objectives) -> TrialState:
    """Optuna's state of an outcome. NaN, infinity, a missing objective and no outcome are failures."""
    if outcome is not None and outcome.status == "pruned":
        return TrialState.PRUNED
    if outcome is not None and has_objectives(outcome, objectives):
        return TrialState.COMPLETE
    return TrialState.FAIL


def values_of(outcome: Outcome | None, state: TrialState, objectives: Objectives) -> list[float] | None:
    """The objective values of a complete trial."""
    if outcome is None or state != TrialState.COMPLETE:
        return None
    return [outcome.metrics[metric] for metric in objectives]


def constraints_of(outcome: Outcome | None, state: TrialState, limit: CostLimit) -> dict[str, float]:
    """The excess of a trial's cost above the allowed one; at most 0 is feasible."""
    if outcome is None or state == TrialState.FAIL or limit.most is None:
        return {}
    cost = outcome.metrics.get("cost")  # of another experiment; one that was stopped early has none
    return {"cost": (limit.cost(outcome.params) if cost is None else cost) - limit.most}


def new_study(
    storage: optuna.storages.BaseStorage, objectives: Objectives, name: str | None = None
) -> optuna.Study:
    """An empty study of these objectives."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it tells of every study that it makes
    directions = [_DIRECTIONS[direction] for direction in objectives.values()]
    study = optuna.create_study(storage=storage, study_name=name, directions=directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives))
    return study
