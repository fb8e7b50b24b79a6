"""Best and Pareto front: never a NaN, ties as promised."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.metrics import OBJECTIVES, objectives_of
from tune.optimizer.choice import NoChoiceError, choose, pareto_front, rule
from tune.storage.ledger import Outcome


def trial(number: int, psd: float = 0.8, cost: float | None = 40, **other: Any) -> Outcome:
    metrics = {"psd": psd} if cost is None else {"psd": psd, "cost": cost}
    return Outcome.model_construct(
        **{"trial": number, "status": "finished", "params": {}, "metrics": metrics, "seconds": 1.0, **other}
    )


def test_the_highest_psd_wins_whatever_it_costs() -> None:
    assert choose([trial(0, 0.8, 10), trial(1, 0.9, 600), trial(2, 0.7, 1)]).trial == 1


def test_ties_go_to_the_cheaper_then_to_the_earlier() -> None:
    assert choose([trial(0, cost=80), trial(1, cost=40), trial(2, cost=40)]).trial == 1


def test_where_robustness_decides_ties_go_to_the_higher_psd() -> None:
    """As `search.objective: both` is described: a trial that another beats is never chosen."""
    both = objectives_of("defense", "both")
    outcomes = [
        Outcome(trial=number, status="finished", params={}, metrics={"robust": robust, "psd": psd, "cost": 5})
        for number, (robust, psd) in enumerate([(0.7, 0.77), (0.7, 0.81), (0.6, 0.9)])
    ]
    assert choose(outcomes, both).trial == 1
    assert rule(both) == (
        "highest validation robust accuracy, ties to the higher PSD, then to the cheaper, then to the earlier trial"
    )


def test_order_does_not_matter() -> None:
    outcomes = [trial(0, cost=80), trial(1, cost=40), trial(2, cost=40)]
    assert choose(outcomes[::-1]).trial == choose(outcomes).trial


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_never_best(bad: float) -> None:
    outcomes = [trial(0, psd=bad), trial(1, psd=0.1), trial(2, psd=0.9, cost=bad)]
    assert choose(outcomes).trial == 1
    assert [o.trial for o in pareto_front(outcomes)] == [1]


@pytest.mark.parametrize("status", ["failed", "pruned"])
def test_only_finished_trials_are_chosen(status: str) -> None:
    outcomes = [trial(0, 0.99, status=status), trial(1, 0.5)]
    assert choose(outcomes).trial == 1
    assert [o.trial for o in pareto_front(outcomes)] == [1]


def test_the_cost_limit_holds_and_includes_its_own_value() -> None:
    outcomes = [trial(0, 0.9, 81), trial(1, 0.8, 80), trial(2, 0.7, 10)]
    assert choose(outcomes, "defense", max_cost=80).trial == 1


def test_a_limit_below_every_trial_names_the_cheapest() -> None:
    with pytest.raises(NoChoiceError, match=r"max_cost: expected at least 10, .* found 9"):
        choose([trial(0, cost=20), trial(1, cost=10)], "defense", max_cost=9)


@pytest.mark.parametrize("outcomes", [[], [trial(0, psd=math.nan)], [trial(0, status="failed")]])
def test_no_choice_says_why(outcomes: list[Outcome]) -> None:
    with pytest.raises(NoChoiceError, match="no trial finished with a finite psd"):
        choose(outcomes)


def test_a_target_without_cost_needs_none() -> None:
    assert choose([trial(0, 0.5, None), trial(1, 0.6, None)], "unet").trial == 1


@pytest.mark.parametrize("target", OBJECTIVES)
def test_every_target_has_a_rule_in_words(target: str) -> None:
    words = rule(OBJECTIVES[target])  # type: ignore[index]
    assert words.startswith("highest validation ")
    assert words.endswith("ties to the cheaper, then to the earlier trial")


points = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=12)


@settings(deadline=None)  # a shared machine pauses for longer than a test takes
@given(points)
def test_the_front_is_exactly_what_no_other_beats(pairs: list[tuple[int, int]]) -> None:
    outcomes = [trial(n, psd / 10, cost) for n, (psd, cost) in enumerate(pairs)]
    front = {(o.metrics["psd"], o.metrics["cost"]) for o in pareto_front(outcomes)}
    for one in outcomes:
        psd, cost = one.metrics["psd"], one.metrics["cost"]
        beaten = any(
            o.metrics["psd"] >= psd
            and o.metrics["cost"] <= cost
            and (o.metrics["psd"], o.metrics["cost"]) != (psd, cost)
            for o in outcomes
        )
        assert ((psd, cost) in front) == (not beaten)
    assert choose(outcomes).trial in {o.trial for o in pareto_front(outcomes)}


@settings(deadline=None)  # a shared machine pauses for longer than a test takes
@given(points)
def test_the_front_rises_in_cost_and_in_psd(pairs: list[tuple[int, int]]) -> None:
    front = pareto_front([trial(n, psd / 10, cost) for n, (psd, cost) in enumerate(pairs)])
    costs, scores = [o.metrics["cost"] for o in front], [o.metrics["psd"] for o in front]
    assert costs == sorted(set(costs))
    assert scores == sorted(set(scores))
