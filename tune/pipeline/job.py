"""What a stage's builder is given, and the training loop that loses at most one epoch."""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from components.datasets.dataset import Dataset, DataSplit
from components.training import Training
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace
from tune.storage.folder import Storage
from tune.storage.store import Artifact, Draft

log = logging.getLogger(__name__)

SAVE = "training.pt"  # in the folder of what is unfinished; an encoder beside its GAN has its own
Row = Mapping[str, float]


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

    def split(self, name: str) -> DataSplit:
        """`train` or `validation`."""
        split = self.train if name == "train" else self.validation
        assert split is not None, "a stage of the final training asked for validation images"
        return split

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


@dataclass(frozen=True)
class Bounds:
    """What one projection must hold to serve every trial of a search.

    Attributes:
        restarts: the values that R can take, ascending.
        steps: the values that L can take, ascending.
    """

    restarts: Sequence[int]
    steps: Sequence[int]

    def extend(self, held: Bounds) -> bool:
        """Whether a projection of these can go on from one of `held`: it has no more, and every step that is kept."""
        last = max(held.steps)
        fits = max(held.restarts) <= max(self.restarts) and last <= max(self.steps)
        return fits and set(held.steps).issuperset(step for step in self.steps if step <= last)


def bounds_of(space: SearchSpace) -> Bounds:
    """The values of R and L that the space can propose; every L up to the largest where they are not listed."""
    restarts = space.values("projector.restarts") or range(1, space.bound("projector.restarts") + 1)
    steps = space.values("projector.steps") or range(1, space.bound("projector.steps") + 1)
    return Bounds(list(restarts), list(steps))


def bounds_of_one(config: ExperimentConfig) -> Bounds:
    """The bounds of a projection that serves one R and L."""
    return Bounds([config.projector.restarts], [config.projector.steps])


@dataclass
class Work:
    """What one trial did for a stage: parts built and found, and its own seconds of building."""

    built: int = 0
    reused: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How far a stage is: `done` of `total` units.

    Attributes:
        stage: its name.
        done: units.
        total: units; 0 = not known.
        row: after an epoch, its measurements.
        artifact: once it is there, built or found, what the stage made.
        work: with an artifact, what was done so far, by stage.
    """

    stage: str
    done: int
    total: int
    row: Row | None = None
    artifact: Artifact | None = None
    work: Mapping[str, Work] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One artifact to build.

    Attributes:
        stage: its stage.
        part: which of the stage's equal shares.
        config: the experiment.
        bounds: of the projection.
        data: the images.
        seed: of all random numbers.
        device: where to compute.
        artifacts: those of the stages that this one needs, all parts in order.
        draft: where the result goes.
        saves: where an unfinished training is kept.
        report: told of progress; may raise to stop the work.
        smaller: the same part of a projection with smaller bounds, to go on from; None where there is none.
    """

    stage: str
    part: int
    config: ExperimentConfig
    bounds: Bounds
    data: Development
    seed: int
    device: torch.device
    artifacts: Mapping[str, Sequence[Artifact]]
    draft: Draft
    saves: Storage
    report: Callable[[Progress], None]
    smaller: Artifact | None = None

    def train(self, training: Training, measure: Callable[[], Row], name: str = "training") -> list[Row]:
        """Runs a training to its end, measuring and saving after each epoch, and returns what was measured.

        One that was interrupted goes on from its last save, after reporting its earlier epochs once more: who compares
        trials by epoch sees the same as if nothing had happened. `name` tells several trainings of one stage apart.
        """
        history = self._restore(training, f"{name}.pt")
        for row in history:
            self._report_epoch(training, row)
        began = time.perf_counter()
        for metrics in training:
            row = {"epoch": training.epoch, **metrics, **measure()}
            history.append(row)
            self._save(f"{name}.pt", training, history, self.draft.seconds_before + time.perf_counter() - began)
            self._report_epoch(training, row)
        return history

    def _report_epoch(self, training: Training, row: Row) -> None:
        self.report(Progress(self.stage, int(row["epoch"]), training.epochs, row))

    def _save(self, file: str, training: Training, history: list[Row], seconds: float) -> None:
        buffer = io.BytesIO()
        torch.save({"training": training.state_dict(), "history": history, "seconds": seconds}, buffer)
        self.saves.write(file, sealed(buffer.getvalue()))

    def _restore(self, training: Training, file: str) -> list[Row]:
        before = copy.deepcopy(training.state_dict())
        try:
            content = io.BytesIO(unsealed(self.saves.read(file)))
            state = torch.load(content, map_location="cpu", weights_only=True)  # here may be no GPU, or another
            training.load_state_dict(state["training"])
            history, seconds = list(state["history"]), float(state["seconds"])
        except FileNotFoundError:
            return []
        except Exception as error:  # whatever a damaged file makes of torch.load
            training.load_state_dict(before)  # of a save that does not fit, some parts may have been loaded
            log.warning("%s/%s: expected a save of %s, %s; starting over", self.saves.uri, file, self.stage, error)
            return []
        self.draft.seconds_before = seconds
        return history


def sealed(content: bytes) -> bytes:
    """`content` behind its own sha256, so that a flipped bit is noticed."""
    return hashlib.sha256(content).digest() + content


def unsealed(content: bytes) -> bytes:
    """What was `sealed`. Raises ValueError where it has changed since."""
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("found a damaged file")
    return content


def no_measurement() -> Row:
    """For trainings that are measured by their loss alone."""
    return {}


def to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies in main memory, as safetensors wants them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def description(config: ExperimentConfig, sections: Sequence[str]) -> dict[str, Any]:
    """The named sections of a configuration, as plain values."""
    return {name: getattr(config, name).model_dump() for name in sections}
