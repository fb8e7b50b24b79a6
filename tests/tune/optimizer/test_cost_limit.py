"""The largest cost allowed: known from parameters, so what exceeds it is not proposed, and judges nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from tests.tune.searches import SAMPLERS, made, run, space_of
from tune.optimizer.choice import choose
from tune.optimizer.cost_limit import CostLimit
from tune.optimizer.early_stopping import SuccessiveHalving
from tune.optimizer.stopping import StopRules
from tune.optimizer.study import constraints_of, state_of
from tune.storage.ledger import Outcome

DEAR = "projector.restarts: {choice: [1, 2, 4, 8]}\nprojector.steps: {low: 10, high: 100}"
LISTED = "projector.restarts: {choice: [1, 2, 4]}\nprojector.steps: {choice: [10, 20, 40]}"


def cost_of(params: Mapping[str, Any]) -> int:
    return int(params["projector.restarts"] * params["projector.steps"])


def rising(trial: int, params: Mapping[str, Any]) -> dict[str, Any]:
    """A PSD that rises with the cost."""
    return {"status": "finished", "metrics": {"psd": cost_of(params) / 1000, "cost": cost_of(params)}}


def test_the_cost_is_that_of_the_purifier_and_of_what_is_left_out() -> None:
    conditional = "projector.init: {choice: [random, bank]}\n" + (
        "projector.restarts: {choice: [1, 4], when: {projector.init: random}}\nprojector.steps: 30"
    )
    limit = CostLimit(space_of("defense", conditional), 60)
    assert limit.cost({"projector.init": "random", "projector.restarts": 4}) == 120
    default = limit.cost({"projector.init": "bank"})
    assert default == 30 * CostLimit(space_of()).cost({"projector.steps": 10}) // 10
    smoothed = "defense.purifier: {choice: [projector, smoothing]}\nprojector.restarts: 4\nprojector.steps: 60"
    assert CostLimit(space_of("defense", smoothed)).cost({"defense.purifier": "smoothing"}) == 0


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
@pytest.mark.parametrize("seed", range(2))
def test_a_search_spends_itself_on_what_it_may_choose(tmp_path: Path, sampler: str, seed: int) -> None:
    space = space_of("defense", f"search.sampler: {sampler}\n{DEAR}")
    searcher, ledger = made(tmp_path, space, max_cost=30, trials=12, startup=4, seed=seed)
    run(searcher, ledger, rising)
    assert [params for params in ledger.proposals().values() if cost_of(params) > 30] == []
    assert cost_of(choose(ledger.outcomes(), "defense", 30).params) <= 30


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_finite_space_ends_with_its_last_point_within_the_limit(tmp_path: Path, sampler: str) -> None:
    space = space_of("defense", f"search.sampler: {sampler}\n{LISTED}")
    searcher, ledger = made(tmp_path, space, max_cost=40, trials=30, startup=2)
    assert searcher.most == 6
    run(searcher, ledger, rising)
    assert sorted(map(cost_of, ledger.proposals().values())) == [10, 20, 20, 40, 40, 40]
    assert searcher.stopped == "exhausted: all 6 points of the space within search.max_cost were tried"


def test_a_point_that_is_asked_for_runs_whatever_it_costs(tmp_path: Path) -> None:
    dear = {"projector.restarts": 4, "projector.steps": 40}
    for ranges in (LISTED, DEAR):
        searcher, _ = made(tmp_path / ranges[-5:-1], space_of("defense", ranges), max_cost=40, points=[dear])
        assert searcher.suggest("ray")["params"] == dear
        assert cost_of(searcher.suggest("next")["params"]) <= 40


def test_a_trial_that_was_stopped_early_is_known_to_be_too_dear() -> None:
    outcome = Outcome(trial=0, status="pruned", params={"projector.restarts": 8, "projector.steps": 10})
    assert constraints_of(outcome, state_of(outcome, {"psd": "max"}), CostLimit(space_of("defense", DEAR), 30)) == {
        "cost": 50
    }


def test_dear_trials_stop_no_affordable_one() -> None:
    lengths = "search.max_cost: 30\nsearch.warmup_epochs: 1\nunet.epochs: 4"
    halving = SuccessiveHalving(space_of("defense", f"{lengths}\n{DEAR}"))

    def told(trial: int, restarts: int, psd: float) -> str:
        params = {"projector.restarts": restarts, "projector.steps": 10}
        result = {"trial": trial, "epoch": 1, "psd": psd}
        return halving.on_trial_result(None, SimpleNamespace(config={"params": params}), result)

    assert [told(n, 8, 0.9) for n in range(3)] == [TrialScheduler.CONTINUE] * 3
    assert told(3, 1, 0.5) == TrialScheduler.CONTINUE
    assert told(4, 1, 0.4) == TrialScheduler.STOP


def test_patience_does_not_measure_by_what_may_not_be_chosen() -> None:
    space = space_of("defense", f"search.max_cost: 20\nsearch.patience: 3\nsearch.startup_trials: 1\n{DEAR}")

    def ended(trial: int, restarts: int, psd: float) -> Outcome:
        params = {"projector.restarts": restarts, "projector.steps": 10}
        metrics = {"psd": psd, "cost": 10 * restarts}
        return Outcome(trial=trial, status="finished", params=params, metrics=metrics, ended=float(trial))

    climbing = [ended(0, 8, 0.95), *(ended(n, 1, 0.4 + n / 10) for n in range(1, 5))]
    assert StopRules(space, 1000).reason(climbing, 0.0) is None
    flat = [*climbing, *(ended(n, 2, 0.8) for n in range(5, 8))]
    assert str(StopRules(space, 1000).reason(flat, 0.0)).startswith("patience: 3 trials in a row")
