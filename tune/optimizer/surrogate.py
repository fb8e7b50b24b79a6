"""A Gaussian process over the parameters of trials: what a configuration would score, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
_ROOT5 = math.sqrt(5)
_STEPS = 40  # of the fit of the length scales


class Encoding:
    """Parameters as numbers: a range as the place in it, numbers of a list by their rank, other values one by one.

    Args:
        ranges: key → its range as the YAML has it: `{choice: [...]}`, or `low`, `high`, `log`; and perhaps `when`.
    """

    def __init__(self, ranges: Mapping[str, Mapping[str, Any]]) -> None:
        self._ranges = dict(ranges)

    def __call__(self, points: Sequence[Mapping[str, Any]]) -> Array:
        """(n, d); a parameter that a point does not have stands in the middle, with a column that says so."""
        return np.array([self._vector(point) for point in points], dtype=float).reshape(len(points), -1)

    def _vector(self, point: Mapping[str, Any]) -> list[float]:
        vector: list[float] = []
        for key, written in self._ranges.items():
            vector += _places(point.get(key), written, key in point)
            if "when" in written:
                vector.append(float(key in point))
        return vector


def _places(value: Any, written: Mapping[str, Any], given: bool) -> list[float]:
    if "choice" not in written:
        return [place(value, written) if given else 0.5]
    options = list(written["choice"])
    if all(isinstance(option, int | float) and not isinstance(option, bool) for option in options):
        return [sorted(options).index(value) / max(len(options) - 1, 1) if given else 0.5]
    return [float(given and option == value) / math.sqrt(2) for option in options]


def place(value: float, written: Mapping[str, Any]) -> float:
    """Position of a value between the ends of its range, in [0, 1]."""
    scale = math.log if written.get("log") else float
    low, high = scale(written["low"]), scale(written["high"])
    return (scale(value) - low) / (high - low) if high > low else 0.5


@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process with a Matérn 5/2 kernel and a length scale for each column, fitted by its evidence.

    Source: Rasmussen, Williams, Gaussian Processes for Machine Learning (2006), chapters 2 and 5.
    """

    points: Array  # (n, d)
    targets: Array  # (n,), values less their mean in units of their scale
    mean: float
    scale: float
    logs: Array  # logarithms of length scales (d), and of the variances of signal and noise
    factor: Array  # Cholesky's, of the kernel
    weights: Array

    @classmethod
    def fit(cls, points: Array, values: Array, noise: float = 0.0) -> Surrogate:
        """Fits to values (n,) at points (n, d); `noise` is the least standard deviation of a value at a point."""
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        targets, least = (values - mean) / scale, max((noise / scale) ** 2, 1e-4)
        dimensions = points.shape[1]
        centre = np.array([math.log(0.7)] * dimensions + [0.0, math.log(max(least, 0.05))])
        # Where the values differ by less than the noise of one, its least variance lies above 2 as well.
        of_noise = math.log(least), max(math.log(least), 2.0)
        limits = [(math.log(0.05), math.log(20))] * dimensions + [(-4.0, 3.0), of_noise]
        start = np.clip(centre, [low for low, _ in limits], [high for _, high in limits])
        found = minimize(
            _loss, start, (points, targets, centre), jac=True, bounds=limits, options={"maxiter": _STEPS}
        )
        return cls._given(points, targets, mean, scale, found.x)

    @classmethod
    def _given(cls, points: Array, targets: Array, mean: float, scale: float, logs: Array) -> Surrogate:
        kernel = _kernel(points, points, logs) + math.exp(logs[-1]) * np.eye(len(points))
        factor = cholesky(kernel, lower=True)
        return cls(points, targets, mean, scale, logs, factor, cho_solve((factor, True), targets))

    def expecting(self, points: Array) -> Surrogate:
        """The same with its own means as values of further points: it says the same, and is surer beside them."""
        targets = (self.predict(points)[0] - self.mean) / self.scale
        joined = np.concatenate([self.points, points]), np.concatenate([self.targets, targets])
        return self._given(*joined, self.mean, self.scale, self.logs)

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the score itself, without the noise of a measurement, each (m,)."""
        cross = _kernel(points, self.points, self.logs)
        solved = solve_triangular(self.factor, cross.T, lower=True)
        variance = np.maximum(math.exp(self.logs[-2]) - np.square(solved).sum(0), 1e-12)
        return self.mean + self.scale * cross @ self.weights, self.scale * np.sqrt(variance)

    def predict_mean_of(self, groups: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the mean score over each group of points, (g, m, d) → (g,) and (g,)."""
        means, deviations = [], []
        for points in groups:
            cross = _kernel(points, self.points, self.logs).mean(0)
            solved = solve_triangular(self.factor, cross, lower=True)
            prior = _kernel(points, points, self.logs).mean()
            means.append(self.mean + self.scale * float(cross @ self.weights))
            deviations.append(self.scale * math.sqrt(max(float(prior - solved @ solved), 0.0)))
        return np.array(means), np.array(deviations)


def _kernel(one: Array, other: Array, logs: Array) -> Array:
    distance = np.sqrt(_squares(one, other, logs).sum(0))
    value: Array = math.exp(logs[-2]) * (1 + _ROOT5 * distance + 5 / 3 * distance**2) * np.exp(-_ROOT5 * distance)
    return value


def _squares(one: Array, other: Array, logs: Array) -> Array:
    """Squared differences in units of the length scales, (d, n, m)."""
    scales = np.exp(logs[:-2])
    return np.square(((one[:, None] - other[None]) / scales).transpose(2, 0, 1))


def _loss(logs: Array, points: Array, targets: Array, centre: Array) -> tuple[float, Array]:
    """Negative logarithm of the evidence, and of a prior that keeps few points from extreme scales; its gradient."""
    squares = _squares(points, points, logs)
    distance = np.sqrt(squares.sum(0))
    decay = math.exp(logs[-2]) * np.exp(-_ROOT5 * distance)
    signal = decay * (1 + _ROOT5 * distance + 5 / 3 * distance**2)
    noise = math.exp(logs[-1])
    try:
        factor = cholesky(signal + (noise + 1e-9) * np.eye(len(points)), lower=True)
    except np.linalg.LinAlgError:
        return 1e9, np.zeros_like(logs)
    weights = cho_solve((factor, True), targets)
    inverse = cho_solve((factor, True), np.eye(len(points)))
    inner = np.outer(weights, weights) - inverse
    by_scale = squares * (5 / 3 * decay * (1 + _ROOT5 * distance))
    gradient = -0.5 * np.array(
        [*(inner * by_scale).sum((1, 2)), (inner * signal).sum(), noise * np.trace(inner)]
    )
    evidence = -0.5 * float(targets @ weights) - float(np.log(np.diag(factor)).sum())
    away = logs - centre
    return -evidence + 0.5 * float(away @ away), gradient + away
