"""Test scores over seeds and over classes, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np

from components.intervals import Interval, t_interval, wilson
from tune.metrics import METRICS
from tune.report.reading import SeedScore

# MNIST, 60,000 training and 10,000 test images, FGSM with ε = 0.3: the figures that ours stand beside.
PUBLISHED = {"pso": 0.9273, "psd": 0.9070, "pco": 0.9663}

# Shares of test images, in the order of the result table; of them those behind each part of the defense.
SHARES = tuple(key for key, metric in METRICS.items() if metric.row)
PARTS = tuple(key for key in SHARES if METRICS[key].part)


@dataclass(frozen=True)
class Score:
    """One metric over the retrained seeds."""

    values: tuple[float, ...]  # one per seed, in the order of the seeds
    ci95: Interval | None  # across seeds (Student t); of a single seed the Wilson interval
    wilson95: Interval | None  # on the test images, for the saved seed alone

    @property
    def mean(self) -> float:
        return mean(self.values)  # exact: of equal values it is that value, which fmean misses by a rounding

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; 0 where there is only one."""
        return stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def widest(self) -> Interval:
        """Both intervals, from the lowest end to the highest: chance in training and in the images."""
        known = [interval for interval in (self.ci95, self.wilson95) if interval] or [(self.mean, self.mean)]
        return min(low for low, _ in known), max(high for _, high in known)

    def as_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "std": self.std,
            "ci95": list(self.ci95) if self.ci95 else None,
            "seeds": list(self.values),
            "wilson95": list(self.wilson95) if self.wilson95 else None,
        }


@dataclass(frozen=True)
class ClassScore:
    """The test images of one true class.

    Attributes:
        label: the class.
        images: how many there are.
        right: how many come out right.
        psd: their share, and `wilson95` its interval; None where there are no images.
        commonest_error: the label that most of the others get; None where all are right.
        commonest_error_images: how many get it.
    """

    label: int
    images: int
    right: int
    psd: float | None
    wilson95: Interval | None
    commonest_error: int | None
    commonest_error_images: int


def scores(seeds: Sequence[SeedScore], saved: SeedScore | None) -> dict[str, Score]:
    """Every metric that all seeds have, the shares first and in their order; `saved` is the seed that was saved."""
    common = set.intersection(*(set(score.metrics) for score in seeds)) if seeds else set()
    ordered = [*(name for name in SHARES if name in common), *sorted(common - set(SHARES))]
    return {name: _score(name, seeds, saved) for name in ordered}


def _score(name: str, seeds: Sequence[SeedScore], saved: SeedScore | None) -> Score:
    values = tuple(score.metrics[name] for score in seeds)
    share = name in SHARES
    on_images = _wilson(name, saved or seeds[0]) if share else None
    if len(values) == 1:
        return Score(values, on_images, on_images)
    bounds = (0.0, 1.0) if share else (-math.inf, math.inf)
    return Score(values, t_interval(values, bounds), on_images)


def _wilson(name: str, score: SeedScore) -> Interval | None:
    images = score.adaptive.images if name == "robust" and score.adaptive else score.images
    correct = round(score.metrics[name] * images)
    return wilson(correct, images) if 0 <= correct <= images and images else None


def gain(one: Score, other: Score) -> Score:
    """Difference of two scores, seed by seed, as of paired runs."""
    values = tuple(a - b for a, b in zip(one.values, other.values, strict=True))
    return Score(values, t_interval(values, (-1.0, 1.0)) if len(values) > 1 else None, None)


def clearly_above(one: Score, other: Score) -> bool:
    """True where the widest intervals do not touch: of scores on other seeds or images."""
    return one.widest[0] > other.widest[1]


def clearly_ahead(one: Score, other: Score) -> bool:
    """True where one score is above another on the same seeds and images, by more than chance in either."""
    ahead = gain(one, other)
    return ahead.mean > by_images(one, other) and (ahead.ci95 is None or ahead.ci95[0] > 0)


def by_images(one: Score, other: Score) -> float:
    """Half the 95 % interval of a difference, by the choice of images: at most, as they are the same for both."""
    return math.hypot(*((high - low) / 2 for low, high in filter(None, (one.wilson95, other.wilson95))))


def per_class(confusion: np.ndarray) -> list[ClassScore]:
    """Scores by true class, from image counts (classes, classes), true label by row."""
    rows = []
    for label, counts in enumerate(confusion):
        images, right = int(counts.sum()), int(counts[label])
        wrong = counts.copy()
        wrong[label] = 0
        share, ends = (right / images, wilson(right, images)) if images else (None, None)
        commonest = int(wrong.argmax()) if wrong.any() else None
        rows.append(ClassScore(label, images, right, share, ends, commonest, int(wrong.max())))
    return rows
