"""Optuna's samplers, so seeded that a suggestion can be repeated, and first points that cover the space evenly."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial

from tune.space.config import Sampler

_DRAFTS = 32  # Latin hypercubes, of which the one with the most distant points is taken …
_FEW = 500  # … where they are so few: of many, distances take minutes and gigabytes, and one draft is as good


def sampler_for(kind: Sampler, seed: str, startup: int, first: Mapping[str, float]) -> BaseSampler:
    """A sampler for one suggestion, which depends on `seed` and what the study knows.

    Args:
        kind: Optuna's sampler; `grid` has none, as its points are listed.
        seed: any text.
        startup: finished trials below which it draws at random; of nsga2, the size of a generation.
        first: parameter → place in its range, in [0, 1), of those that are not the sampler's to choose.
    """
    if kind == "random":
        return SeededSampler(seed, sys.maxsize, {})  # Optuna's own depends on the order of the parameters
    if first or kind == "tpe":
        return SeededSampler(seed, startup, first)
    if kind == "gp":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return GPSampler(seed=_number(seed), n_startup_trials=startup)
    return Generations(seed=_number(seed), population_size=max(2, startup))


class Generations(NSGAIISampler):
    """NSGA-II (Deb et al., 2002), whose parents stand in the order of their numbers.

    Optuna's stand in the order of the selection when a generation is begun, and by number afterwards, so that a study
    rebuilt in the midst of a generation would breed otherwise.
    """

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The trials that a generation is bred from."""
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)

    def enter(self, study: Study, trial: FrozenTrial) -> None:
        """Notes the generation that a trial with given parameters belongs to."""
        self.get_trial_generation(study, trial)


class SeededSampler(TPESampler):
    """TPE (Bergstra et al., 2011) for one suggestion.

    Each parameter has its own random numbers, so that the order in which a space asks for them does not
    matter: a space read back from YAML may have another. Running trials count as bad (constant liar), which
    keeps concurrent trials apart.

    Args:
        seed: any text.
        startup: finished trials below which TPE draws at random.
        first: parameter → place in its range, in [0, 1), of those that are not TPE's to choose.
    """

    def __init__(self, seed: str, startup: int, first: Mapping[str, float]) -> None:
        super().__init__(seed=_number(seed), n_startup_trials=startup, constant_liar=True)
        self._seed = seed
        self._startup = startup
        self._first = first

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that TPE draws together."""
        return {} if self._first else super().infer_relative_search_space(study, trial)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter drawn by itself."""
        if param_name in self._first:
            return at(param_distribution, self._first[param_name])
        own = TPESampler(
            seed=_number(f"{self._seed}/{param_name}"), n_startup_trials=self._startup, constant_liar=True
        )
        return own.sample_independent(study, trial, param_name, param_distribution)


def _number(seed: str) -> int:
    return random.Random(seed).getrandbits(32)  # hashes the text, equally in every process


def at(distribution: BaseDistribution, share: float) -> Any:
    """The value that `share`, in [0, 1), of the distribution's mass lies below."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = float(distribution.low), float(distribution.high), distribution.step
    if distribution.log:
        margin = 0.5 if isinstance(distribution, IntDistribution) else 0.0  # a whole number's half width
        value = (low - margin) * ((high + margin) / (low - margin)) ** share
    elif step:
        value = low + step * int(share * (round((high - low) / step) + 1))
    else:
        value = low + share * (high - low)
    value = min(max(value, low), high)
    return round(value) if isinstance(distribution, IntDistribution) else value


def spread(points: int, dimensions: int, seed: int) -> np.ndarray:
    """Points that cover the unit cube: (points, dimensions), each in [0, 1).

    A Latin hypercube (McKay et al., 1979): however few the points, each parameter's range is covered evenly,
    which random numbers and Sobol's sequence do not do with eight points in ten dimensions.
    """
    numbers = np.random.default_rng([seed, points, dimensions])
    if points > _FEW:
        return _latin_hypercube(numbers, points, dimensions)
    cubes = (_latin_hypercube(numbers, points, dimensions) for _ in range(_DRAFTS))
    return max(cubes, key=_least_distance)


def _latin_hypercube(numbers: np.random.Generator, points: int, dimensions: int) -> np.ndarray:
    cells = numbers.permuted(np.tile(np.arange(points), (dimensions, 1)), axis=1).T
    return (cells + numbers.random((points, dimensions))) / points


def _least_distance(cube: np.ndarray) -> float:
    distances = np.linalg.norm(cube[:, None] - cube[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    return float(distances.min())
