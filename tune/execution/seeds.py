"""The chosen configuration with each seed: trained and measured by tasks of their own, side by side on the cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from components.datasets.dataset import Dataset
from tune.evaluation.retraining import measured, retrain_seed
from tune.execution.gpu_errors import free_memory
from tune.execution.trainings import results_of, seed_view
from tune.execution.trial import Arrays, Setting, arrays_of, last_line, prepared, split_of
from tune.monitor.progress import ProgressChannel, ProgressFeed, ProgressReporter
from tune.monitor.tensorboard import TensorBoardRun
from tune.monitor.terminal import LiveView
from tune.pipeline.executor import Executor, replay
from tune.pipeline.job import Progress
from tune.pipeline.recipe import Development, bounds_for
from tune.pipeline.stages import final_path_of
from tune.space.config import ExperimentConfig

log = logging.getLogger(__name__)


@dataclass
class Beginning:
    """The beginning of a retraining, which may lie before the choice of its configuration.

    Attributes:
        images: Ray's reference to the arrays of the training images.
        feed: of the progress of its seeds.
        ahead: seed → Ray's task that builds for it what every configuration needs.
    """

    images: Any
    feed: ProgressFeed = field(default_factory=ProgressFeed)
    ahead: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, images: Arrays) -> Beginning:
        """A beginning in which nothing but the images is there."""
        return cls(ray.put(images))


def run_seeds(
    setting: Setting,
    dataset: Dataset,
    params: Mapping[str, Any],
    trial: int,
    seeds: Sequence[int],
    view: LiveView,
    check: Callable[[], None],
    beginning: Beginning | None = None,
) -> dict[int, dict[str, Any]]:
    """Retrains a configuration with each seed and returns what each measured on the test images.

    Args:
        check: raises where this driver must stop, and is called often.
        beginning: made while trials still ran; None = nothing was.

    Raises:
        ray.exceptions.RayError: a retraining failed. What others had measured is kept, and they go on from their saves.
    """
    final, config = Development.for_retraining(dataset), setting.space.config(params)
    images = arrays_of(train=final.train)
    known: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        executor = final_executor(setting, images, final.fingerprint, config, seed)
        if (found := measured(executor, config, setting.home)) is not None:
            known[seed] = found
    begun, test = beginning or Beginning.of(images), ray.put(arrays_of(test=dataset.test))
    # Two tasks a seed, so that a core with nothing left to train measures. All ask for as many cores: of kinds that
    # ask for different numbers Ray gives each its share, and lets a core stand idle for the sake of a larger one. And
    # threads wait for each other: where other work kept both cores busy, two made 0.2 steps a second, one 9.
    train: Any = ray.remote(train_seed).options(**share_of(setting))
    measure: Any = ray.remote(run_retraining).options(**share_of(setting))
    given = setting, final.fingerprint, dict(params), trial
    runs = {seed: Retraining(*given, seed, begun.feed.channel) for seed in seeds if seed not in known}
    began = time.time()

    def begin(seed: int) -> Any:
        return measure.remote(runs[seed], begun.images, test, train.remote(runs[seed], begun.images))

    ahead = {task: seed for seed, task in begun.ahead.items() if seed in runs}
    tasks = {**ahead, **{begin(seed): seed for seed in runs if seed not in begun.ahead}}

    warned: set[str] = set()

    def get(task: Any) -> Any:
        # Whatever became of a task that went ahead, what it has not built the training builds. And only now is that
        # begun, so that it neither fails with the task nor holds a core while the task has the lease.
        if task not in ahead:
            return ray.get(task)
        if (reason := _failure(task)) and reason not in warned:
            warned.add(reason)
            view.note(f"seed {ahead[task]}: what idle cores began failed, and is done again now: {reason}")
        return begin(ahead[task])

    def show(results: dict[int, Any]) -> None:
        ended = known | results
        view.update([seed_view(n, ended.get(n), begun.feed.latest.get(n), began, f"seed {n}") for n in seeds], {})

    show({})
    return known | results_of(tasks, begun.feed, check, show, get)


def _failure(task: Any) -> str | None:
    """The reason why a task that went ahead has not built all it should, its worker's death included; None = it has."""
    try:
        reason: str | None = ray.get(task)
    except ray.exceptions.RayError as error:
        return f"its worker was lost: {type(error).__name__}"
    return reason


def share_of(setting: Setting) -> dict[str, Any]:
    """Ray's options of a task of the retraining: the share of the machine that a trial has, and how often to try."""
    retries = int(setting.space.fixed["search.retries"])
    return {"num_cpus": setting.cpus, "num_gpus": setting.gpus, "max_retries": retries}


@dataclass(frozen=True)
class Retraining:
    """A configuration with one seed, as it is sent to the cluster.

    Attributes:
        setting: that all of a search share.
        fingerprint: of the data for retraining.
        params: the searched parameters of the configuration.
        trial: that it is of.
        seed: that it is trained with.
        channel: to the driver.
    """

    setting: Setting
    fingerprint: str
    params: Mapping[str, Any]
    trial: int
    seed: int
    channel: ProgressChannel

    @contextmanager
    def begun(
        self, arrays: Arrays
    ) -> Iterator[tuple[Executor, ExperimentConfig, ProgressReporter, TensorBoardRun]]:
        """Within the block its executor, its configuration, and where it reports to: the driver and TensorBoard."""
        setting = self.setting
        with prepared(setting), TensorBoardRun(setting.home, setting.space, self.trial, self.params, self.seed) as run:
            config = setting.space.config(self.params)  # whose names a plug-in may have defined
            executor = final_executor(setting, arrays, self.fingerprint, config, self.seed)
            yield executor, config, ProgressReporter(self.seed, self.channel, run, judged=False), run


def build_ahead(one: Retraining, arrays: Arrays, stages: Sequence[str]) -> str | None:
    """Builds stages of a seed's final path in its name, so that its training finds them as its own.

    It raises nothing: what it could not build the training will, or tells why not.

    Returns:
        The reason why it could not; None where it could.
    """
    failed = None
    reporter = ProgressReporter(one.seed, one.channel, None, judged=False)
    try:
        with prepared(one.setting):
            config = one.setting.space.config(one.params)
            executor = final_executor(one.setting, arrays, one.fingerprint, config, one.seed)
            executor.get(config, stages, reporter)
    except Exception as error:
        log.debug("seed %d", one.seed, exc_info=True)
        failed = last_line(error, one.setting.gpus)
    if failed:
        free_memory()
    reporter(Progress("waiting to be trained", 0, 0))
    return failed


def train_seed(one: Retraining, arrays: Arrays) -> None:
    """Trains one seed on train + validation: its networks are in the store then."""
    with one.begun(arrays) as (executor, config, reporter, _):
        executor.get(config, final_path_of(config), _with_earlier_epochs(executor, reporter))
        reporter(Progress("waiting to be measured", 0, 0))


def _with_earlier_epochs(executor: Executor, reporter: ProgressReporter) -> Callable[[Progress], None]:
    """A report that also has the epochs of what was trained for this seed ahead, when it had no run in TensorBoard."""
    told: set[str] = set()

    def note(earlier: Progress) -> None:
        if earlier.row:
            reporter.epoch(earlier.stage, earlier.row)  # to TensorBoard alone: the live view has shown it

    def report(progress: Progress) -> None:
        if progress.row:
            told.add(progress.stage)
        found = progress.artifact
        if found and progress.stage not in told and found.manifest.get("built_by") == executor.owner:
            replay(progress.stage, found, note)
        reporter(progress)

    return report


def run_retraining(one: Retraining, arrays: Arrays, test: Arrays, trained: None = None) -> dict[str, Any]:
    """Retrains one seed on train + validation and measures it on the test images: `best/seeds/<seed>.json`.

    `trained` is what Ray waits for: the result of `train_seed`.
    """
    with one.begun(arrays) as (executor, config, reporter, run):
        scores = retrain_seed(executor, config, split_of(test, "test"), one.setting.home, reporter)
        run.metrics({**scores["metrics"], "images_per_second": scores["images_per_second"]})
    return scores


def final_executor(
    setting: Setting, arrays: Arrays, fingerprint: str, config: ExperimentConfig, seed: int
) -> Executor:
    """The executor of one retraining: no validation images, and a projection of the chosen R and L alone."""
    data = Development(split_of(arrays, "train"), None, setting.classes, fingerprint)
    return setting.executor(data, bounds_for(config), seed, f"retraining with seed {seed}")
