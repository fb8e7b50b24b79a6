"""Effects of the parameters: their importance, the score as a function of them, and tests against noise."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import numpy as np
import optuna

from components.intervals import standard_error
from tune.optimizer.choice import Objectives
from tune.optimizer.surrogate import Array, Encoding, Surrogate
from tune.space.config import FIDELITY
from tune.storage.ledger import Outcome

FEWEST = 8  # trials; below that, an importance is a story about noise
ENOUGH = 5  # trials that PED-ANOVA's authors want among the best
SHUFFLES, LEVEL = 999, 0.05  # of the test which parameters did anything, and its level
GROUPS = 3  # a parameter's values are compared in as many groups where they are many
AVERAGED = 64  # places of the other parameters that a course is the mean over
# trials that the process is fitted to, and that are drawn: its time grows with the third power of their number
MODELLED, MODELLED_BEST = 350, 50

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shown:
    """Parameters and score of a trial; the score of one that was stopped early is extrapolated to the end."""

    params: Mapping[str, Any]
    score: float
    finished: bool


@dataclass(frozen=True)
class Effects:
    """Effects of the parameters on the first objective."""

    trials: Sequence[Shown]
    modelled: Sequence[Shown]  # those that the process is fitted to and that are drawn: of many the best and others
    shares: Mapping[str, float]  # parameter → importance, the largest first
    clear: frozenset[str]  # parameters whose values the search could tell apart
    noise: float  # standard deviation of a score by the choice of images
    encoding: Encoding
    surrogate: Surrogate

    def course(self, key: str, values: Sequence[Any]) -> tuple[Array, Array]:
        """Mean score over the other parameters at each value, and how sure that is."""
        some = [dict(shown.params) for shown in self._spread()]
        groups = np.stack([self.encoding([{**params, key: value} for params in some]) for value in values])
        return self.surrogate.predict_mean_of(groups)

    def surface(self, one: str, other: str, values: tuple[Sequence[Any], Sequence[Any]]) -> Array:
        """Mean score over the other parameters at each pair of values, (values of `other`, values of `one`)."""
        some = [dict(shown.params) for shown in self._spread()]
        pairs = [{one: a, other: b} for b in values[1] for a in values[0]]
        points = np.stack([self.encoding([{**params, **pair} for params in some]) for pair in pairs])
        means, _ = self.surrogate.predict_mean_of(points)
        return means.reshape(len(values[1]), len(values[0]))

    def _spread(self) -> Sequence[Shown]:
        return spaced(self.trials, AVERAGED)


def effects(
    outcomes: Sequence[Outcome], objectives: Objectives, ranges: Mapping[str, Mapping[str, Any]], images: int
) -> Effects | None:
    """Effects on the first objective; None where too few trials showed a score, or nothing varied.

    Args:
        outcomes: the trials.
        objectives: of the search.
        ranges: searched key → description of its range.
        images: on which each score was measured; 0 where that is not known.
    """
    trials, metric = shown(outcomes, objectives), next(iter(objectives))
    scores = np.array([trial.score for trial in trials])
    varied = [key for key in ranges if len({repr(trial.params.get(key)) for trial in trials}) > 1]
    if len(trials) < FEWEST or not varied or np.ptp(scores) == 0:
        return None
    shares = importance(trials, varied, objectives[metric])
    if shares is None:
        return None
    noise = standard_error(float(np.median(np.abs(scores))), images) if images else 0.0
    encoding = Encoding({key: _written(ranges[key], trials, key) for key in varied})
    modelled = _modelled(trials, objectives[metric])
    fitted = encoding([trial.params for trial in modelled])
    surrogate = Surrogate.fit(fitted, np.array([trial.score for trial in modelled]), noise)
    level = LEVEL / len(varied)  # of each parameter, so that of all together it is LEVEL (Bonferroni)
    clear = frozenset(key for key in varied if _told_apart([trial.params.get(key) for trial in trials], scores, level))
    return Effects(trials, modelled, shares, clear, noise, encoding, surrogate)


def shown(outcomes: Sequence[Outcome], objectives: Objectives) -> list[Shown]:
    """The score of each finished trial, and of each stopped one what it would have come to.

    A stopped trial's last score is of an early epoch. It is carried on by what the finished ones of equal fidelity
    gained from there on, in the median.
    """
    metric = next(iter(objectives))
    finished = [o for o in outcomes if o.status == "finished" and metric in o.metrics]
    found = [Shown(o.params, float(o.metrics[metric]), True) for o in finished]
    gains: dict[Hashable, float] = {}  # fidelity and epoch → what the finished ones gained after it
    for outcome in (o for o in outcomes if o.status == "pruned" and o.intermediate):
        epoch = max(outcome.intermediate, key=int)
        rung = (_fidelity(outcome), epoch)
        if rung not in gains:
            equal = [o for o in finished if epoch in o.intermediate and _fidelity(o) == rung[0]]
            gains[rung] = median(o.metrics[metric] - o.intermediate[epoch] for o in equal) if equal else 0.0
        found.append(Shown(outcome.params, float(outcome.intermediate[epoch] + gains[rung]), False))
    return found


def _fidelity(outcome: Outcome) -> tuple[Any, ...]:
    return tuple(outcome.params.get(key) for key in FIDELITY)


def spaced(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most so many of the items, at even distances."""
    return items[:: stride(len(items), most)]


def stride(count: int, most: int) -> int:
    """One of so many is taken, for at most `most` of them."""
    return max(1, -(-count // most))


def _modelled(trials: Sequence[Shown], direction: str) -> list[Shown]:
    """All of few trials; of many the best, and others at even distances in their order."""
    if len(trials) <= MODELLED + MODELLED_BEST:
        return list(trials)
    ranked = sorted(range(len(trials)), key=lambda place: trials[place].score, reverse=direction == "max")
    places = {*ranked[:MODELLED_BEST], *spaced(range(len(trials)), MODELLED)}
    return [trials[place] for place in sorted(places)]


def importance(trials: Sequence[Shown], keys: Sequence[str], direction: str) -> dict[str, float] | None:
    """Importance of each parameter for reaching the best trials (PED-ANOVA, as Optuna computes it), the largest first.

    Unlike fANOVA it also judges a parameter that not every trial has. None where it finds no difference at all.

    Sources: Watanabe et al., PED-ANOVA (IJCAI 2023, arXiv 2304.10255); for conditional parameters arXiv 2601.20800.
    """
    with _quietly():
        study = optuna.create_study(direction="maximize" if direction == "max" else "minimize")
        kinds = {key: _distribution([t.params[key] for t in trials if key in t.params]) for key in keys}
        for trial in trials:
            params = {key: trial.params[key] for key in keys if key in trial.params}
            known = {key: kinds[key] for key in params}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=known, value=trial.score))
        best = min(0.5, max(0.1, ENOUGH / len(trials)))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    total = sum(shares.values())
    return dict(shares) if np.isfinite(total) and total > 0 else None


def _distribution(values: Sequence[Any]) -> optuna.distributions.BaseDistribution:
    """The range that the trials covered, which need not be the one that was allowed."""
    if all(type(value) is int for value in values):
        return optuna.distributions.IntDistribution(min(values), max(values))
    if all(type(value) in (int, float) for value in values):
        return optuna.distributions.FloatDistribution(min(values), max(values))
    return optuna.distributions.CategoricalDistribution(sorted(set(values), key=repr))


def _written(range_: Mapping[str, Any], trials: Sequence[Shown], key: str) -> dict[str, Any]:
    """The range as written; of a list that holds no longer every value that was tried, those that were."""
    values = [trial.params[key] for trial in trials if key in trial.params]
    if "choice" in range_ and not all(value in range_["choice"] for value in values):
        return {**range_, "choice": list(dict.fromkeys([*range_["choice"], *values]))}
    return dict(range_)


def _told_apart(values: Sequence[Any], scores: Array, level: float) -> bool:
    """True where groups of values differ in score more than shuffled ones do, but for that share of cases."""
    groups, scores = _groups(values), scores - scores.mean()
    seen, chance = _between(groups, scores), np.random.default_rng(0)
    beaten = sum(_between(groups, chance.permutation(scores)) >= seen - 1e-12 for _ in range(SHUFFLES))
    return (1 + beaten) / (1 + SHUFFLES) <= level


def _groups(values: Sequence[Any]) -> np.ndarray:
    """The group of each value: the value itself where there are few, thirds by size where there are many."""
    distinct = sorted({repr(value) for value in values})
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(distinct) <= 2 * GROUPS or not numbers:
        return np.array([distinct.index(repr(value)) for value in values])
    edges = np.quantile(numbers, np.arange(1, GROUPS) / GROUPS)
    return np.array([np.searchsorted(edges, v) if isinstance(v, int | float) else GROUPS for v in values])


def _between(groups: np.ndarray, scores: Array) -> float:
    """Sum of squares between groups, of scores whose mean is zero."""
    sizes = np.bincount(groups)
    return float((np.bincount(groups, scores)[sizes > 0] ** 2 / sizes[sizes > 0]).sum())


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Optuna's messages that a study has been created, or that something is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
