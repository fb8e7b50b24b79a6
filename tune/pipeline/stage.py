"""A stage of a trial: everything that is known of it, in one object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from components.registry import Registry
from components.training import Training
from tune.pipeline.job import Job
from tune.pipeline.recipe import Recipe
from tune.space.config import ExperimentConfig
from tune.storage.signature import signature_of

FORWARD = 1 / 3  # of a training step's time that a network takes to be applied


@dataclass(frozen=True)
class Workload:
    """A few batches of a stage's work, by which its speed and its memory are measured.

    Attributes:
        name: of the rate that it measures.
        title: of that rate, for people.
        unit: of work: image, step or evaluation.
        units: of work in one run.
        run: does it once more.
    """

    name: str
    title: str
    unit: str
    units: float
    run: Callable[[], object]


@dataclass(frozen=True)
class Rate:
    """A measured speed.

    Attributes:
        title: for people.
        unit: of work.
        seconds: per unit.
    """

    title: str
    unit: str
    seconds: float

    def __str__(self) -> str:
        """`0.52 ms/image`, or `12,300 evaluations/s` for what is quick."""
        return f"{1 / self.seconds:,.0f} {self.unit}s/s" if self.unit == "evaluation" else f"{self._ms} ms/{self.unit}"

    @property
    def _ms(self) -> str:
        return f"{1e3 * self.seconds:.3g}"


Rates = Mapping[str, Rate]


class Stage(ABC):
    """One stage: its signature, its size and cost, and how it is built.

    Attributes:
        name: of the stage, and of its folder in the store.
        version: raised by hand when the code makes another result of the same settings.
        divisible: True where it goes through its images in parts, which several workers build side by side.
        part_images: images per part, the most that a killed worker loses.
        judged: True where trials are compared by its epochs while it trains.
    """

    name: str
    version: int = 1
    divisible: bool = False
    part_images: int = 500
    judged: bool = False

    @abstractmethod
    def build(self, job: Job) -> None:
        """Makes the artifact of a job, in its draft."""

    def settings(self, recipe: Recipe) -> Mapping[str, Any]:
        """Settings that the result follows from, beside the inputs."""
        return {}

    def inputs(self, config: ExperimentConfig) -> tuple[str, ...]:
        """Stages whose results it follows from."""
        return ()

    def observed(self, config: ExperimentConfig) -> tuple[str, ...]:
        """Stages that it measures itself with; its result does not follow from theirs."""
        return ()

    def growing(self, config: ExperimentConfig) -> Mapping[str, Any] | None:
        """Settings without the bounds, where a larger artifact can go on from a smaller; None where it cannot."""
        return None

    def shipped(self, config: ExperimentConfig) -> str | None:
        """Identity of a ready-made artifact that stands in for training, where the configuration asks for one."""
        return None

    def images(self, recipe: Recipe) -> int:
        """Number of images that it goes through or learns from."""
        return len(recipe.data.validation) if recipe.data.validation is not None else 0

    def bytes(self, recipe: Recipe) -> int:
        """Size of one artifact, all parts together, as far as it can be told beforehand."""
        return 10_000

    def seconds(self, recipe: Recipe, rates: Rates) -> float:
        """Computing time of one artifact, all parts together, at the measured rates."""
        return 0.0

    def workloads(self, recipe: Recipe, device: torch.device, batches: int) -> Iterator[Workload]:
        """Samples of its work with an epoch of `batches` full batches."""
        return iter(())

    def parts(self, recipe: Recipe) -> int:
        """Number of parts."""
        return max(1, -(-self.images(recipe) // self.part_images)) if self.divisible else 1

    def signature(self, recipe: Recipe, inputs: Mapping[str, str]) -> str:
        """Hash of everything that the result follows from; `inputs` are the signatures of the stage's inputs."""
        return signature_of(self.facts(recipe, inputs))

    def facts(self, recipe: Recipe, inputs: Mapping[str, str]) -> dict[str, Any]:
        """Everything that the result follows from, by name; it stands in the artifact's manifest."""
        return self._facts(self.settings(recipe), recipe, inputs)

    def base(self, recipe: Recipe, inputs: Mapping[str, str]) -> str | None:
        """Hash that artifacts share of which a larger can go on from a smaller; None where none can."""
        settings = self.growing(recipe.config)
        return None if settings is None else signature_of(self._facts(settings, recipe, inputs))

    def _facts(self, settings: Mapping[str, Any], recipe: Recipe, inputs: Mapping[str, str]) -> dict[str, Any]:
        shipped = self.shipped(recipe.config)
        origin = {"shipped": shipped} if shipped else {"data": recipe.data.fingerprint, "seed": recipe.seed}
        return {
            "stage": self.name,
            "version": self.version,
            "settings": settings,
            "inputs": {name: inputs[name] for name in self.inputs(recipe.config)},
            **origin,
        }


def weights_bytes(*modules: torch.nn.Module) -> int:
    """Size of the networks' weights in float32."""
    return sum(4 * value.numel() for module in modules for value in module.state_dict().values())


def training_workload(name: str, title: str, unit: str, units: int, training: Training) -> Workload:
    """Epochs of a training, one after the other."""

    def run() -> None:
        training.run_epoch()
        training.epoch += 1

    return Workload(name, title, unit, units, run)


STAGES: Registry[Stage] = Registry("stage")  # each module of a component adds its own
