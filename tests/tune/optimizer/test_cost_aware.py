"""Proposals by what they promise per second: stages that are there cost nothing, and resuming changes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tune.searches import RANGES, SAMPLERS, TARGETS, judge, made, run, space_of
from tune.metrics import objectives_of
from tune.optimizer.acquisition import expected_front, expected_improvement
from tune.optimizer.bounded import Bounded
from tune.optimizer.cost_aware import CostAwareChoice, front_of
from tune.optimizer.cost_limit import CostLimit
from tune.optimizer.costs import StageCosts
from tune.optimizer.surrogate import Encoding, Surrogate
from tune.storage.ledger import Outcome, Params

GAN = "gan.steps: {choice: [100, 200, 400]}\n"


def signatures(params: Params) -> Mapping[str, str]:
    return {"gan": f"gan {params.get('gan.steps')}", "unet": repr(sorted(params.items(), key=repr))}


def work_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """The seconds that stages took: a GAN one a step, a U-Net ten."""
    return {
        "gan": {"built": 1, "reused": 0, "seconds": float(params["gan.steps"])},
        "unet": {"built": 1, "reused": 0, "seconds": 10.0},
    }


def worked(trial: int, params: Params) -> dict[str, Any]:
    """An outcome with the seconds that its stages took."""
    return {**judge(trial, params), "work": work_of(params)}


def drawn_point(number: int) -> Params:
    """A point of the small space with three GANs."""
    random = np.random.default_rng(number)
    return {
        "gan.steps": int(random.choice([100, 200, 400])),
        "projector.restarts": int(random.choice([1, 2, 4])),
        "projector.steps": 10 * int(random.integers(1, 7)),
        "unet.high_level_weight": float(10 ** random.uniform(-2, 1)),
        "projector.distance": "l2",
    }


def worked_flat(trial: int, params: Mapping[str, Any]) -> dict[str, Any]:
    """The same, all equally good."""
    return {"status": "finished", "metrics": {"psd": 0.5}, "work": work_of(params)}


def finished(params: Params) -> Outcome:
    return Outcome(trial=0, status="finished", params=params, work=work_of(params))


class TestCosts:
    """Seconds that are not spent yet."""

    def test_what_is_there_or_being_built_costs_nothing(self) -> None:
        costs = StageCosts(signatures)
        one: Params = {"gan.steps": 100, "unet.width": 4}
        costs.start(one)
        costs.learn(one, finished(one))
        again, sibling, other = costs.seconds([one, {**one, "unet.width": 8}, {**one, "gan.steps": 400}])
        assert again < 0.01
        assert 4 < sibling < 40
        assert other > 100

    def test_work_is_believed_to_grow_with_its_settings(self) -> None:
        costs = StageCosts(signatures)
        for steps in (100, 200):
            params: Params = {"gan.steps": steps}
            costs.learn(params, finished(params))
        short, long = costs.seconds([{"gan.steps": 50}, {"gan.steps": 1600}])
        assert long > 8 * short

    def test_what_the_store_held_costs_nothing(self) -> None:
        params: Params = {"gan.steps": 100}
        costs = StageCosts(signatures, frozenset(signatures(params).values()))
        costs.learn(params, finished(params))
        assert costs.seconds([params])[0] < 0.01

    def test_seconds_a_little_different_are_the_same(self) -> None:
        asked: list[Params] = [{"gan.steps": 300}]
        found = []
        for factor in (1.0, 1.03):
            costs, params = StageCosts(signatures), {"gan.steps": 100}
            work = {"gan": {"built": 1, "reused": 0, "seconds": 100.0 * factor}}
            costs.learn(params, Outcome(trial=0, status="finished", params=params, work=work))
            found.append(costs.seconds(asked)[0])
        assert found[0] == found[1]


class TestImprovement:
    """What a candidate promises."""

    def test_it_is_that_of_a_normal_value(self) -> None:
        drawn = np.random.default_rng(0).normal(0.5, 0.1, 200_000)
        found = expected_improvement(np.array([0.5]), np.array([0.1]), 0.6)[0]
        assert found == pytest.approx(np.maximum(drawn - 0.6, 0).mean(), rel=0.02)

    def test_a_front_of_one_counts_as_the_best(self) -> None:
        mean, deviation = np.array([0.5, 0.6]), np.array([0.1, 0.1])
        same = expected_front(mean, deviation, np.array([10.0, 10.0]), [(10.0, 0.55)])
        assert same == pytest.approx(expected_improvement(mean, deviation, 0.55))

    def test_equal_scores_are_worth_more_where_they_are_cheap(self) -> None:
        front = [(10.0, 0.5), (100.0, 0.7)]
        cheap, dear = expected_front(np.array([0.6, 0.6]), np.array([0.01, 0.01]), np.array([10.0, 100.0]), front)
        assert cheap > 10 * dear

    def test_the_front(self) -> None:
        assert front_of([(3, 0.5), (1, 0.4), (2, 0.3), (4, 0.5), (1, 0.2)]) == [(1, 0.4), (3, 0.5)]


class TestSurrogate:
    """A Gaussian process finds what it is shown."""

    def test_it_predicts_a_smooth_function_and_knows_how_well(self) -> None:
        rng = np.random.default_rng(0)
        points, asked = rng.random((60, 4)), rng.random((200, 4))
        surrogate = Surrogate.fit(points, np.sin(5 * points[:, 0]) + rng.normal(0, 0.05, 60))
        mean, deviation = surrogate.predict(asked)
        errors = mean - np.sin(5 * asked[:, 0])
        assert np.abs(errors).mean() < 0.1
        assert 0.2 < (errors / deviation).std() < 3

    def test_of_what_it_expects_itself_it_learns_only_to_be_surer(self) -> None:
        rng = np.random.default_rng(0)
        points, running, asked = rng.random((20, 2)), rng.random((3, 2)), rng.random((50, 2))
        before = Surrogate.fit(points, np.sin(5 * points[:, 0]))
        after = before.expecting(running)
        assert after.predict(asked)[0] == pytest.approx(before.predict(asked)[0], abs=1e-6)
        assert (after.predict(running)[1] < before.predict(running)[1]).all()
        assert (after.predict(asked)[1] <= before.predict(asked)[1] + 1e-9).all()

    def test_every_kind_of_range_is_encoded(self) -> None:
        encode = Encoding({key: values.written() for key, values in space_of().ranges.items()})
        low = {"projector.restarts": 1, "projector.steps": 10, "unet.high_level_weight": 0.01}
        points = encode([
            {**low, "projector.distance": "l2"},
            {"projector.restarts": 4, "projector.steps": 60, "unet.high_level_weight": 10.0,
             "projector.distance": "insensitive", "projector.tolerance": 0.4},
        ])  # fmt: skip
        assert points.shape == (2, 7)
        assert points.min() >= 0
        assert points.max() <= 1
        assert len({tuple(row) for row in points}) == 2


class TestProposals:
    """The search with costs."""

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_it_goes_on_so_with_each_sampler(self, tmp_path: Path, sampler: str) -> None:
        weight = "{choice: [0.1, 1.0]}" if sampler == "grid" else "{low: 0.01, high: 10.0, log: true}"
        ranges = f"{GAN}unet.width: {{choice: [4, 8]}}\nunet.high_level_weight: {weight}"
        space = space_of("unet", f"search.sampler: {sampler}\n{ranges}")
        options: dict[str, Any] = {"trials": 8, "startup": 3, "costs": lambda: StageCosts(signatures)}

        def result(trial: int, params: Mapping[str, Any]) -> dict[str, Any]:
            psd = 0.9 - abs(math.log10(params["unet.high_level_weight"]))
            return {"status": "finished", "metrics": {"psd": psd}, "work": work_of(params)}

        searcher, ledger = made(tmp_path / "whole", space, **options)
        run(searcher, ledger, result)
        for kill in (1, 3, 6, None):
            resumed, again = made(tmp_path / "broken", space, **options)
            run(resumed, again, result, stop=kill)
        assert again.proposals() == ledger.proposals()
        assert len(ledger.outcomes()) == 8

    def test_the_first_trials_vary_what_is_cheap(self, tmp_path: Path) -> None:
        space = space_of("unet", f"{GAN}unet.width: {{choice: [4, 8]}}\nunet.label_weight: {{choice: [0.1, 1.0]}}")
        searcher, ledger = made(tmp_path, space, trials=4, startup=4, costs=lambda: StageCosts(signatures))
        run(searcher, ledger, worked_flat)
        proposed = list(ledger.proposals().values())
        assert len({params["gan.steps"] for params in proposed}) == 1
        assert len({params["unet.width"] for params in proposed}) == 2

    @pytest.mark.parametrize("target", TARGETS)
    def test_a_resumed_search_goes_on_as_the_undisturbed_one(self, tmp_path: Path, target: str) -> None:
        options: dict[str, Any] = {"trials": 14, "startup": 4, "costs": lambda: StageCosts(signatures)}
        space = space_of(target, f"{GAN}{RANGES}")
        searcher, ledger = made(tmp_path / "whole", space, **options)
        run(searcher, ledger, worked)
        for kill in (5, 9, None):
            resumed, again = made(tmp_path / "broken", space, **options)
            run(resumed, again, worked, stop=kill)
        assert again.proposals() == ledger.proposals()
        assert len(ledger.outcomes()) == 14
        assert all(space.contains(params) for params in ledger.proposals().values())

    def test_dear_stages_are_gone_on_from(self, tmp_path: Path) -> None:
        """A GAN costs forty U-Nets and matters little: fewer are trained than without an eye to the seconds."""

        def flat(trial: int, params: Mapping[str, Any]) -> dict[str, Any]:
            psd = 0.9 - abs(math.log10(params["unet.high_level_weight"])) / 10
            return {"status": "finished", "metrics": {"psd": psd}, "work": work_of(params)}

        weights = "unet.high_level_weight: {low: 0.01, high: 10.0, log: true}"
        space = space_of("unet", f"gan.steps: {{low: 100, high: 900}}\n{weights}")
        built = {}
        for name, costs in (("aware", lambda: StageCosts(signatures)), ("plain", None)):
            searcher, ledger = made(tmp_path / name, space, trials=20, startup=4, costs=costs)
            run(searcher, ledger, flat)
            built[name] = len({params["gan.steps"] for params in ledger.proposals().values()})
        assert built["aware"] < built["plain"]

    @pytest.mark.parametrize("target", TARGETS)
    def test_many_trials_are_learned_from_by_a_few_in_whatever_order_they_ended(
        self, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, number in {"BEST": 5, "LATEST": 10, "SAMPLE": 15}.items():
            monkeypatch.setattr(f"tune.optimizer.cost_aware.{name}", number)
        monkeypatch.setattr(Bounded, "MOST", 40)
        space = space_of(target, f"{GAN}{RANGES}")
        drawn = np.random.default_rng(0).permutation(120)
        chosen, candidates = [], [drawn_point(1000 + number) for number in range(20)]
        for order in (range(120), drawn.tolist()):
            costs, limit = StageCosts(signatures), CostLimit(space)
            choice = CostAwareChoice(space, objectives_of(target), costs, limit)
            for number in range(120):
                choice.start(number, drawn_point(number))
            for number in order:
                point = drawn_point(number)
                choice.finish(number, Outcome(trial=number, params=point, **judge(number, point)))
            chosen.append(choice.choose(candidates, 0.5))
            assert 15 <= len(choice._scores) <= (60 if target == "defense" else 30)
            assert len(limit._known) <= 40
        assert chosen[0] == chosen[1]

    def test_what_runs_is_not_proposed_beside_itself(self) -> None:
        space = space_of("unet", "gan.steps: {choice: [100, 200]}\nunet.high_level_weight: {choice: [0.1, 1.0, 10.0]}")
        choice = CostAwareChoice(space, {"psd": "max"}, StageCosts(signatures), CostLimit(space))
        points: list[Params] = [{"gan.steps": 100, "unet.high_level_weight": weight} for weight in (0.1, 1.0, 10.0)]
        for number, point in enumerate(points):
            choice.start(number, point)
            metrics = {"psd": (0.5, 0.9, 0.5)[number]}
            choice.finish(number, Outcome(trial=number, params=point, status="finished", metrics=metrics))
        left: list[Params] = [{"gan.steps": 200, "unet.high_level_weight": weight} for weight in (0.1, 1.0, 10.0)]
        first = choice.choose(left, 0.0)
        choice.start(3, first)
        assert choice.choose([p for p in left if p != first], 0.0) != first
