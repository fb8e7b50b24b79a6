"""Trials that wait for each other's artifacts, and who has their share of the machine meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from tune.cluster import shares
from tune.cluster.shares import Awaited, SharingScheduler
from tune.storage.folder import Storage
from tune.storage.leases import FileLeases
from tune.storage.store import Store

GO, PAUSE = TrialScheduler.CONTINUE, TrialScheduler.PAUSE
BEFORE = 3.0


@dataclass
class Trial:
    """What the scheduler sees of one of Tune's."""

    number: int
    gan: str
    status: str = "RUNNING"
    config: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.trial_id = f"id-{self.number}"
        self.config = {"trial": self.number, "params": {"gan": self.gan}}

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config


class Search:
    """A scheduler with trials that run without Tune."""

    def __init__(self, *gans: str, concurrent: int = 2, further: bool = True) -> None:
        self.trials = [Trial(number, gan) for number, gan in enumerate(gans)]
        self.built: set[str] = set()
        self.further = further
        self.scheduler = SharingScheduler(
            Searcher(),
            concurrent,
            lambda params: {"classifier": "c", "gan": params["gan"]},
            lambda artifacts: any(signature in self.built for signature in artifacts),
            lambda: self.further,
        )

    def get_trials(self) -> list[Trial]:
        return self.trials

    def waits(self, number: int, *signatures: str) -> str:
        """A trial tells that it waits; the scheduler's answer, which is done."""
        trial = self.trials[number]
        told = {"trial": number, "waits": signatures or (trial.gan,), "seconds": BEFORE}
        answer = self.scheduler.on_trial_result(self, trial, told)  # type: ignore[arg-type]
        trial.status = "PAUSED" if answer == PAUSE else trial.status
        return answer

    def chosen(self) -> int | None:
        """The number of the trial that the scheduler would run next; it is pending from then on."""
        self.scheduler._next_look = 0.0
        trial = self.scheduler.choose_trial_to_run(self)
        if trial is not None:
            trial.status = "PENDING"
        return None if trial is None else trial.config["trial"]

    @property
    def limit(self) -> int:
        return int(self.scheduler.limiter.max_concurrent)


def test_a_trial_that_waits_gives_way_to_one_that_may_need_something_else() -> None:
    search = Search("a", "a", "b", concurrent=3)
    assert search.waits(1) == PAUSE
    assert search.limit == 4  # one more may be proposed for its share
    assert search.trials[1].config["before"] == BEFORE
    assert search.chosen() == 1, "expected it to take the share as long as nobody is proposed for it"


def test_where_all_need_the_same_each_waits_where_it_is() -> None:
    search = Search("a", "a", "a")
    assert search.waits(1) == GO
    assert search.limit == 2


@pytest.mark.parametrize(("concurrent", "further"), [(1, True), (2, False)])
def test_nobody_gives_way_to_nobody(concurrent: int, further: bool) -> None:
    search = Search("a", "a", "b", concurrent=concurrent, further=further)
    assert search.waits(1) == GO


@pytest.mark.parametrize(("gan", "answer"), [("a", GO), ("b", PAUSE)])
def test_a_pending_trial_is_given_way_to_where_it_can_work(gan: str, answer: str) -> None:
    search = Search("a", "a", gan, further=False)
    search.trials[2].status = "PENDING"
    assert search.waits(1) == answer


def test_a_paused_trial_goes_on_when_its_artifact_is_there() -> None:
    search = Search("a", "a", "b", "b", further=False)
    search.trials[2].status = "PENDING"
    assert search.waits(1) == PAUSE
    search.trials[2].status = "RUNNING"
    assert search.chosen() is None
    search.built.add("a")
    assert search.chosen() == 1
    assert search.limit == 2
    assert search.chosen() == 1  # asked again, the same
    assert search.waits(3) == PAUSE, "expected one that waits for another to make room for it"


def test_the_store_is_not_looked_at_all_the_time() -> None:
    search = Search("a", "a", "b", "c", concurrent=2)
    assert search.waits(1) == PAUSE
    assert search.scheduler.choose_trial_to_run(search) is None
    search.built.add("a")
    assert search.scheduler.choose_trial_to_run(search) is None


def test_no_more_are_paused_than_run() -> None:
    search = Search("a", "a", "a", "b", "b", concurrent=2)
    assert [search.waits(1), search.waits(2), search.waits(4)] == [PAUSE, PAUSE, GO]


def test_a_trial_whose_process_is_lost_while_it_is_paused_counts_again() -> None:
    search = Search("a", "a", "b", concurrent=2)
    assert search.waits(1) == PAUSE
    search.trials[1].status = "PENDING"  # as Tune makes it
    search.scheduler.on_trial_error(search, search.trials[1])  # type: ignore[arg-type]
    assert search.limit == 2
    assert search.chosen() == 1


def test_waiting_is_over_when_it_is_there_or_nobody_builds_it(tmp_path: Path) -> None:
    store, builders = Store(Storage(tmp_path)), FileLeases(tmp_path / ".leases")
    awaited = Awaited(store, lambda: FileLeases(tmp_path / ".leases"))
    assert builders.acquire(["a"])
    assert builders.acquire(["b-000"])
    assert builders.acquire(["b-001"])
    both = {"b-000": "projection", "b-001": "projection"}
    assert not awaited.any_over({"a": "gan"})
    assert not awaited.any_over(both)
    with store.draft("projection", "b-001"):
        pass
    assert awaited.any_over(both)
    with store.draft("gan", "a"):
        pass
    assert awaited.any_over({"a": "gan"})
    assert builders.acquire(["c"])
    assert not awaited.any_over({"c": "gan"})
    builders.release("c")
    assert awaited.any_over({"c": "gan"})
    assert builders.acquire(["c"]), "expected that nothing of it is kept"


class Halving(shares.FIFOScheduler):
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return TrialScheduler.STOP if "epoch" in result else GO


def test_tune_may_pickle_it() -> None:
    assert SharingScheduler(Searcher(), 2, dict, lambda artifacts: True, lambda: True).__getstate__() == {}


def test_epochs_are_judged_as_without_it() -> None:
    judged = SharingScheduler(Searcher(), 2, dict, lambda artifacts: True, lambda: True, Halving())
    assert judged.on_trial_result(None, None, {"epoch": 1}) == TrialScheduler.STOP  # type: ignore[arg-type]
    free = SharingScheduler(Searcher(), 2, dict, lambda artifacts: True, lambda: True)
    assert free.on_trial_result(None, None, {"epoch": 1}) == GO  # type: ignore[arg-type]


# --------------------------------------------------------------------------- with Tune itself


class Listed(Searcher):
    """Proposes trials that need these GANs."""

    def __init__(self, *gans: str) -> None:
        super().__init__()
        self.left = list(enumerate(gans))

    def suggest(self, trial_id: str) -> Any:
        if not self.left:
            return Searcher.FINISHED
        number, gan = self.left.pop(0)
        return {"trial": number, "params": {"gan": gan}}

    def on_trial_complete(self, *arguments: Any, **more: Any) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


def trial_of(config: dict[str, Any], folder: Path) -> None:
    """Builds its GAN, which takes as long as others find something to do, or waits for it."""
    gan, number = config["params"]["gan"], config["trial"]

    def note(what: str) -> None:
        with (folder / "notes").open("a") as file:
            file.write(f"{number} {what}\n")

    note("goes on" if "before" in config else "starts")
    try:
        (folder / f"{gan}.lease").mkdir()
    except FileExistsError:
        while not (folder / gan).exists():
            tune.report({"trial": number, "waits": [gan], "seconds": BEFORE})
            time.sleep(0.05)
    else:
        note("builds")
        end = time.monotonic() + 60
        while gan == "a" and "3 ends" not in (folder / "notes").read_text() and time.monotonic() < end:
            time.sleep(0.05)
        (folder / gan).touch()
    note("ends")


@pytest.fixture
def _ray() -> Iterator[None]:
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("_ray")
def test_half_a_gpu_is_used_by_a_third_while_the_second_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trial 1 builds what 2 needs, and cannot end before 3 has: with both shares held, all would stand still."""
    monkeypatch.setenv("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    searcher = Listed("b", "a", "a", "c")
    scheduler = SharingScheduler(
        searcher,
        2,
        lambda params: {"gan": params["gan"]},
        lambda artifacts: any((tmp_path / signature).exists() for signature in artifacts),
        lambda: bool(searcher.left),
    )
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trial_of, folder=tmp_path), {"cpu": 1, "gpu": 0.5}),
        tune_config=tune.TuneConfig(
            search_alg=scheduler.limiter, scheduler=scheduler, num_samples=4, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    )
    results = tuner.fit()
    assert len(results) == 4
    assert not results.errors
    notes = (tmp_path / "notes").read_text().splitlines()
    assert notes.index("3 ends") < notes.index("1 ends") < notes.index("2 ends")
    built = [f"{number} {what}" for number in (0, 1, 3) for what in ("starts", "builds", "ends")]
    assert sorted(notes) == sorted([*built, "2 starts", "2 goes on", "2 ends"])
