"""Runs trials and retraining on Ray."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune

from components.datasets.dataset import Dataset
from tune.cluster.shares import Awaited, SharingScheduler
from tune.execution.memory_monitor import workers_may_be_ended
from tune.execution.trial import Setting, arrays_of, leases_of, run_trial
from tune.execution.trial_callback import TrialCallback
from tune.monitor.kept_runs import KeptRuns
from tune.monitor.progress import ProgressFeed
from tune.monitor.terminal import LiveView
from tune.optimizer.searcher import LedgerSearcher
from tune.pipeline.recipe import Development
from tune.pipeline.saves import Saves
from tune.pipeline.stages import signer
from tune.space.config import rungs
from tune.storage.scratch import scratch
from tune.storage.uses import uses_of


def run_trials(
    setting: Setting,
    dataset: Dataset,
    searcher: LedgerSearcher,
    concurrent: int,
    view: LiveView,
    check: Callable[[], None],
    watch: Callable[[Sequence[Any]], None] = lambda trials: None,
) -> None:
    """Runs every trial of the search that has no outcome yet. Returns early, resumable, only by an exception.

    Args:
        check: raises where this driver must stop, and is called often.
        watch: is shown Tune's trials about twice a second.
    """
    ledger = searcher.ledger
    total = int(setting.space.fixed["search.trials"])
    store, data = setting.store, Development.for_search(dataset)
    unshared = None if setting.reuse else setting.unshared
    saves = Saves(setting.space, data, setting.seed, store, lambda: searcher.going_on, unshared)
    saves.forget(ledger.known())  # of a driver that was killed before it did
    if setting.reuse:
        setting.unshared.remove_tree()  # of sessions with `--no-reuse`: no trial of this one goes on from there
    runs = KeptRuns(setting.home, searcher.objectives)
    runs.resume(ledger.known())
    callback = TrialCallback(setting, ledger, view, saves, runs, check, watch)
    scheduler = SharingScheduler(
        searcher,
        concurrent,
        signer(setting.space, data, setting.seed),
        Awaited(store, lambda: leases_of(store)).any_over,
        lambda: not searcher.over,
        searcher.halving,
    )
    left = total - sum(outcome.trial < total for outcome in ledger.known())
    if searcher.over:
        _forget(setting, saves, searcher)
        return
    feed = ProgressFeed()
    callback.listen(feed)
    _fit(setting, dataset, feed, scheduler, callback, left + _most_promotions(setting))
    callback.refresh(last=True)
    _forget(setting, saves, searcher)
    if runs.left_out:
        view.note(f"TensorBoard shows the best, the latest and a sample; {runs.left_out} other trials have no run")


def _forget(setting: Setting, saves: Saves, searcher: LedgerSearcher) -> None:
    """Forgets what no trial will go on from: the saves of those that ended, and once all have, what each used."""
    saves.forget(searcher.ledger.known(), last=searcher.over)
    if searcher.over:
        uses_of(setting.home, "trials").remove_tree()


def _fit(
    setting: Setting,
    dataset: Dataset,
    feed: ProgressFeed,
    scheduler: SharingScheduler,
    callback: TrialCallback,
    samples: int,
) -> None:
    """Lets Ray Tune run at most so many samples: trials, and trials that go on after they were set aside."""
    trainable = tune.with_parameters(
        run_trial,
        setting=setting,
        arrays=arrays_of(train=dataset.train, validation=dataset.validation),
        channel=feed.channel,
    )
    # Tune's own state is not used: the ledger is the state. It goes where nothing else looks.
    with scratch("ray-tune") as folder:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": setting.cpus, "gpu": setting.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=scheduler.limiter,
                scheduler=scheduler,
                num_samples=samples,
                reuse_actors=True,  # no trial pays for importing torch again
                trial_name_creator=lambda trial: f"trial_{trial.config.get('trial', 'unknown')}",
                trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=setting.experiment,
                storage_path=str(folder),
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=int(setting.space.fixed["search.retries"])),
                verbose=0,
            ),
        )
        _without_tunes_files()
        with workers_may_be_ended():
            tuner.fit()


def _without_tunes_files() -> None:
    """Keeps Tune from telling, with --verbose, of its own files: they are never read, and some of them not written."""
    for name in ("ray.tune.tune", "ray.tune.analysis.experiment_analysis"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _most_promotions(setting: Setting) -> int:
    """The number of times that trials may go on after they were set aside."""
    fixed = setting.space.fixed
    if not fixed["search.promotion"]:
        return 0
    return int(fixed["search.trials"]) * len(rungs(fixed["search.warmup_epochs"], setting.space.bound("unet.epochs")))
