"""One artifact to build: what its stage is given, and the training loop that loses at most one epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from components.files import write_json
from components.precision import resolved
from components.saves import opened, saved
from components.training import Training
from components.weights import save_weights
from tune.pipeline.recipe import Bounds, Development, Recipe
from tune.space.config import ExperimentConfig
from tune.storage.folder import Storage
from tune.storage.store import Artifact, Draft

log = logging.getLogger(__name__)

SAVE = "training.pt"  # in the folder of what is unfinished; an encoder beside its GAN has its own
Row = Mapping[str, Any]  # numbers; and under RIGHT which validation images are right, the bits of a number as hex
RIGHT = "right"


@dataclass
class Work:
    """Parts of a stage that one trial built and found, and its own seconds of building."""

    built: int = 0
    reused: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """Progress of a stage: `done` of `total` units.

    Attributes:
        stage: its name.
        done: units.
        total: units; 0 = not known.
        row: after an epoch, its measurements.
        seconds: with a row of what is being built, those spent on it so far, in whatever process.
        artifact: once it is there, built or found, what the stage made.
        work: with an artifact, what was done so far, by stage.
        waits_for: signatures of artifacts that others are building, while there is nothing else to do.
    """

    stage: str
    done: int
    total: int
    row: Row | None = None
    artifact: Artifact | None = None
    work: Mapping[str, Work] = field(default_factory=dict)
    waits_for: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Inputs:
    """Artifacts of one configuration, and the device on which they are read.

    Attributes:
        recipe: what they follow from.
        device: where to compute.
        artifacts: by stage, all parts in order.
    """

    recipe: Recipe
    device: torch.device
    artifacts: Mapping[str, Sequence[Artifact]]

    @property
    def config(self) -> ExperimentConfig:
        """The settings."""
        return self.recipe.config

    @property
    def bounds(self) -> Bounds:
        """The bounds of the projection."""
        return self.recipe.bounds

    @property
    def data(self) -> Development:
        """The images."""
        return self.recipe.data

    @property
    def seed(self) -> int:
        """The seed of all random numbers."""
        return self.recipe.seed

    def folder(self, stage: str) -> Path:
        """The files of a stage that is built in one piece."""
        (artifact,) = self.artifacts[stage]
        return artifact.folder


@dataclass(frozen=True)
class Job(Inputs):
    """One artifact to build; its inputs are the artifacts of the stages that it needs.

    Attributes:
        stage: its stage.
        part: which of the stage's equal shares.
        draft: where the result goes.
        saves: where an unfinished training is kept.
        report: told of progress; may raise to stop the work.
        smaller: the same part of a projection with smaller bounds, to go on from; None where there is none.
    """

    stage: str
    part: int
    draft: Draft
    saves: Storage
    report: Callable[[Progress], None]
    smaller: Artifact | None = None

    @property
    def description(self) -> dict[str, Any]:
        """Settings, device and versions for the artifact's manifest."""
        settings = self.config.model_dump(exclude={"search"})
        used = {
            f"{section}.{name}": resolved(value, self.device)
            for section, fields in settings.items()
            for name, value in fields.items()
            if name.endswith("precision")
        }
        precision = {"device": self.device.type, **used}
        return {"part": self.part, "seed": self.seed, "config": settings, "precision": precision}

    def write_weights(self, name: str, module: torch.nn.Module) -> None:
        """Adds a network's weights to the artifact."""
        save_weights(module, self.draft.folder / f"{name}.safetensors")

    def write_history(self, history: Sequence[Row]) -> None:
        """Adds the measurements of all epochs to the artifact, and those of the last to its metrics."""
        write_json(self.draft.folder / "history.json", history)
        self.draft.metrics.update({name: value for name, value in history[-1].items() if name != RIGHT})

    def train(
        self, training: Training, measure: Callable[[], Row] = dict, name: str = "training"
    ) -> list[Row]:
        """Runs a training to its end, measuring and saving after each epoch, and returns what was measured.

        One that was interrupted goes on from its last save, after reporting its earlier epochs once more: who compares
        trials by epoch sees the same as if nothing had happened. `name` tells several trainings of one stage apart.
        """
        history = self._restore(training, f"{name}.pt")
        for row in history:
            self._report_epoch(training, row)
        for metrics in training:
            row = {"epoch": training.epoch, **metrics, **measure()}
            history.append(row)
            self._save(f"{name}.pt", training, history)
            self._report_epoch(training, row)
        return history

    def _report_epoch(self, training: Training, row: Row) -> None:
        self.report(Progress(self.stage, int(row["epoch"]), training.epochs, row, seconds=self.draft.seconds))

    def _save(self, file: str, training: Training, history: list[Row]) -> None:
        seconds = self.draft.seconds  # of the whole artifact: this may not be its first training
        self.saves.write(file, saved(training, history=history, seconds=seconds))

    def _restore(self, training: Training, file: str) -> list[Row]:
        try:
            state = opened(self.saves.read(file))
            history, seconds = list(state["history"]), float(state["seconds"])
            training.load_state_dict(state["training"])
        except FileNotFoundError:
            return []
        except (LookupError, RuntimeError, TypeError, ValueError) as error:  # damaged, or of another architecture
            log.warning("%s/%s: expected a save of %s, %s; starting over", self.saves.uri, file, self.stage, error)
            return []
        self.draft.seconds_before = max(seconds, self.draft.seconds_before)  # the later training's save has all of it
        return history
