"""Everything that the results of a trial follow from: settings, projection bounds, data and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.datasets.dataset import Dataset, DataSplit
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace


@dataclass(frozen=True)
class Development:
    """The images that a stage may see. It has no field for the test split.

    Attributes:
        train: what is learned from.
        validation: what choices are made by; None in the final training, which has none left to make.
        classes: number of classes.
        fingerprint: hash of all of it.
    """

    train: DataSplit
    validation: DataSplit | None
    classes: int
    fingerprint: str

    @classmethod
    def for_search(cls, dataset: Dataset) -> Development:
        """Train and validation apart."""
        return cls(dataset.train, dataset.validation, dataset.classes, dataset.fingerprint)

    @classmethod
    def for_retraining(cls, dataset: Dataset) -> Development:
        """Train and validation together."""
        return cls(dataset.merged(), None, dataset.classes, f"merged:{dataset.fingerprint}")

    @property
    def held(self) -> DataSplit:
        """The validation images, for stages that cannot do without."""
        assert self.validation is not None, "a stage of the final training asked for validation images"
        return self.validation

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


@dataclass(frozen=True)
class Bounds:
    """Restarts and steps that one projection must hold to serve every trial of a search.

    Attributes:
        restarts: the values that R can take, ascending.
        steps: the values that L can take, ascending.
    """

    restarts: Sequence[int]
    steps: Sequence[int]

    def extend(self, held: Bounds) -> bool:
        """True where a projection of these can go on from one of `held`, which has every step that is kept so far."""
        last = max(held.steps)
        fits = max(held.restarts) <= max(self.restarts) and last <= max(self.steps)
        return fits and set(held.steps).issuperset(step for step in self.steps if step <= last)


def bounds_of(space: SearchSpace) -> Bounds:
    """The values of R and L that the space can propose; every L up to the largest where they are not listed."""
    restarts = space.values("projector.restarts") or range(1, space.bound("projector.restarts") + 1)
    steps = space.values("projector.steps") or range(1, space.bound("projector.steps") + 1)
    return Bounds(list(restarts), list(steps))


def bounds_for(*configs: ExperimentConfig) -> Bounds:
    """The bounds of a projection that serves these configurations and no other."""
    projectors = [config.projector for config in configs]
    return Bounds(sorted({one.restarts for one in projectors}), sorted({one.steps for one in projectors}))


@dataclass(frozen=True)
class Recipe:
    """One configuration, with all else that its results follow from.

    Attributes:
        config: the settings.
        bounds: of the projection.
        data: the images.
        seed: of all random numbers.
    """

    config: ExperimentConfig
    bounds: Bounds
    data: Development
    seed: int
