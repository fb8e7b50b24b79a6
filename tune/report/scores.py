"""Test scores over seeds, their intervals, and which differences the intervals bear out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np

from components.intervals import Interval, t_interval, wilson
from tune.metrics import METRICS
from tune.report.data import Experiment, SeedScore

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
    wilson95: Interval | None  # on the test images, for the median seed alone

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


def scores(experiment: Experiment) -> dict[str, Score]:
    """Every metric that all seeds have, the shares first and in their order."""
    seeds = experiment.seeds
    common = set.intersection(*(set(score.metrics) for score in seeds)) if seeds else set()
    ordered = [*(name for name in SHARES if name in common), *sorted(common - set(SHARES))]
    return {name: _score(name, seeds, experiment.median) for name in ordered}


def _score(name: str, seeds: tuple[SeedScore, ...], median: SeedScore | None) -> Score:
    values = tuple(score.metrics[name] for score in seeds)
    share = name in SHARES
    on_images = _wilson(name, median or seeds[0]) if share else None
    if len(values) == 1:
        return Score(values, on_images, on_images)
    bounds = (0.0, 1.0) if share else (-math.inf, math.inf)
    return Score(values, t_interval(values, bounds), on_images)


def _wilson(name: str, score: SeedScore) -> Interval | None:
    images = score.adaptive.images if name == "robust" and score.adaptive else score.images
    correct = round(score.metrics[name] * images)
    return wilson(correct, images) if 0 <= correct <= images and images else None


def gain(test: Mapping[str, Score], over: str) -> Score | None:
    """Difference between PSD and another metric, seed by seed, as of paired runs."""
    if "psd" not in test or over not in test:
        return None
    values = tuple(a - b for a, b in zip(test["psd"].values, test[over].values, strict=True))
    return Score(values, t_interval(values, (-1.0, 1.0)) if len(values) > 1 else None, None)


def points(more: Score) -> str:
    """A gain in percentage points with its interval: `+1.27 (+0.20 to +2.33)`."""
    mean, *ends = (f"{100 * value:+.2f}".replace("-", "−") for value in (more.mean, *(more.ci95 or ())))
    return f"{mean} ({' to '.join(ends)})" if ends else mean


def clearly_above(one: Score, other: Score) -> bool:
    """True where the widest intervals do not touch."""
    return one.widest[0] > other.widest[1]


def doubts(experiment: Experiment, test: Mapping[str, Score]) -> list[str]:
    """A sentence for each simpler defense that PSD does not clearly beat."""
    rivals = [name for name in ("threshold", "psd_gan") if name in test and "psd" in test]
    return [_doubt(test, name, experiment.part(name)) for name in rivals if not clearly_above(test["psd"], test[name])]


def _doubt(test: Mapping[str, Score], rival: str, part: str) -> str:
    ours, theirs = test["psd"], test[rival]
    verdict = "is below" if ours.mean < theirs.mean else "is not clearly above"
    better = "better" if ours.mean < theirs.mean else "as well"
    reason = "" if clearly_above(theirs, ours) else " The 95 % intervals overlap."
    if (more := gain(test, rival)) and more.ci95:
        reason += f" Compared seed by seed, the difference is {points(more)} points."
    return (
        f"PSD ({percent(ours.mean)} %, {interval(ours.widest)}) {verdict} {part} "
        f"({percent(theirs.mean)} %, {interval(theirs.widest)}).{reason} The simpler defense may serve {better}."
    )


def per_class(confusion: np.ndarray) -> list[dict[str, Any]]:
    """Per true class: images, correct ones and their share with a Wilson interval, commonest error."""
    rows = []
    for label, counts in enumerate(confusion):
        images, right = int(counts.sum()), int(counts[label])
        wrong = counts.copy()
        wrong[label] = 0
        rows.append(
            {
                "label": label,
                "images": images,
                "right": right,
                "psd": right / images if images else None,
                "wilson95": list(wilson(right, images)) if images else None,
                "commonest_error": int(wrong.argmax()) if wrong.any() else None,
                "commonest_error_images": int(wrong.max()),
            }
        )
    return rows


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as percent without the sign, for tables whose head has it; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def seeds_interval(score: Score) -> str:
    """The interval across seeds; none is claimed where all agree, as on images that no training touches."""
    agree = len(score.values) > 1 and score.std == 0
    return "same" if agree else interval(score.ci95)


def interval(ends: Interval | None) -> str:
    return "–" if ends is None else f"{percent(ends[0])}–{percent(ends[1])}"
