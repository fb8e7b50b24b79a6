"""Reports of running trials: to the live view through an actor, to TensorBoard, and to Ray Tune."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from tune.monitor.progress_actor import Message
from tune.monitor.tensorboard import TensorBoardRun
from tune.pipeline.job import Progress, Work

MEASURED = ("psd", "pco", "validation_loss")  # after each epoch of a trial's U-Net


class ProgressReporter:
    """Reports a trial's progress to the actor and to TensorBoard, and to Ray Tune after each epoch of its U-Net.

    Args:
        trial: its number; of a retraining, the seed.
        progress_actor: from `start_progress_actor`.
        run: its run in TensorBoard; None = none.
        judged: whether it is a trial, which Tune compares with others by epoch.
    """

    def __init__(self, trial: int, progress_actor: Any, run: TensorBoardRun | None, judged: bool) -> None:
        self.trial, self.progress_actor, self.run, self.judged = trial, progress_actor, run, judged
        self.cost = 0  # of its projection; the trial sets it
        self.intermediate: dict[str, float] = {}
        self._rates: list[float] = []
        self._work: Mapping[str, Work] = {}
        self._stage, self._since, self._told = "", 0.0, 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.artifact is not None:
            self._work = progress.work
            if progress.stage == "projection":
                self._rates.append(progress.artifact.metrics["evaluations_per_second"])
            return
        now = time.time()
        if progress.stage != self._stage:
            self._stage, self._since, self._told = progress.stage, now, 0.0
        if now - self._told > 0.3 or progress.row:
            self._told = now
            message = Message(progress.stage, progress.done, progress.total, self._since, socket.gethostname())
            self.progress_actor.put.remote(self.trial, message)
        if progress.row:
            self._epoch(progress.stage, progress.row)

    @property
    def speed(self) -> dict[str, float]:
        """Images per second of its projection, by the median of the parts; nothing where none is known."""
        known = self._rates and self.cost
        return {"images_per_second": round(median(self._rates) / self.cost, 3)} if known else {}

    def work(self, unfinished: str = "") -> dict[str, dict[str, float]]:
        """Work so far by stage and the projection's speed; of the stage `unfinished`, the seconds until now."""
        work: dict[str, dict[str, float]] = {name: asdict(done) for name, done in self._work.items()}
        if unfinished:
            work[unfinished] = asdict(Work(seconds=round(time.time() - self._since, 3)))
        if self.speed:
            work["projection"] |= self.speed
        return work

    def _epoch(self, stage: str, row: Mapping[str, float]) -> None:
        epoch = int(row["epoch"])
        if self.run:
            self.run.scalars(epoch, {f"{stage}/{name}": value for name, value in row.items() if name != "epoch"})
        if self.judged and stage == "unet":
            self.intermediate[str(epoch)] = row["psd"]
            # All of them: TensorBoard's parallel coordinates leave out a run that lacks one, such as a pruned one
            metrics = {name: row[name] for name in MEASURED} | {"cost": self.cost} | self.speed
            if self.run:
                self.run.metrics(metrics, epoch)
            told = {"epoch": epoch, "psd": row["psd"], "metrics": metrics, "work": self.work(unfinished=stage)}
            tell_tune({"trial": self.trial, **told})


def tell_tune(metrics: dict[str, Any]) -> None:
    """Reports from within a trial to Ray Tune."""
    from ray import tune  # it imports pandas and pyarrow, for which a retraining need not wait

    tune.report(metrics)
