"""Shares of a machine: a trial that can only wait gives its own to one that can work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from tune.storage.leases import Leases
from tune.storage.store import Store

LOOK = 0.5  # seconds between two looks at what paused trials wait for; on a slow storage more
LOOKING = 0.1  # of the driver's time at most that the looks may take


class Awaited:
    """Tells when waiting for an artifact is over: it is there, or nobody builds it, in whatever search.

    Args:
        store: of the artifacts.
        leases: makes the leases of its builders, once they are asked for.
    """

    def __init__(self, store: Store, leases: Callable[[], Leases]) -> None:
        self._store, self._make_leases = store, leases
        self._leases: Leases | None = None

    def any_over(self, artifacts: Mapping[str, str]) -> bool:
        """Tells whether one of the artifacts, signature → stage, is there or may be built."""
        for stage in set(artifacts.values()):
            wanted = {signature for signature, its in artifacts.items() if its == stage}
            if wanted & self._store.listed(stage) if len(wanted) > 1 else self._store.has(stage, *wanted):
                return True
        self._leases = self._leases or self._make_leases()
        free = self._leases.acquire(list(artifacts))
        if free is not None:
            self._leases.release(free)
        return free is not None


class SharingScheduler(FIFOScheduler):
    """Pauses trials that wait for what others build, where somebody can use their cores and their share of a GPU.

    A trial with nothing left to do but wait reports the signatures of the artifacts as `waits`. It is paused where
    another trial is pending, or a further one may be proposed, that does not need them; else it waits where it is. It
    goes on once they are there, or nobody builds them any more, or a share is free that nobody wants. All that it has
    built is in the store, where it finds it again; its seconds until then come back to it as `config["before"]`.

    Args:
        searcher: proposes the trials.
        concurrent: trials that have a share at once; where it is one, none is paused.
        path: parameters of a trial → signature of each of its stages.
        over: signatures of artifacts and their stages → whether nobody is building one of them any more.
        further: says whether the searcher has further trials to propose.
        judge: decides after each epoch which trials go on; None = all.

    Attributes:
        limiter: the searcher, as Tune is to ask it: paused trials do not count among the concurrent ones.
    """

    def __init__(
        self,
        searcher: Searcher,
        concurrent: int,
        path: Callable[[Mapping[str, Any]], Mapping[str, str]],
        over: Callable[[Mapping[str, str]], bool],
        further: Callable[[], bool],
        judge: FIFOScheduler | None = None,
    ) -> None:
        super().__init__()
        self.limiter = ConcurrencyLimiter(searcher, concurrent)
        self._concurrent, self._path, self._over = concurrent, path, over
        self._further, self._judge = further, judge
        self._paused: dict[str, tuple[str, ...]] = {}  # Ray's id of a trial → what it waits for
        self._paths: dict[str, Mapping[str, str]] = {}  # Ray's id of a trial → signatures
        self._next_look = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its scheduler into a state that is never read

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if "waits" not in result:
            return self._judge.on_trial_result(tune_controller, trial, result) if self._judge else self.CONTINUE
        if not self._gives_way(tune_controller.get_trials(), result["waits"]):
            return TrialScheduler.CONTINUE
        trial.set_config({**trial.config, "before": result["seconds"]})
        self._paused[trial.trial_id] = tuple(result["waits"])
        self._set_limit()
        return TrialScheduler.PAUSE

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Its process was lost, in which it was about to be paused: it runs again at once."""
        self._paused.pop(trial.trial_id, None)
        self._set_limit()

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        trials = tune_controller.get_trials()
        paused = [trial for trial in trials if trial.status == Trial.PAUSED] if self._paused else []
        chosen = self._ready(paused) or self._holder_of_idle_share(trials, paused)
        if chosen is None:
            return next((trial for trial in trials if trial.status == Trial.PENDING), None)
        del self._paused[chosen.trial_id]
        self._set_limit()
        return chosen

    def _gives_way(self, trials: Sequence[Trial], awaited: Sequence[str]) -> bool:
        """Tells whether somebody else can use the share of a trial that waits."""
        if self._concurrent == 1 or len(self._paused) >= self._concurrent:
            return False
        pending = [trial for trial in trials if trial.status == Trial.PENDING]
        if any("before" in trial.config or not self._needs(trial, awaited) for trial in pending):
            return True
        # where all trials so far need the same, one more would wait for it as well
        return any(not self._needs(trial, awaited) for trial in trials) and self._further()

    def _needs(self, trial: Trial, awaited: Sequence[str]) -> bool:
        """Tells whether a trial needs one of the artifacts, too."""
        return any(self._stage(trial, signature) for signature in awaited)

    def _stage(self, trial: Trial, signature: str) -> str | None:
        """The stage of a trial that an artifact is of, which may be a part of several; None where it is of none."""
        if trial.trial_id not in self._paths:
            self._paths[trial.trial_id] = self._path(trial.config["params"])
        path = self._paths[trial.trial_id]
        return next((stage for stage, whole in path.items() if signature.startswith(whole)), None)

    def _ready(self, paused: Sequence[Trial]) -> Trial | None:
        """The first trial that need not wait any longer; looks for it only now and then."""
        began = time.monotonic()
        if not paused or began < self._next_look:
            return None
        answers: dict[tuple[str, ...], bool] = {}  # many may wait for the same
        ready = next((trial for trial in paused if self._is_over(trial, answers)), None)
        now = time.monotonic()
        self._next_look = now + max(LOOK, (now - began) / LOOKING)
        return ready

    def _is_over(self, trial: Trial, answers: dict[tuple[str, ...], bool]) -> bool:
        awaited = self._paused[trial.trial_id]
        if awaited not in answers:
            stages = {signature: self._stage(trial, signature) for signature in awaited}
            answers[awaited] = self._over({signature: stage for signature, stage in stages.items() if stage})
        return answers[awaited]

    def _holder_of_idle_share(self, trials: Sequence[Trial], paused: Sequence[Trial]) -> Trial | None:
        """The first paused trial, where a share is free and no trial was proposed that would have it."""
        active = sum(trial.status in (Trial.PENDING, Trial.RUNNING) for trial in trials)
        return paused[0] if paused and active < self._concurrent else None

    def _set_limit(self) -> None:
        self.limiter.max_concurrent = self._concurrent + len(self._paused)
