"""The best few trials, trained with further seeds before one is chosen: what is best of many is a bit lucky.

Seeds come one after the other, and a trial that can be told from the best gets no further one: it would not be chosen,
and a seed of its own may need a GAN of its own (successive elimination; Even-Dar et al., JMLR 2006).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, variance
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.intervals import standard_error
from tune.optimizer.choice import Objectives, by_rank, cost_of, has_objectives
from tune.storage.ledger import Outcome

# Standard deviation of the difference between two trials by the choice of seed, before a second one has shown it: of
# a share, 0.2 points on all of MNIST and 2.3 on a thousand images are what was measured.
UNSEEN = 0.0075


@dataclass(frozen=True)
class Finalist:
    """One trial on the same images as the others, and on the first of the same seeds.

    Attributes:
        trial: its number.
        cost: of projection; infinite where it is not known.
        searched: the score by which the search ranked it.
        scores: by seed, larger is better.
        right: bool (seeds, images): which validation images come out right; None where that is not known.
    """

    trial: int
    cost: float
    searched: float
    scores: Mapping[int, float]
    right: NDArray[np.bool_] | None = None

    @property
    def mean(self) -> float:
        """Mean score over the seeds."""
        return mean(self.scores.values())

    def first(self, count: int) -> Finalist:
        """The same, of its first so many seeds."""
        scores = dict(sorted(self.scores.items())[:count])
        return replace(self, scores=scores, right=None if self.right is None else self.right[:count])

    @property
    def fresh(self) -> float:
        """Mean score over the seeds that the search did not rank it by."""
        others = [score for seed, score in sorted(self.scores.items())[1:]]
        return mean(others) if others else self.mean


@dataclass(frozen=True)
class Verdict:
    """The result of the finalists' comparison.

    Attributes:
        chosen: the trial to go on with.
        best: the trial with the best mean of those that were never told from the best.
        behind: trial → how much its mean lay below the best one's when they were last compared, and the standard error
            of that.
    """

    chosen: int
    best: int
    behind: Mapping[int, tuple[float, float]]

    def equal(self, trial: int) -> bool:
        """True where a trial lies within one standard error of the best."""
        difference, error = self.behind[trial]
        return difference <= error


def finalists_of(
    outcomes: Iterable[Outcome], objectives: Objectives, count: int, max_cost: float | None = None
) -> list[Outcome]:
    """The `count` best finished trials, as `by_rank` has them."""
    fit = [o for o in outcomes if has_objectives(o, objectives) and (max_cost is None or cost_of(o) <= max_cost)]
    return sorted(fit, key=by_rank(objectives))[:count]


def wanted(finalists: Sequence[Finalist], seeds: Sequence[int], images: int) -> list[tuple[int, int]]:
    """The trainings that the comparison needs next, as trial and seed; none once it is decided, or all seeds are used.

    Args:
        finalists: with what is known of them, no scores at first.
        seeds: all that may be used, in order.
        images: that each score is a share of.
    """
    left, count, _ = _compare(finalists, seeds, images)
    if count == len(seeds) or (count and len(left) < 2):
        return []
    return [(f.trial, seeds[count]) for f in left if len(f.scores) <= count]


def decide(finalists: Sequence[Finalist], seeds: Sequence[int], images: int) -> Verdict:
    """The cheapest of those that cannot be told from the best; ties to the better mean, then to the earlier trial.

    Args:
        finalists: at least one, each with at least one seed.
        seeds, images: as of `wanted`.
    """
    left, count, behind = _compare(finalists, seeds, images)
    equal = [f.first(count) for f in left]
    chosen = min(equal, key=lambda f: (f.cost, -f.mean, f.trial))
    return Verdict(chosen.trial, _best(equal).trial, behind)


def _compare(
    finalists: Sequence[Finalist], seeds: Sequence[int], images: int
) -> tuple[list[Finalist], int, dict[int, tuple[float, float]]]:
    """Compares after one seed, after two and so on, each time those that could not be told from the best before.

    Returns:
        Those that are left; the number of seeds that they were compared on; `behind` of a `Verdict`.
    """
    behind: dict[int, tuple[float, float]] = {}
    left, count = list(finalists), 0
    while left and (len(left) > 1 or not count) and all(len(f.scores) > count for f in left):
        count += 1
        now = [f.first(count) for f in left]
        best, unseen = _best(now), UNSEEN if count == 1 < len(seeds) else 0.0
        behind |= {f.trial: _difference(best, f, images, unseen) for f in now}
        left = [f for f in left if behind[f.trial][0] <= behind[f.trial][1]]
    return left, count, behind


def _best(finalists: Sequence[Finalist]) -> Finalist:
    return max(finalists, key=lambda f: (f.mean, -f.cost, -f.trial))


def _difference(best: Finalist, other: Finalist, images: int, unseen: float) -> tuple[float, float]:
    """Distance of a mean below the best one's, and its standard error by the choice of seeds and of images.

    `unseen` stands for the seeds' part where there is one seed, of which none can be seen.
    """
    if best.trial == other.trial:
        return 0.0, 0.0
    by_seed = [best.scores[seed] - other.scores[seed] for seed in sorted(best.scores)]
    of_seeds = variance(by_seed) / len(by_seed) if len(by_seed) > 1 else unseen**2
    return best.mean - other.mean, math.sqrt(of_seeds + _by_images(best, other, images))


def _by_images(best: Finalist, other: Finalist, images: int) -> float:
    """Variance of the difference by the choice of images: in pairs where it is known which ones come out right.

    One image more is taken to differ, as in `paired_error`: a lead of a single one is not taken for certain.
    """
    if best.right is None or other.right is None:
        return sum(standard_error(f.mean, images) ** 2 for f in (best, other))
    pairs = best.right.astype(float).mean(0) - other.right.astype(float).mean(0)
    return max(float((pairs**2).mean() + 1 / len(pairs) - pairs.mean() ** 2), 0.0) / len(pairs)


def as_json(
    finalists: Sequence[Finalist],
    verdict: Verdict,
    params: Mapping[int, Mapping[str, Any]],
    left_out: Mapping[int, str] | None = None,
    seconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The content of finalists.json.

    Args:
        finalists: at least one.
        verdict: on them.
        params: of each trial.
        left_out: trials of which a training failed, and why.
        seconds: of computing, by stage.
    """
    rows = [
        {
            "trial": f.trial,
            "params": dict(params[f.trial]),
            "cost": f.cost if math.isfinite(f.cost) else None,
            "searched": f.searched,
            "scores": {str(seed): score for seed, score in f.scores.items()},
            "mean": f.mean,
            "fresh": f.fresh,
            "behind": verdict.behind[f.trial][0],
            "error": verdict.behind[f.trial][1],
            "equal": verdict.equal(f.trial),
        }
        for f in finalists
    ]
    failed = {str(trial): reason for trial, reason in (left_out or {}).items()}
    known = {"chosen": verdict.chosen, "best": verdict.best, "finalists": rows, "left_out": failed}
    return {**known, "seconds": dict(seconds or {})}
