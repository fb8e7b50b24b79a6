"""Chooses the best trial, the Pareto front, and the retrained seed to save."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tune.metrics import OBJECTIVES, Direction, Target, title_of
from tune.storage.ledger import Outcome

Objectives = Mapping[str, Direction]  # metric name → "max" or "min"; the one that decides stands first


class NoChoiceError(ValueError):
    """No finished trial qualifies; the message says why."""


def choose(
    outcomes: Iterable[Outcome], target: Target | Objectives = "defense", max_cost: float | None = None
) -> Outcome:
    """The finished trial with the best first objective; ties go to the next, then to the cheaper, then to the earlier.

    Args:
        outcomes: of one search, in any order.
        target: the searched stage, or its objectives themselves.
        max_cost: the largest projection cost allowed, in gradient evaluations per image; None allows all.

    Raises:
        NoChoiceError: no trial finished with finite objectives, or none within `max_cost`.
    """
    objectives = _objectives(target)
    candidates = [outcome for outcome in outcomes if has_objectives(outcome, objectives)]
    if not candidates:
        raise NoChoiceError(f"no trial finished with a finite {' and '.join(objectives)}")
    affordable = [outcome for outcome in candidates if max_cost is None or cost_of(outcome) <= max_cost]
    if not affordable:
        cheapest = min(map(cost_of, candidates))
        expected = f"expected at least {cheapest:g}, the cost of the cheapest trial that finished"
        raise NoChoiceError(f"max_cost: {expected}, found {max_cost:g}")
    return min(affordable, key=by_rank(objectives))


def by_rank(objectives: Objectives) -> Callable[[Outcome], tuple[float, ...]]:
    """The key by which outcomes are ranked: objectives in their order, then cost, then the earlier trial.

    So no outcome stands before one that beats it: few images are attacked, and equal shares of them are common.
    """
    return lambda o: (*losses_of(o, objectives), cost_of(o), o.trial)


def pareto_front(outcomes: Iterable[Outcome], target: Target | Objectives = "defense") -> list[Outcome]:
    """The finished trials that no other beats in one objective without losing in another, cheapest first.

    Of trials that are equal in every objective only the earliest is named.
    """
    objectives = _objectives(target)
    points: dict[tuple[float, ...], Outcome] = {}
    for outcome in sorted(outcomes, key=lambda o: o.trial):
        if has_objectives(outcome, objectives):
            points.setdefault(losses_of(outcome, objectives), outcome)
    front: list[tuple[float, ...]] = []
    for point in sorted(points):  # whatever dominates a point stands before it, and so does one of the front that does
        if not any(_dominates(other, point) for other in front):
            front.append(point)
    return [points[point] for point in sorted(front, key=lambda p: tuple(reversed(p)))]


def has_objectives(outcome: Outcome, objectives: Iterable[str]) -> bool:
    """True where the trial finished and every objective is a finite number: NaN is a failure, never best."""
    return outcome.status == "finished" and all(_finite(outcome.metrics.get(metric)) for metric in objectives)


def rule(objectives: Objectives, finalists: bool = False) -> str:
    """The rule of `choose`, or of `finalists.decide`, in words, for choice.json and the report."""
    (metric, direction), *others = objectives.items()
    best = "highest" if direction == "max" else "lowest"
    if finalists:
        return (
            f"finalists by the {best} validation {title_of(metric)}; of those that cannot be told from the one with "
            "the best mean over equal seeds, the cheapest, ties to the better mean, then to the earlier trial"
        )
    further = [f"{'higher' if way == 'max' else 'lower'} {title_of(key)}" for key, way in others if key != "cost"]
    ties = ", then to the ".join([*further, "cheaper"])
    return f"{best} validation {title_of(metric)}, ties to the {ties}, then to the earlier trial"


def _objectives(target: Target | Objectives) -> Objectives:
    return OBJECTIVES[target] if isinstance(target, str) else target


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def cost_of(outcome: Outcome) -> float:
    """A trial whose cost is not known counts as the dearest: it wins no tie and fits no limit."""
    cost = outcome.metrics.get("cost", math.inf)
    return float(cost) if _finite(cost) else math.inf


def losses_of(outcome: Outcome, objectives: Objectives) -> tuple[float, ...]:
    """The objectives of a finished trial, each the less the better."""
    return tuple(
        -outcome.metrics[metric] if direction == "max" else outcome.metrics[metric]
        for metric, direction in objectives.items()
    )


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
