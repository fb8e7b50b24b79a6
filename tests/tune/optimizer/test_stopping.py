"""What ends a search early, and that a resumed one ends for the same reason."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import pytest

from components.intervals import standard_error
from tests.tune.searches import RANGES, made, run, space_of, space_params
from tune.optimizer.stopping import Clock, StopRules
from tune.storage.ledger import Outcome


def rules(settings: str, validation: int = 1000) -> StopRules:
    return StopRules(space_of("unet", f"search.startup_trials: 2\n{settings}\n{RANGES}"), validation)


def scored(scores: Sequence[float | None], metric: str = "psd") -> list[Outcome]:
    """A trial for each score, of ten seconds each; None is one that failed, below 0 one that was pruned."""
    ended = {"params": space_params(), "seconds": 10.0}
    return [
        Outcome(trial=n, status="failed", ended=10.0 * (n + 1), **ended)
        if score is None
        else Outcome(trial=n, status="pruned", ended=10.0 * (n + 1), **ended)
        if score < 0
        else Outcome(trial=n, status="finished", metrics={metric: score}, ended=10.0 * (n + 1), **ended)
        for n, score in enumerate(scores)
    ]


def test_the_clock_counts_what_overlaps_once_and_pauses_not_at_all() -> None:
    outcomes = [
        Outcome(trial=n, status="finished", params={}, seconds=end - begin, ended=end)
        for n, (begin, end) in enumerate([(100.0, 110.0), (105.0, 120.0), (500.0, 510.0)])
    ]
    for order in permutations(outcomes):
        clock = Clock(order)
        assert clock.seconds() == 30
        assert clock.seconds(running=[508.0], now=515.0) == 35
        assert clock.seconds(running=[90.0], now=600.0) == 510
    assert Clock().seconds() == 0


def test_no_trial_begins_once_the_budget_is_used() -> None:
    rule = rules("search.budget: 1m")
    assert rule.reason([], Clock(scored([0.5] * 5)).seconds()) is None
    assert rule.reason([], Clock(scored([0.5] * 6)).seconds()) == "budget: trials ran for 1.0 minutes of 1m"
    assert rule.reason([], Clock(scored([0.5] * 5)).seconds([50.0], 61.0)) == "budget: trials ran for 1.0 minutes of 1m"


def test_patience_is_not_impressed_by_noise() -> None:
    rule = rules("search.patience: 3")
    assert rule.reason(scored([0.8, 0.9, 0.901, 0.902]), 0) is None
    said = rule.reason(scored([0.8, 0.9, 0.901, 0.902, 0.903]), 0)
    assert said == "patience: 3 trials in a row were no better than 0.9000 by more than 0.0095"
    assert rule.reason(scored([0.8, 0.9, 0.901, 0.92, 0.9]), 0) is None  # a gain begins it anew
    assert rule.reason(scored([0.8, 0.9, -1, -1]), 0) is None
    assert rule.reason(scored([0.8, 0.9, -1, -1, -1]), 0) is not None  # those stopped early gained nothing
    assert rule.reason(scored([0.8, 0.9, None, None, None]), 0) is None  # those that failed say nothing


def test_the_terminator_ends_a_search_that_is_flat_and_not_one_that_varies() -> None:
    rule = rules("search.terminator: true", validation=100)

    def trials(slope: float) -> list[Outcome]:
        weights = [0.01 * 1.9**n for n in range(10)]
        return [
            outcome.model_copy(update={"params": {**space_params(), "unet.high_level_weight": weight}})
            for outcome, weight in zip(scored([0.3 + slope * n for n in range(10)]), weights, strict=True)
        ]

    assert rule.reason(trials(0.0), 0) is not None
    assert rule.reason(trials(0.06), 0) is None
    assert rules("search.terminator: false").reason(trials(0.0), 0) is None


def test_noise_is_that_of_the_images_which_the_attacker_is_given() -> None:
    rule = rules("search.patience: 3\nsearch.objective: robust")
    assert rule.noise(0.9) == standard_error(0.9, 100)
    said = rule.reason(scored([0.8, 0.9, 0.91, 0.92, 0.93], "robust"), 0)
    assert said == "patience: 3 trials in a row were no better than 0.9000 by more than 0.0310"
    assert rules("search.objective: robust", validation=60).noise(0.9) == standard_error(0.9, 60)
    assert rules("search.objective: robust\nsearch.robust_images: 2000").noise(0.9) == standard_error(0.9, 1000)
    assert rules("").noise(0.9) == standard_error(0.9, 1000)


def test_an_error_of_a_share() -> None:
    assert standard_error(0.9, 1000) == pytest.approx(0.0095, abs=1e-4)
    assert 0 < standard_error(1.0, 1000) < 0.002


def test_a_search_ends_by_its_rule_and_a_resumed_one_stays_ended(tmp_path: Path) -> None:
    rule = rules("search.patience: 3")
    searcher, ledger = made(tmp_path, rule.space, rules=rule, trials=14)
    run(searcher, ledger, lambda trial, params: {"status": "finished", "metrics": {"psd": 0.5}})
    assert len(ledger.outcomes()) == 4
    assert (searcher.stopped or "").startswith("patience: 3 trials in a row")
    resumed = made(tmp_path, rule.space, rules=rule, trials=14)[0]
    assert resumed.over
    assert resumed.suggest("ray") == resumed.FINISHED
    freed = made(tmp_path, space_of("unet"), trials=5)[0]
    assert not freed.over


def test_patience_follows_the_order_in_which_trials_ended() -> None:
    """A trial of a low number that was set aside and goes on ends after others: its gain is the latest."""
    rule = rules("search.patience: 4")
    outcomes = scored([0.5, 0.9, 0.55, 0.6, 0.65, 0.7, 0.75])
    late = [o.model_copy(update={"ended": 1000.0}) if o.trial == 1 else o for o in outcomes]
    assert rule.reason(outcomes, 0.0) is not None
    assert rule.reason(late, 0.0) is None


def test_a_trial_that_runs_may_undo_the_reason_to_stop(tmp_path: Path) -> None:
    space = space_of("unet", f"search.startup_trials: 2\nsearch.patience: 2\n{RANGES}")
    searcher, ledger = made(tmp_path, space, rules=StopRules(space, 1000), trials=9)
    configs = [searcher.suggest(f"ray {n}") for n in range(4)]
    for n in range(3):
        ledger.record(Outcome(**configs[n], status="finished", metrics={"psd": 0.5}, ended=float(n)))
        searcher.on_trial_complete(f"ray {n}")
    assert searcher.stopped is not None
    assert searcher.suggest("more") is None  # not the end: trial 3 runs
    ledger.record(Outcome(**configs[3], status="finished", metrics={"psd": 0.9}, ended=3.0))
    searcher.on_trial_complete("ray 3")
    assert searcher.suggest("more")["trial"] == 4
    for n in range(4, 6):
        ledger.record(Outcome(trial=n, params=space_params(), status="finished", metrics={"psd": 0.5}, ended=float(n)))
    searcher.on_trial_complete("more")
    assert searcher.suggest("last") == "FINISHED"
    assert str(searcher.stopped).startswith("patience: 2 trials in a row")
