"""The chosen configuration with each seed: trained and measured by tasks of their own, side by side on the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from components.datasets.dataset import Dataset
from tune.evaluation.retraining import measured, retrain_seed
from tune.execution.trial import Arrays, Setting, arrays_of, prepared, split_of
from tune.execution.trial_callback import results_of, seed_view
from tune.monitor.progress import ProgressChannel, ProgressFeed, ProgressReporter
from tune.monitor.tensorboard import TensorBoardRun
from tune.monitor.terminal import LiveView
from tune.pipeline.executor import Executor
from tune.pipeline.job import Progress
from tune.pipeline.recipe import Development, bounds_for
from tune.pipeline.stages import final_path_of
from tune.space.config import ExperimentConfig


def run_seeds(
    setting: Setting,
    dataset: Dataset,
    params: Mapping[str, Any],
    trial: int,
    seeds: Sequence[int],
    view: LiveView,
    check: Callable[[], None],
) -> dict[int, dict[str, Any]]:
    """Retrains a configuration with each seed and returns what each measured on the test images.

    Args:
        check: raises where this driver must stop, and is called often.

    Raises:
        ray.exceptions.RayError: a retraining failed. What others had measured is kept, and they go on from their saves.
    """
    final, config = Development.for_retraining(dataset), setting.space.config(params)
    images, feed = arrays_of(train=final.train, test=dataset.test), ProgressFeed()
    known: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        executor = final_executor(setting, images, final.fingerprint, config, seed)
        if (found := measured(executor, config, setting.home)) is not None:
            known[seed] = found
    arrays: Any = ray.put(images)
    # Two tasks a seed, so that a core with nothing left to train measures. All ask for as many cores: of kinds that
    # ask for different numbers Ray gives each its share, and lets a core stand idle for the sake of a larger one. And
    # threads wait for each other: where other work kept both cores busy, two made 0.2 steps a second, one 9.
    share: dict[str, Any] = {"num_cpus": setting.cpus, "num_gpus": setting.gpus}
    share["max_retries"] = int(setting.space.fixed["search.retries"])
    train: Any = ray.remote(train_seed).options(**share)
    measure: Any = ray.remote(run_retraining).options(**share)
    left = [seed for seed in seeds if seed not in known]
    runs = {seed: Retraining(setting, final.fingerprint, dict(params), trial, seed, feed.channel) for seed in left}
    trained = {seed: train.remote(run, arrays) for seed, run in runs.items()}
    tasks = {measure.remote(run, arrays, trained[seed]): seed for seed, run in runs.items()}
    began = time.time()

    def show(results: dict[int, Any]) -> None:
        ended = known | results
        view.update([seed_view(n, ended.get(n), feed.latest.get(n), began, f"seed {n}") for n in seeds], {})

    show({})
    return known | results_of(tasks, feed, check, show)


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


def train_seed(one: Retraining, arrays: Arrays) -> None:
    """Trains one seed on train + validation: its networks are in the store then."""
    with one.begun(arrays) as (executor, config, reporter, _):
        executor.get(config, final_path_of(config), reporter)
        reporter(Progress("waiting to be measured", 0, 0))


def run_retraining(one: Retraining, arrays: Arrays, trained: None = None) -> dict[str, Any]:
    """Retrains one seed on train + validation and measures it on the test images: `best/seeds/<seed>.json`.

    `trained` is what Ray waits for: the result of `train_seed`.
    """
    with one.begun(arrays) as (executor, config, reporter, run):
        scores = retrain_seed(executor, config, split_of(arrays, "test"), one.setting.home, reporter)
        run.metrics({**scores["metrics"], "images_per_second": scores["images_per_second"]})
    return scores


def final_executor(
    setting: Setting, arrays: Arrays, fingerprint: str, config: ExperimentConfig, seed: int
) -> Executor:
    """The executor of one retraining: no validation images, and a projection of the chosen R and L alone."""
    data = Development(split_of(arrays, "train"), None, setting.classes, fingerprint)
    return setting.executor(data, bounds_for(config), seed, f"retraining with seed {seed}")
