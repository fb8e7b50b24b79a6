"""Runs trials and retraining on Ray, and keeps ledger, TensorBoard and terminal told."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray import tune
from ray.tune import Callback

from components.datasets.dataset import Dataset
from tune.cluster.coordinator import Message
from tune.cluster.shares import Awaited, SharingScheduler
from tune.execution.ended_trials import EndedTrials
from tune.execution.trial import Setting, arrays_of, leases_of, run_retraining, run_trial
from tune.monitor.kept_runs import KeptRuns
from tune.monitor.progress import ProgressFeed
from tune.monitor.runs import run_name
from tune.monitor.tensorboard import close_run
from tune.monitor.terminal import LiveView, TrialView
from tune.optimizer.early_stopping import SuccessiveHalving
from tune.optimizer.searcher import LedgerSearcher
from tune.pipeline.recipe import Development
from tune.pipeline.saves import Saves
from tune.pipeline.stages import signer
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome
from tune.storage.patience import PATIENCE
from tune.storage.scratch import scratch
from tune.storage.store import Store

LOOK = 0.5  # seconds between two looks at what the trials say


def run_trials(
    setting: Setting,
    dataset: Dataset,
    searcher: LedgerSearcher,
    concurrent: int,
    view: LiveView,
    check: Callable[[], None],
) -> None:
    """Runs every trial of the search that has no outcome yet. Returns early, resumable, only by an exception.

    Args:
        check: raises where this driver must stop, and is called often.
    """
    ledger = searcher.ledger
    total = int(setting.space.fixed["search.trials"])
    store = Store(Storage(setting.storage, PATIENCE).child("store"))
    saves = Saves(setting.space, Development.for_search(dataset), setting.seed, store)
    saves.forget(ledger.known())  # of a driver that was killed before it did
    runs = KeptRuns(setting.home, searcher.objectives)
    runs.resume(ledger.known())
    callback = TrialCallback(setting, ledger, view, saves, runs, check)
    judge = _judge(setting, ledger, len(dataset.validation))
    scheduler = SharingScheduler(
        searcher,
        concurrent,
        signer(setting.space, Development.for_search(dataset), setting.seed),
        Awaited(store, lambda: leases_of(store)).any_over,
        lambda: not searcher.over,
        judge,
    )
    left = total - sum(outcome.trial < total for outcome in ledger.known())
    if left == 0 or searcher.over:
        return
    feed = ProgressFeed()
    callback.listen(feed)
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
                num_samples=left,
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
        tuner.fit()
    callback.refresh(last=True)
    if runs.left_out:
        view.note(f"TensorBoard shows the best, the latest and a sample; {runs.left_out} other trials have no run")


def run_seeds(
    setting: Setting,
    dataset: Dataset,
    params: Mapping[str, Any],
    trial: int,
    seeds: Sequence[int],
    view: LiveView,
    check: Callable[[], None],
    concurrent: int,
) -> dict[int, dict[str, Any]]:
    """Retrains a configuration with each seed and returns what each measured on the test images.

    Args:
        concurrent: seeds that this machine runs at once; 1 on a cluster, whose nodes may be of many kinds.
        check: raises where this driver must stop, and is called often.

    Raises:
        ray.exceptions.RayError: a retraining failed; the others' results are kept, so resuming repeats only that one.
    """
    final = Development.for_retraining(dataset)
    arrays: Any = ray.put(arrays_of(train=final.train, test=dataset.test))
    feed = ProgressFeed()
    remote = ray.remote(run_retraining)
    tasks = {
        remote.options(num_cpus=cpus, num_gpus=setting.gpus, max_retries=2).remote(
            replace(setting, cpus=cpus), arrays, final.fingerprint, dict(params), trial, seed, feed.channel
        ): seed
        for seed, cpus in zip(seeds, cores_of(len(seeds), concurrent, setting.cpus), strict=True)
    }
    began = time.time()
    results: dict[int, dict[str, Any]] = {}
    while len(results) < len(seeds):
        check()
        done, _ = ray.wait([task for task, seed in tasks.items() if seed not in results], timeout=LOOK)
        results |= {tasks[task]: ray.get(task) for task in done}
        feed.look()
        view.update([seed_view(n, results.get(n), feed.latest.get(n), began, f"seed {n}") for n in seeds], {})
    return results


def cores_of(runs: int, concurrent: int, cpus: float) -> list[float]:
    """Cores of each run, `concurrent` at once with `cpus` each: the last ones also have what would stand idle."""
    last = runs % concurrent or min(runs, concurrent)
    return [cpus] * (runs - last) + [cpus * (concurrent // last)] * last


class TrialCallback(Callback):
    """Follows the trials: the view is refreshed, and a trial that could not record its own end gets it recorded."""

    def __init__(
        self,
        setting: Setting,
        ledger: Ledger,
        view: LiveView,
        saves: Saves,
        runs: KeptRuns,
        check: Callable[[], None],
    ) -> None:
        self._setting, self._ledger, self._view, self._saves, self._runs = setting, ledger, view, saves, runs
        self._check = check
        self._feed: ProgressFeed | None = None
        self._looked = 0.0
        self._values: dict[int, dict[str, float]] = {}
        self._right: dict[int, dict[str, str]] = {}
        self._last: dict[int, dict[str, Any]] = {}  # trial → what it told after its last epoch
        self._outage: OSError | None = None
        self._over = EndedTrials()
        self._active: dict[int, TrialView] = {}
        self._ended: list[TrialView] = []  # of which the view does not know
        self._stages: dict[str, tuple[int, int]] = {}  # times built, times reused
        for outcome in ledger.known():
            self._count(outcome)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks into a state that is never read

    def listen(self, feed: ProgressFeed) -> None:
        """Takes the trials' progress from there."""
        self._feed = feed
        self.refresh(last=True)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number, params = trial.config["trial"], trial.config["params"]
        self._values.setdefault(number, {})
        self._right.setdefault(number, {})
        paused = self._active.get(number)
        started = paused.started if paused is not None and paused.state == "waiting" else time.time()
        self._active[number] = TrialView(number, run_name(number, params), "running", started=started)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "outage" in result:
            self._outage = OSError(result["outage"])
        if "outcome" in result:
            self._ledger.learn(trial.config["trial"], result["outcome"])
        if "epoch" in result:
            number = trial.config["trial"]
            self._values[number][str(result["epoch"])] = result["psd"]
            self._last[number] = result
            if "right" in result:
                self._right[number][str(result["epoch"])] = result["right"]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._settle(trial, "pruned", None)
        self._over.add(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = str(trial.get_error() or "its worker died").strip().splitlines()
        self._settle(trial, "failed", f"its worker was lost {trial.num_failures} times: {lines[-1]}")
        self._over.add(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._outage is not None:  # raised here, as Tune takes what other callbacks raise for a trial's failure
            raise self._outage
        self._check()
        self.refresh(trials)
        self._over.forget(trials)

    def refresh(self, trials: Sequence[Any] = (), last: bool = False) -> None:
        """Brings the view up to date, at most every half second; `trials` are Tune's."""
        if not last and time.time() - self._looked < LOOK:
            return
        self._looked = time.time()
        self._collect()
        for number in (trial.config["trial"] for trial in trials if trial.status == trial.PAUSED):
            if self._active[number].state == "running":
                self._active[number] = replace(self._active[number], state="waiting", done=0, total=0)
        self._view.update([*self._ended, *self._active.values()], self._stages)
        self._ended.clear()

    def _collect(self) -> None:
        """Shows what is new of the trials' progress."""
        for number, message in self._feed.look().items() if self._feed else ():
            if number in self._active and self._active[number].state == "running":
                self._active[number] = _running(self._active[number], message)

    def _settle(self, trial: Any, status: Any, error: str | None) -> None:
        if self._outage is not None:
            return  # the trial runs again once the storage does
        try:
            self._record(trial, status, error)
        except OSError as problem:
            self._outage = problem

    def _record(self, trial: Any, status: Any, error: str | None) -> None:
        number, params = trial.config["trial"], trial.config["params"]
        outcome = self._ledger.outcome(number)
        if outcome is None:
            outcome = self._ledger.record(self._unrecorded(number, params, status, error))
            last = self._last.get(number, {"metrics": {}, "epoch": 0})
            end = (outcome.status, last["metrics"], last["epoch"])
            close_run(self._setting.home, self._setting.space, number, params, *end)
        self._saves.forget([outcome])
        self._runs.add(outcome)
        self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        """Takes a trial among those that have ended."""
        for told in (self._active, self._values, self._right, self._last):
            told.pop(outcome.trial, None)
        self._ended.append(_ended(outcome))
        for name, row in outcome.work.items():
            built, reused = self._stages.get(name, (0, 0))
            self._stages[name] = built + int(row.get("built", 0)), reused + int(row.get("reused", 0))

    def _unrecorded(self, number: int, params: dict[str, Any], status: Any, error: str | None) -> Outcome:
        ended = round(time.time(), 3)
        started = (number in self._active and self._active[number].started) or ended
        return Outcome(
            trial=number,
            status=status,
            params=params,
            seconds=round(ended - started, 3),
            ended=ended,
            seed=self._setting.seed,
            error=error,
            intermediate=self._values.get(number, {}),
            right=self._right.get(number, {}),
            work=self._last.get(number, {}).get("work", {}),
        )


def _judge(setting: Setting, ledger: Ledger, images: int) -> SuccessiveHalving | None:
    """Early stopping where the target has U-Net epochs of one length to compare."""
    fixed = setting.space.fixed
    if not fixed["search.early_stopping"] or fixed["search.target"] not in ("unet", "defense"):
        return None
    if "unet.epochs" not in fixed:
        return None  # trainings of different lengths are not comparable by epoch
    if fixed["search.objective"] != "psd":
        return None  # an epoch measures PSD, by which the most robust may be the worst
    return SuccessiveHalving("psd", fixed["search.warmup_epochs"], fixed["unet.epochs"], ledger.outcomes(), images)


def _ended(outcome: Outcome) -> TrialView:
    return TrialView(
        outcome.trial,
        run_name(outcome.trial, outcome.params),
        outcome.status,
        metrics=outcome.metrics,
        error=outcome.error,
    )


def _running(shown: TrialView, message: Message) -> TrialView:
    return TrialView(
        shown.number,
        shown.name,
        "running",
        message.stage,
        message.done,
        message.total,
        shown.started,
        message.since,
        host="" if message.host == socket.gethostname() else message.host,
    )


def seed_view(
    number: int, result: Mapping[str, Any] | None, message: Message | None, began: float, name: str
) -> TrialView:
    """A training that is no trial, as the live view shows it."""
    if result is not None:
        return TrialView(number, name, "finished", metrics=result["metrics"])
    shown = TrialView(number, name, "running" if message else "waiting", started=began)
    return _running(shown, message) if message else shown
