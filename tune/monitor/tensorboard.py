"""TensorBoard: the experiment's columns at the log root, and one run for each trial and each retrained seed.

    experiment/tensorboard/
        events.out.tfevents.000.experiment      what is searched and measured
        012 R4 L60 λ0.3/
            events.out.tfevents.000.run         start, scalars, images
            events.out.tfevents.001.end         how it ended

A trial that was interrupted and is taken up again adds `001.run`; a repeated step replaces the older value.
The end stands in a file of its own because TensorBoard believes only the first end that it reads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG

from tune.metrics import Target
from tune.monitor import events, hparams
from tune.monitor.hparams import Status
from tune.monitor.runs import run_name, tensorboard_command
from tune.space.config import PURIFIERS
from tune.space.space import SearchSpace
from tune.storage.folder import Storage
from tune.storage.scratch import scratch

__all__ = ["TensorBoardRun", "close_run", "run_name", "tensorboard_command", "write_experiment"]

log = logging.getLogger(__name__)

UPLOAD_SECONDS = 30.0  # between two uploads of a growing event file to an object store


def write_experiment(experiment: Storage, space: SearchSpace, target: Target) -> None:
    """Write the columns of the HPARAMS page to the log root, when a search starts; resuming replaces them."""
    configuration = hparams.experiment_record(space, target)
    experiment.child("tensorboard").write(_file_name(0, "experiment"), configuration)


def _file_name(number: int, suffix: str) -> str:
    """TensorBoard reads files with `tfevents` in their name, in the order of their names."""
    return f"events.out.tfevents.{number:03d}.{suffix}"


class TensorBoardRun:
    """The run of one trial, or of one retrained seed.

    A context manager: leaving it ends the run as finished, or as failed after an exception. An interruption
    (Ctrl-C, `SystemExit`) ends nothing, as the trial will be taken up again; `close_run` ends a run whose
    process died.

    Args:
        experiment: the experiment's folder. An object store gets the file at `flush` and `close`, and at most
            every 30 seconds in between.
        space: what is searched.
        trial: its number; of a seed, the number of the trial whose configuration is retrained.
        params: the searched parameters that the trial has.
        seed: the retrained seed, whose metrics are then those of the test split; None for a trial.
    """

    def __init__(
        self,
        experiment: Storage,
        space: SearchSpace,
        trial: int,
        params: Mapping[str, Any],
        seed: int | None = None,
    ) -> None:
        self.name = run_name(trial, params, seed)
        self.folder = experiment.child("tensorboard").child(self.name)
        self._start = hparams.start_record(space, trial, params)
        purifier = PURIFIERS[{**space.fixed, **params}.get("defense.purifier", "projector")]
        self._rows = ("original", "attacked", purifier.title, "denoised")
        self._split = "result" if seed is None else "test"
        self._file: BinaryIO | None = None
        self._scratch = ExitStack()
        self._step = 0
        self._uploaded = time.monotonic()

    def __enter__(self) -> Self:
        """Open the run, and start it unless an earlier attempt did."""
        names = self.folder.names()
        for name in filter(_is_end, names):
            self.folder.delete(name)
        self._file_name = _file_name(_next_number(names), "run")
        self._path = self._root() / self._file_name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab")
        if not _is_started(self.folder, names):
            self._write(self._start)
        self.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close("finished")
        elif isinstance(error, Exception):
            self.close("failed")
        else:
            self._release()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write values of one step, such as an epoch: `{"unet/loss": 0.41}`. NaN is shown."""
        self._write(events.scalars(step, {tag: float(value) for tag, value in values.items()}))

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Fill the trial's row on the HPARAMS page: at the end, and after every epoch if so wished.

        Args:
            values: by their names in the trial's record; those that are not finite numbers are left out.
            step: None = the last one given.
        """
        self._step = self._step if step is None else step
        if numbers := events.finite(values):
            tagged = {f"{self._split}/{key}": number for key, number in numbers.items()}
            self._write(events.scalars(self._step, tagged))

    def images(self, tag: str, images: Any, step: int = 0, rows: Sequence[str] | None = None) -> None:
        """Write a grid of images, a row for each entry of the first axis.

        Args:
            tag: its name on the Images page.
            images: (rows, N, C, H, W), tensor or array, float in [0, 1] or uint8.
            step: the epoch, if there are grids of several.
            rows: what each row shows; None = those of the published figure.

        Raises:
            ValueError: another shape, or not one caption per row.
        """
        self.figure(tag, events.grid(images, rows or self._rows), step)

    def figure(self, tag: str, png: bytes, step: int = 0) -> None:
        """Write a figure, such as the R × L map. Raises ValueError unless `png` holds a PNG file."""
        self._write(events.picture(tag, png, step))

    def flush(self) -> None:
        """Bring what is written to where TensorBoard reads it; a store out of reach gets it later."""
        if self._file is None:
            return
        with self._naming():
            self._file.flush()
        if self.folder.local is None:
            self._uploaded = time.monotonic()
            try:
                self.folder.upload(self._path, self._file_name)
            except OSError as error:  # a trial is worth more than its charts
                log.warning("TensorBoard's file of %s is not uploaded yet: %s", self.name, error)

    def close(self, status: Status) -> None:
        """End the run as it ended. A second call changes nothing."""
        if self._file is None:
            return
        self._release()
        try:
            name = _file_name(_next_number(self.folder.names()), "end")
            self.folder.write(name, hparams.end_record(status))
        except OSError as error:
            log.warning("TensorBoard is not told that %s has %s: %s", self.name, status, error)

    def _root(self) -> Path:
        """The run's folder, or a passing one where it lies in an object store."""
        if self.folder.local is None:
            return self._scratch.enter_context(scratch("tensorboard"))
        return self.folder.local

    def _release(self) -> None:
        self.flush()
        if self._file is not None:
            with self._naming():
                self._file.close()
            self._file = None
        self._scratch.close()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Gives a failure the name of the file: that of a full disk has none."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def _write(self, records: bytes) -> None:
        """Append whole records and hand them to the system at once: what is killed later has them."""
        if self._file is None:
            raise RuntimeError(f"{self.name}: the run is not open")
        with self._naming():
            self._file.write(records)
            self._file.flush()
        if self.folder.local is None and time.monotonic() - self._uploaded > UPLOAD_SECONDS:
            self.flush()


def close_run(
    experiment: Storage,
    space: SearchSpace,
    trial: int,
    params: Mapping[str, Any],
    status: Status,
    metrics: Mapping[str, Any] | None = None,
    step: int = 0,
) -> None:
    """End the run of a trial that could not do so itself: killed, pruned, or dead before it began.

    A run that has ended is left as it is. One that never started gets its start: every trial has its row.

    Args:
        experiment: the experiment's folder.
        space: what is searched.
        trial: the trial's number.
        params: its searched parameters.
        status: how it ended.
        metrics: its last known metrics, if any.
        step: the epoch they are of; an earlier one than the run has would make TensorBoard drop those after it.
    """
    run = TensorBoardRun(experiment, space, trial, params)
    if any(map(_is_end, run.folder.names())):
        return
    run.__enter__()
    run.metrics(metrics or {}, step)
    run.close(status)


def _next_number(names: Sequence[str]) -> int:
    return 1 + max((int(name.split(".")[-2]) for name in names), default=-1)


def _is_end(name: str) -> bool:
    return name.endswith(".end")


def _is_started(folder: Storage, names: Sequence[str]) -> bool:
    """True where an earlier attempt has written the start; its file may be empty."""
    return any(SESSION_START_INFO_TAG.encode() in folder.read(name) for name in names if not _is_end(name))
