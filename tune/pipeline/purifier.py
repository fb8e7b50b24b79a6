"""The stages of a purifying component: their names, and the reading of their results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from components.projector.trace import Projection
from components.registry import Registry
from tune.pipeline.job import Inputs
from tune.space.config import ExperimentConfig


class PurifierStages(ABC):
    """The stages of one purifying component, which rebuilds attacked images for the U-Net to clean.

    Attributes:
        sources: stages whose networks it needs, in the order in which they are built.
        validation: the stage that purifies the attacked validation images.
        clean: the stage that purifies the validation images as they are.
        training: the stage that purifies the attacked training images.
        beside: stages that a search adds for its report.
    """

    sources: tuple[str, ...] = ()
    validation: str
    clean: str
    training: str
    beside: tuple[str, ...] = ()

    @abstractmethod
    def cost(self, config: ExperimentConfig) -> int:
        """Generator gradient evaluations per image."""

    @abstractmethod
    def read(self, inputs: Inputs, stage: str) -> Projection:
        """The purified images of a stage, by the configuration's settings."""

    @abstractmethod
    def component(self, inputs: Inputs) -> Any:
        """The trained component as a `components.defense.Defense` takes it."""

    def settings(self, config: ExperimentConfig) -> Mapping[str, Any]:
        """Settings by which `read` chooses among the results that a stage holds."""
        return {}


PURIFIERS: Registry[PurifierStages] = Registry("defense.purifier")  # each module of a purifier adds its own


def purifier_of(config: ExperimentConfig) -> PurifierStages:
    """The stages of the purifier that a configuration uses."""
    return PURIFIERS[config.defense.purifier]


def cost(config: ExperimentConfig) -> int:
    """Generator gradient evaluations per image."""
    return purifier_of(config).cost(config)
