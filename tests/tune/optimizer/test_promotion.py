"""Trials that are set aside at a rung and go on later: which ones, from where, and the same after a resume."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from components.intervals import standard_error
from tests.tune.searches import space_of
from tune.optimizer.early_stopping import SuccessiveHalving
from tune.optimizer.searcher import LedgerSearcher
from tune.optimizer.stopping import Clock, StopRules
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome

FIRST, EPOCHS = 1, 6  # rungs after 1, 2 and 4
RANGES = f"""
search.promotion: true
search.warmup_epochs: {FIRST}
unet.epochs: {EPOCHS}
unet.high_level_weight: {{low: 0.1, high: 10.0, log: true}}
unet.width: {{choice: [8, 16]}}
"""
Table = Sequence[Sequence[float]]  # trial → its score after each epoch
Runs = list[tuple[int, int]]  # trial and the epoch after which it was set aside or finished, in the order of the runs


class Killed(Exception):
    """The driver ends here, whatever it was doing."""


class Disk:
    """What outlives a driver: the ledger's folder, and the saves of trainings."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Storage(folder)
        self.saved: dict[int, int] = {}  # trial → epochs
        self.trained: Runs = []  # trial and epoch, as often as they were really trained
        self.clock = 0.0


def drive(disk: Disk, table: Table, images: int | None = None, lifetime: int | None = None, extra: str = "") -> Runs:
    """One session of a search, one trial at a time. It is killed after so many epochs and records."""
    space, ledger = space_of("unet", RANGES + extra), Ledger(disk.ledger)
    halving = SuccessiveHalving(space, ledger.outcomes(), images)
    rules = StopRules(space, 100)
    searcher = LedgerSearcher(space, ledger, trials=len(table), seed=3, startup=3, halving=halving, rules=rules)
    runs: Runs = []
    left = [10**9 if lifetime is None else lifetime]

    def survive() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    while (config := searcher.suggest("ray")) != Searcher.FINISHED:
        assert config is not None, "with one trial at a time there is nothing to wait for"
        outcome = trained(disk, ledger, halving, config, table[config["trial"]], survive)
        survive()
        runs.append((outcome.trial, len(outcome.intermediate)))
        ledger.record(outcome)
        searcher.on_trial_complete("ray")
    assert searcher.over
    return runs


def trained(disk, ledger, halving, config, scores, survive) -> Outcome:  # type: ignore[no-untyped-def]
    """Plays a worker: it goes on from the save, and reports the epochs before once more."""
    number = config["trial"]
    earlier = ledger.outcome(number) if "promotions" in config else None
    assert (earlier is not None) == ("promotions" in config)
    began, disk.clock = disk.clock, disk.clock + 1
    known = {}
    for epoch, score in enumerate(scores, 1):
        if epoch > disk.saved.get(number, 0):
            disk.trained.append((number, epoch))
            disk.saved[number] = epoch
            survive()
        known[str(epoch)] = score
        told = {"trial": number, "epoch": epoch, "psd": score}
        if halving.on_trial_result(None, SimpleNamespace(config=config), told) == TrialScheduler.STOP:
            break
    finished = len(known) == EPOCHS
    return Outcome(
        trial=number,
        params=config["params"],
        status="finished" if finished else "pruned",
        metrics={"psd": scores[-1], "cost": 1} if finished else {},
        intermediate=known,
        seconds=disk.clock - began + (earlier.seconds if earlier else 0),
        ended=disk.clock,
        earlier=earlier.spans if earlier else [],
    )


def reference(table: Table, images: int | None) -> Runs:
    """Promotes as algorithm 2 of Li et al., by its definition: nothing is kept but the scores and who waits where."""
    reached: dict[int, dict[int, float]] = {epoch: {} for epoch in (1, 2, 4)}
    waiting: dict[int, int] = {}
    new, runs = list(range(len(table))), []

    def fits(trial: int, epoch: int) -> bool:
        scores = list(reached[epoch].values())
        half = (len(scores) + 1) // 2
        least = max(score for score in scores if sum(other >= score for other in scores) >= half)
        return reached[epoch][trial] >= least - (standard_error(least, images) if images else 0)

    while True:
        fitting = [(epoch, table[trial][epoch - 1], -trial) for trial, epoch in waiting.items() if fits(trial, epoch)]
        if fitting:
            trial = -max(fitting)[2]
            begin = waiting.pop(trial)
        elif new:
            trial, begin = new.pop(0), 0
        else:
            return runs
        for epoch in range(begin + 1, EPOCHS + 1):
            if epoch in reached:
                reached[epoch][trial] = table[trial][epoch - 1]
                if not fits(trial, epoch):
                    waiting[trial] = epoch
                    break
        runs.append((trial, waiting.get(trial, EPOCHS)))


SCORES = st.integers(0, 12).map(lambda twelfths: twelfths / 12)  # few values, so that there are ties
TABLES = st.lists(st.lists(SCORES, min_size=EPOCHS, max_size=EPOCHS), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(table=TABLES, images=st.sampled_from([None, 10, 200]))
def test_it_decides_as_the_reference(table: Table, images: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk(Path(folder))
        assert drive(disk, table, images) == reference(table, images)
        assert len(disk.trained) == len(set(disk.trained))  # no epoch is trained twice
        assert any(outcome.status == "finished" for outcome in Ledger(disk.ledger).outcomes())


WORSE_COME_LATER: Table = [
    [0.5, 0.6, 0.6, 0.6, 0.6, 0.9],
    [0.4, 0.7, 0.7, 0.5, 0.7, 0.7],
    [0.6, 0.5, 0.6, 0.6, 0.6, 0.95],  # the best of all: the sampler must learn of it
    [0.3, 0.3, 0.3, 0.3, 0.3, 0.3],
    [0.1, 0.8, 0.8, 0.8, 0.8, 0.8],
    [0.2, 0.1, 0.1, 0.1, 0.1, 0.1],
    [0.9, 0.45, 0.4, 0.4, 0.4, 0.4],
    [0.95, 0.4, 0.4, 0.4, 0.4, 0.4],
    [0.97, 0.65, 0.4, 0.3, 0.4, 0.4],
    [0.98, 0.66, 0.4, 0.2, 0.4, 0.4],
]
RUNS = [(0, 6), (1, 1), (2, 2), (3, 1), (4, 1), (1, 4), (5, 1), (6, 2), (7, 2), (2, 6), (8, 4), (9, 4), (1, 6)]
PROMOTIONS = {1: 2, 2: 1}  # trial → how often it went on after it was set aside


def test_one_that_is_among_the_better_half_later_goes_on(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    runs = drive(disk, WORSE_COME_LATER)
    assert runs == RUNS
    outcomes = {outcome.trial: outcome for outcome in Ledger(disk.ledger).outcomes()}
    assert {number: outcome.promotions for number, outcome in outcomes.items() if outcome.promotions} == PROMOTIONS
    for number, outcome in outcomes.items():
        epochs = [epoch for trial, epoch in disk.trained if trial == number]
        assert epochs == list(range(1, 1 + len(outcome.intermediate)))
        assert len(outcome.spans) == 1 + outcome.promotions
        assert outcome.seconds == pytest.approx(1 + outcome.promotions)  # of the driver's clock, a second for each run
    assert Clock(outcomes.values()).seconds() == len(runs)  # the pauses between the runs do not count


@pytest.mark.parametrize(("extra", "step"), [("", 1), ("search.sampler: gp\n", 3)])
def test_a_search_killed_at_any_point_ends_as_the_undisturbed_one(tmp_path: Path, extra: str, step: int) -> None:
    quiet = Disk(tmp_path / "quiet")
    drive(quiet, WORSE_COME_LATER, extra=extra)
    undisturbed = Ledger(quiet.ledger).outcomes()
    for lifetime in range(0, len(quiet.trained) + len(RUNS), step):
        disk = Disk(tmp_path / str(lifetime))
        with pytest.raises(Killed):
            drive(disk, WORSE_COME_LATER, lifetime=lifetime, extra=extra)
        drive(disk, WORSE_COME_LATER, extra=extra)
        assert disk.trained == quiet.trained
        assert [told(o) for o in Ledger(disk.ledger).outcomes()] == [told(o) for o in undisturbed]


def test_with_several_at_once_a_free_slot_waits_for_whom_the_others_may_bring_forward(tmp_path: Path) -> None:
    space, ledger = space_of("unet", RANGES), Ledger(Storage(tmp_path))
    halving = SuccessiveHalving(space)
    searcher = LedgerSearcher(space, ledger, trials=3, seed=0, halving=halving)

    def reached(config: dict[str, Any], score: float) -> str:
        trial = SimpleNamespace(config=config)
        return halving.on_trial_result(None, trial, {"trial": config["trial"], "epoch": 1, "psd": score})

    def ended(ray: str, config: dict[str, Any], **known: Any) -> None:
        ledger.record(Outcome(trial=config["trial"], params=config["params"], **known))
        searcher.on_trial_complete(ray)

    first, second, third = (searcher.suggest(ray) for ray in "abc")
    assert searcher.suggest("d") is None  # not yet the end: one of the three may be set aside
    assert reached(first, 0.9) == TrialScheduler.CONTINUE
    assert reached(second, 0.5) == TrialScheduler.STOP
    ended("b", second, status="pruned", intermediate={"1": 0.5})
    assert searcher.suggest("d") is None
    assert reached(third, 0.1) == TrialScheduler.STOP
    again = searcher.suggest("d")
    assert again == {**second, "promotions": 1}
    ended("c", third, status="pruned", intermediate={"1": 0.1})
    assert reached({"trial": 3, "params": third["params"]}, 0.7) == TrialScheduler.CONTINUE
    assert reached(again, 0.5) == TrialScheduler.CONTINUE  # what is promoted is not judged there again
    assert searcher.suggest("e") is None
    for ray, config in (("a", first), ("d", again)):
        ended(ray, config, status="finished", metrics={"psd": 1.0}, earlier=[[0.0, 1.0]] if ray == "d" else [])
    assert searcher.suggest("e") == Searcher.FINISHED
    assert searcher.over


def test_no_trial_is_promoted_once_a_rule_has_ended_the_search(tmp_path: Path) -> None:
    space, ledger = space_of("unet", RANGES + "search.budget: 10s\n"), Ledger(Storage(tmp_path))
    for trial, score, ended in ((0, 0.9, 1.0), (1, 0.5, 2.0), (2, 0.1, 20.0)):
        params = ledger.propose(trial, {"unet.high_level_weight": 1.0 + trial, "unet.width": 8})
        known = {"intermediate": {"1": score}, "seconds": ended, "ended": ended}
        ledger.record(Outcome(trial=trial, params=params, status="finished" if not trial else "pruned", **known))

    def searcher(rules: StopRules | None) -> LedgerSearcher:
        halving = SuccessiveHalving(space, ledger.outcomes())
        return LedgerSearcher(space, ledger, trials=5, seed=0, halving=halving, rules=rules)

    config = searcher(None).suggest("a")
    assert (config["trial"], config["promotions"]) == (1, 1)
    ended_by_rule = searcher(StopRules(space, 100))
    assert ended_by_rule.over
    assert ended_by_rule.suggest("a") == Searcher.FINISHED


def told(outcome: Outcome) -> dict[str, object]:
    return outcome.model_dump(exclude={"seconds", "ended", "earlier"}) | {"promotions": outcome.promotions}
