"""Reports of running trials: to the live view through the coordinator, to TensorBoard, and to Ray Tune."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import ray

from tune.cluster.coordinator import PERIOD, Message, start_coordinator
from tune.cluster.line import line
from tune.monitor.tensorboard import TensorBoardRun
from tune.pipeline.job import RIGHT, Progress, Row, Work
from tune.storage.ledger import Outcome

PATIENCE, LONGEST_PATIENCE = 2.0, 60.0  # seconds of waiting until Tune is told, for the first time, and after many
MEASURED = ("psd", "pco", "validation_loss")  # after each epoch of a trial's U-Net


@dataclass(frozen=True)
class ProgressChannel:
    """The way of progress from the trials of one search to its driver; sent with each trial.

    Attributes:
        name: that no other search has.
    """

    name: str

    def tell(self, trial: int, message: Message | None) -> None:
        """Sets a trial's progress; None where it is over."""
        line().tell((self.name, trial), message)


class ProgressFeed:
    """The driver's end of a new channel: it asks for what has changed once a second, and never waits for the answer.

    Attributes:
        channel: for the trials.
        latest: the progress of every running trial, as far as it was heard.
    """

    def __init__(self) -> None:
        self._coordinator = start_coordinator()
        self.channel = ProgressChannel(uuid.uuid4().hex)
        self.latest: dict[int, Message] = {}
        self._pending: Any = None
        self._asked = 0.0

    def look(self) -> dict[int, Message]:
        """Brings `latest` up to date, and returns what is new in it."""
        news: dict[int, Message] = {}
        if self._pending is not None and ray.wait([self._pending], timeout=0)[0]:
            with suppress(ray.exceptions.RayError):  # of a coordinator that is being started again
                news = self._take(ray.get(self._pending))
            self._pending = None
        if self._pending is None and time.monotonic() - self._asked > PERIOD:
            self._asked = time.monotonic()
            self._pending = self._coordinator.progress.remote(self.channel.name)
        return news

    def _take(self, changes: Mapping[int, Message | None]) -> dict[int, Message]:
        news = {trial: message for trial, message in changes.items() if message is not None}
        self.latest |= news
        for trial in changes.keys() - news.keys():
            self.latest.pop(trial, None)
        return news


class ProgressReporter:
    """Reports a trial's progress to the driver and to TensorBoard, and to Ray Tune after each epoch of its U-Net.

    Args:
        trial: its number; of a retraining, the seed.
        channel: to the driver.
        run: its run in TensorBoard; None = none.
        judged: whether it is a trial, which Tune compares with others by epoch.
        before: seconds for which the trial had a share before it was paused.
        earlier: the outcome with which it was set aside, of a trial that was promoted.
    """

    def __init__(
        self,
        trial: int,
        channel: ProgressChannel,
        run: TensorBoardRun | None,
        judged: bool,
        before: float = 0.0,
        earlier: Outcome | None = None,
    ) -> None:
        self.trial, self.channel, self.run, self.judged = trial, channel, run, judged
        self.cost = 0  # of its projection; the trial sets it
        self.rungs: Collection[int] = ()  # epochs after which trials are compared; likewise
        self.intermediate: dict[str, float] = dict(earlier.intermediate) if earlier else {}
        self.right: dict[str, str] = dict(earlier.right) if earlier else {}
        self.earlier = earlier.spans if earlier else []
        self._rates: list[float] = []
        self._work: Mapping[str, Work] = {}
        self._unfinished: dict[str, float] = {}  # of the stage that is being trained, its seconds
        self._stage, self._since = "", 0.0
        self._began = time.time() - (before or (earlier.seconds if earlier else 0.0))
        self._offered, self._patience = 0.0, PATIENCE

    def __call__(self, progress: Progress) -> None:
        now = time.time()
        if not progress.waits_for:
            self._offered, self._patience = now, PATIENCE
        if progress.artifact is not None:
            self._work, self._unfinished = progress.work, {}
            if progress.stage == "projection":
                self._rates.append(progress.artifact.metrics["evaluations_per_second"])
            return
        if progress.stage != self._stage:
            self._stage, self._since = progress.stage, now
        message = Message(progress.stage, progress.done, progress.total, self._since, socket.gethostname())
        self.channel.tell(self.trial, message)
        if progress.seconds:
            self._unfinished = {progress.stage: round(progress.seconds, 3)}
        if progress.row:
            self.epoch(progress.stage, progress.row)
        if progress.waits_for and self.judged and now - self._offered > self._patience:
            self._offered, self._patience = now, min(2 * self._patience, LONGEST_PATIENCE)
            self._offer_share(progress.waits_for)

    @property
    def seconds(self) -> float:
        """Seconds that the trial has had a share of the machine for: also in a process that was lost, in building."""
        return round(max(time.time() - self._began, work_seconds(self.work())), 3)

    @property
    def speed(self) -> dict[str, float]:
        """Images per second of its projection, by the median of the parts; nothing where none is known."""
        known = self._rates and self.cost
        return {"images_per_second": round(median(self._rates) / self.cost, 3)} if known else {}

    def work(self) -> dict[str, dict[str, float]]:
        """Work by stage since the trial first began, also of the stage that it trains, and the projection's speed."""
        unfinished = {name: Work(seconds=seconds) for name, seconds in self._unfinished.items()}
        work: dict[str, dict[str, float]] = {name: asdict(done) for name, done in {**self._work, **unfinished}.items()}
        if self.speed:
            work["projection"] |= self.speed
        return work

    def _offer_share(self, signatures: Sequence[str]) -> None:
        """Tells Tune that there is nothing left but to wait; where it pauses the trial, this does not return."""
        tell_tune({"trial": self.trial, "waits": list(signatures), "seconds": self.seconds})

    def epoch(self, stage: str, row: Row) -> None:
        """Notes what was measured after an epoch; of a trial's U-Net, Tune is told."""
        epoch = int(row["epoch"])
        if self.run:
            numbers = {f"{stage}/{name}": value for name, value in row.items() if name not in ("epoch", RIGHT)}
            self.run.scalars(epoch, numbers)
        if self.judged and stage == "unet":
            self.intermediate[str(epoch)] = row["psd"]
            # All of them: TensorBoard's parallel coordinates leave out a run that lacks one, such as a pruned one
            metrics = {name: row[name] for name in MEASURED} | {"cost": self.cost} | self.speed
            if self.run:
                self.run.metrics(metrics, epoch)
            told = {"epoch": epoch, "psd": row["psd"], "metrics": metrics, "work": self.work()}
            if epoch in self.rungs and RIGHT in row:
                told[RIGHT] = self.right[str(epoch)] = row[RIGHT]
            tell_tune({"trial": self.trial, **told})


def work_seconds(work: Mapping[str, Mapping[str, float]]) -> float:
    """Seconds of building of all stages together."""
    return sum(row.get("seconds", 0.0) for row in work.values())


def tell_tune(metrics: dict[str, Any]) -> None:
    """Reports from within a trial to Ray Tune."""
    from ray import tune  # it imports pandas and pyarrow, for which a retraining need not wait

    tune.report(metrics)
