"""The beginning of every retraining, made on cores that the last trials leave idle.

Once nothing more is proposed, a core that has no trial trains for each retrained seed what is the same whichever trial
will be chosen, such as the classifier in a space that searches none of its settings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.tune.experiment import Trial

from components.datasets.dataset import Dataset
from tune.cluster.resources import NodeKind
from tune.execution.seeds import Beginning, Retraining, build_ahead, share_of
from tune.execution.trial import Setting, arrays_of, last_line
from tune.metrics import DEFENSE_TARGETS
from tune.optimizer.searcher import LedgerSearcher
from tune.pipeline.recipe import Development, Recipe, bounds_for
from tune.pipeline.stages import STAGES, final_path_of, signatures_of
from tune.space.config import ExperimentConfig

COMPARING = 0.1  # seconds at a time: a configuration takes 2 to 20 ms, and trials wait for the driver meanwhile

log = logging.getLogger(__name__)


class Ahead:
    """Begins the retraining of seeds while the last trials run.

    A trial that must run again, as its worker was lost, may have to wait for a core until what was begun on it is done.
    That is work which the retraining would do later, so the search as a whole does not take longer.

    Args:
        setting: that all of a search share.
        dataset: whose training and validation images are trained on; the test images go nowhere.
        searcher: says when nothing more is proposed, and which trials may still be chosen.
        concurrent: trials that may run at once.
        seeds: of the retraining.
        note: tells the user something, once.

    Attributes:
        beginning: of the retraining; None where nothing was begun.
    """

    def __init__(
        self,
        setting: Setting,
        dataset: Dataset,
        searcher: LedgerSearcher,
        concurrent: int,
        seeds: Sequence[int],
        note: Callable[[str], None],
    ) -> None:
        self._setting, self._searcher = setting, searcher
        self._dataset, self._concurrent, self._note = dataset, concurrent, note
        retrained = setting.reuse and setting.space.fixed["search.target"] in DEFENSE_TARGETS
        self._left = list(seeds) if retrained else []
        self._shared: SharedStages | None = None
        self.beginning: Beginning | None = None

    def look(self, trials: Sequence[Any]) -> None:
        """Begins what there is a place for; `trials` are Tune's. A search goes on whatever goes wrong here."""
        try:
            if self._left and (free := self._free(trials)) > 0 and self._searcher.finished:
                self._begin(free)
        except Exception as error:  # what was not begun is done by the retraining, which fails if it cannot
            log.debug("seeds %s", self._left, exc_info=True)
            self._note(f"idle cores begin nothing more of the retraining: {last_line(error, self._setting.gpus)}")
            self._left.clear()

    def _free(self, trials: Iterable[Any]) -> int:
        """Number of places that no trial has or waits for, and nothing that was begun ahead."""
        active = [trial.status for trial in trials if not trial.is_finished()]
        if set(active) != {Trial.RUNNING}:
            return 0  # one that waits goes first, and after the last trial the retraining itself begins
        begun = list(self.beginning.ahead.values()) if self.beginning else []
        building = ray.wait(begun, num_returns=len(begun), timeout=0)[1] if begun else []
        return self._concurrent - len(active) - len(building)

    def _begin(self, free: int) -> None:
        """Begins as many seeds as there are places, once it is known what all trials share."""
        if self._shared is None:
            finished = [outcome for outcome in self._searcher.ledger.known() if outcome.status == "finished"]
            running = self._searcher.going_on  # in the end no other trials can be chosen than these
            candidates = {**running, **{outcome.trial: outcome.params for outcome in finished}}
            data = Development.for_retraining(self._dataset)
            self._shared = SharedStages(self._setting, data, candidates, self._left[0])
        if not self._shared.compare(COMPARING):
            return
        if not self._shared.stages:
            self._left.clear()
            return
        for seed in self._left[: min(free, room(self._setting))]:
            self._submit(seed, self._shared)
            self._left.remove(seed)
        if not self._left:
            self._shared = None  # and with it the images

    def _submit(self, seed: int, shared: SharedStages) -> None:
        if self.beginning is None:
            self.beginning = Beginning.of(arrays_of(train=shared.data.train))
            stages = ", ".join(shared.stages)
            self._note(f"idle cores begin the retraining: {stages}, the same whichever trial is chosen")
        given = self._setting, shared.data.fingerprint, dict(shared.params), shared.trial
        run = Retraining(*given, seed, self.beginning.feed.channel)
        task: Any = ray.remote(build_ahead).options(**share_of(self._setting))
        self.beginning.ahead[seed] = task.remote(run, self.beginning.images, tuple(shared.stages))


class SharedStages:
    """Stages of the final path that are the same for every trial that may be chosen.

    Args:
        setting: that all of a search share.
        data: of the retraining.
        candidates: parameters of the trials, by number; at least one.
        seed: of a retraining. What configurations share with one they share with each.

    Attributes:
        data: as above.
        trial: one of them, for all.
        params: its parameters.
        stages: their names, in the order of the path.
    """

    def __init__(
        self, setting: Setting, data: Development, candidates: Mapping[int, Mapping[str, Any]], seed: int
    ) -> None:
        self._setting, self.data, self._seed = setting, data, seed
        self._others = dict(candidates)
        self.trial, self.params = self._others.popitem()
        self._config = setting.space.config(self.params)
        self._shared = self._signatures(self._config)

    def compare(self, seconds: float) -> bool:
        """Compares further trials for about so long; returns True where none is left."""
        until = time.monotonic() + seconds
        while self._others and self._shared and time.monotonic() < until:
            _, params = self._others.popitem()
            theirs = self._signatures(self._setting.space.config(params))
            self._shared = {name: own for name, own in self._shared.items() if theirs.get(name) == own}
        return not (self._others and self._shared)

    @property
    def stages(self) -> list[str]:
        """As above, of the trials compared so far, without those that are measured by another which is not shared."""
        path, found = final_path_of(self._config), list[str]()
        for name in path:
            stage = STAGES[name]
            needed = {*stage.inputs(self._config), *stage.observed(self._config)}
            if name in self._shared and needed.intersection(path) <= set(found):
                found.append(name)
        return found

    def _signatures(self, config: ExperimentConfig) -> dict[str, str]:
        return signatures_of(Recipe(config, bounds_for(config), self.data, self._seed), final_path_of(config))


def room(setting: Setting) -> int:
    """Number of shares that are free, each on one node that is there: for more an autoscaler would start nodes."""
    free = available_resources_per_node().values()
    return sum(NodeKind(node).holds(setting.cpus, setting.gpus) for node in free)
