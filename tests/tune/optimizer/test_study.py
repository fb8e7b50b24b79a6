"""Optuna's view of a search: what it learns of each way to end, where its points lie, and the database."""

import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from tests.tune.searches import RANGES, SAMPLERS, TARGETS, judge, made, run, space_of, space_params, states, visible
from tune.optimizer.export import export_study
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome


def same(trial: int, params: Mapping[str, Any]) -> dict[str, Any]:
    """A result that says nothing."""
    return {"status": "finished", "metrics": {"psd": 0.5, "cost": 1}}


class TestOutcomes:
    """What Optuna learns of each way to end."""

    @pytest.mark.parametrize("target", TARGETS)
    def test_complete_failed_and_pruned(self, tmp_path: Path, target: str) -> None:
        searcher, ledger = made(tmp_path, space_of(target), trials=12)
        run(searcher, ledger)
        told = states(searcher)
        assert [n for n, state in enumerate(told) if state == TrialState.FAIL] == [4, 9]
        assert [n for n, state in enumerate(told) if state == TrialState.PRUNED] == [6]
        assert told.count(TrialState.COMPLETE) == 9

    def test_intermediate_values_of_a_pruned_trial(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path, space_of("unet"), trials=7)
        run(searcher, ledger)
        outcome = ledger.outcome(6)
        assert outcome is not None
        assert searcher.study.trials[6].intermediate_values == {
            1: outcome.intermediate["1"],
            2: outcome.intermediate["2"],
        }

    @pytest.mark.parametrize("target", TARGETS)
    def test_a_search_where_all_are_pruned_goes_on(self, tmp_path: Path, target: str) -> None:
        def pruned(trial: int, params: Mapping[str, Any]) -> dict[str, Any]:
            return {"status": "pruned", "intermediate": {"1": 0.1}}

        searcher, ledger = made(tmp_path, space_of(target), startup=2)
        run(searcher, ledger, pruned)
        assert states(searcher) == [TrialState.PRUNED] * 14

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("metrics", [{}, {"cost": 10}, {"psd_gan": 0.9, "cost": 10}])
    def test_a_missing_metric_fails_that_trial_alone(
        self, tmp_path: Path, target: str, metrics: dict[str, float]
    ) -> None:
        def forgetful(trial: int, params: Mapping[str, Any]) -> dict[str, Any]:
            return {"status": "finished", "metrics": metrics if trial == 3 else {"psd": 0.5, "cost": 10}}

        searcher, ledger = made(tmp_path, space_of(target), startup=2)
        run(searcher, ledger, forgetful)
        assert [n for n, state in enumerate(states(searcher)) if state == TrialState.FAIL] == [3]

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_nan_and_infinity_are_failures(self, tmp_path: Path, target: str, bad: float) -> None:
        searcher, ledger = made(tmp_path, space_of(target), startup=2)
        config = searcher.suggest("ray")
        diverged = Outcome(**config, status="finished", metrics={"psd": bad, "cost": 10})
        ledger.record(diverged.settled())
        searcher.on_trial_complete("ray", {"psd": bad})
        run(searcher, ledger)
        assert states(searcher)[0] == TrialState.FAIL
        assert TrialState.RUNNING not in states(searcher)

    def test_one_that_left_no_outcome_is_a_failure_and_runs_again(self, tmp_path: Path) -> None:
        searcher, _ = made(tmp_path)
        first = searcher.suggest("a")
        searcher.on_trial_complete("a", error=True)
        assert states(searcher) == [TrialState.RUNNING]
        searcher.suggest("b")
        assert states(searcher) == [TrialState.FAIL, TrialState.RUNNING]
        assert made(tmp_path)[0].suggest("c") == first

    def test_an_outcome_recorded_just_after_counts(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path, space_of("unet"))
        config = searcher.suggest("a")
        searcher.on_trial_complete("a")
        ledger.record(Outcome(**config, status="pruned", intermediate={"3": 0.25}))
        searcher.suggest("b")
        assert states(searcher) == [TrialState.PRUNED, TrialState.RUNNING]
        assert searcher.study.trials[0].intermediate_values == {3: 0.25}

    def test_what_ray_tells_twice_or_of_strangers_is_passed_over(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path)
        ledger.record(Outcome(**searcher.suggest("a"), **judge(0, space_params())))
        for _ in range(2):
            searcher.on_trial_complete("a", {"psd": 0.1})
        searcher.on_trial_complete("stranger", {"psd": 0.1})
        searcher.on_trial_result("a", {})
        assert states(searcher) == [TrialState.COMPLETE]

    def test_cost_above_the_limit_is_infeasible(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path, max_cost=60, trials=40)
        run(searcher, ledger)
        for trial, outcome in zip(searcher.study.trials, ledger.outcomes(), strict=True):
            if outcome.status == "finished":
                assert trial.constraints == {"cost": outcome.metrics["cost"] - 60}
        free, unlimited = made(tmp_path / "free", trials=40)
        run(free, unlimited, lambda trial, params: judge(0, params))

        def affordable(ledger: Ledger) -> int:
            late = list(ledger.proposals().values())[10:]
            return sum(params["projector.restarts"] * params["projector.steps"] <= 60 for params in late)

        assert affordable(ledger) > affordable(unlimited)


class TestManyTrials:
    """What a suggestion takes does not grow with the trials that have ended."""

    @pytest.fixture
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, number in {"BEST": 2, "LATEST": 4, "SAMPLE": 3}.items():
            monkeypatch.setattr(f"tune.optimizer.study.{name}", number)

    @pytest.mark.usefixtures("few")
    @pytest.mark.parametrize("target", TARGETS)
    def test_a_resumed_search_leaves_the_same_out(self, tmp_path: Path, target: str) -> None:
        searcher, ledger = made(tmp_path / "whole", space_of(target), trials=40)
        run(searcher, ledger)
        for kill in (17, 33, None):
            resumed, again = made(tmp_path / "broken", space_of(target), trials=40)
            run(resumed, again, stop=kill)
        assert again.proposals() == ledger.proposals()
        assert visible(resumed) == visible(searcher)
        assert len(visible(searcher)) < 30

    @pytest.mark.parametrize("sampler", ["tpe", "random"])
    def test_the_sampler_sees_a_bounded_number(self, tmp_path: Path, sampler: str) -> None:
        searcher, _ = made(tmp_path, space_of("unet", f"search.sampler: {sampler}\n{RANGES}"), trials=2000)
        numbers = np.random.default_rng(0)
        for trial in range(1500):
            params = {**space_params(), "unet.high_level_weight": float(numbers.uniform(0.01, 10))}
            searcher.study.start(trial, params)
            searcher.study.finish(trial, Outcome(trial=trial, params=params, **judge(trial, params)))
        for _ in range(3):
            searcher.study.suggest(1500)
        seen = searcher.study.trials
        assert len(seen) < 450, "more than the best, the latest, the sample and the latest failures"
        assert max(trial.number for trial in seen) == 1499, "a suggestion left something behind"

    def test_a_long_start_ends(self, tmp_path: Path) -> None:
        """After more first trials than the sampler is shown, results guide it all the same."""
        ranges = "search.sampler: tpe\nunet.high_level_weight: {low: 0.0, high: 10.0}"
        searcher, _ = made(tmp_path, space_of("unet", ranges), trials=2000, startup=600)
        numbers = np.random.default_rng(0)
        for trial in range(600):
            weight = float(numbers.uniform(0, 10))
            params = {"unet.high_level_weight": weight}
            metrics = {"psd": 1 - abs(weight - 7) / 10}
            searcher.study.start(trial, params)
            searcher.study.finish(trial, Outcome(trial=trial, params=params, status="finished", metrics=metrics))
        proposed = [searcher.study.suggest(600 + n)["unet.high_level_weight"] for n in range(8)]
        assert all(5.5 < weight < 8.5 for weight in proposed), proposed

    def test_generations_go_on_after_many_failures(self, tmp_path: Path) -> None:
        """Failures beyond the latest are forgotten: a trial's place among those that are left is not its number."""
        searcher, _ = made(tmp_path, space_of("unet", f"search.sampler: nsga2\n{RANGES}"), trials=200)
        for trial in range(120):
            searcher.study.start(trial, space_params())
            searcher.study.finish(trial, Outcome(trial=trial, params=space_params(), status="failed", error="no"))
        assert searcher.study.suggest(120) is not None


class TestSuggestions:
    """Where the points lie."""

    @pytest.mark.parametrize("target", TARGETS)
    def test_all_are_in_the_space_and_conditions_hold(self, tmp_path: Path, target: str) -> None:
        space = space_of(target)
        searcher, ledger = made(tmp_path, space, trials=30)
        run(searcher, ledger)
        for params in ledger.proposals().values():
            assert space.contains(params)
            assert ("projector.tolerance" in params) == (params["projector.distance"] == "insensitive")
            space.config(params)

    def test_seeds_differ(self, tmp_path: Path) -> None:
        one, other = (made(tmp_path / f"{seed}", seed=seed)[0].suggest("ray") for seed in (1, 2))
        assert one["params"] != other["params"]

    def test_the_first_points_cover_each_range(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path, trials=8)
        run(searcher, ledger)
        points = list(ledger.proposals().values())
        assert {point["projector.restarts"] for point in points} == {1, 2, 4}
        assert {point["projector.steps"] for point in points} == {10, 20, 30, 40, 50, 60}
        weights = sorted(math.log10(point["unet.high_level_weight"]) for point in points)
        assert all(later - earlier < 0.75 for earlier, later in pairwise([-2.0, *weights, 1.0]))

    def test_results_guide_the_later_ones(self, tmp_path: Path) -> None:
        def bowl(trial: int, params: Mapping[str, Any]) -> dict[str, Any]:
            return {
                "status": "finished",
                "metrics": {"psd": 1 - abs(math.log10(params["unet.high_level_weight"]) + 1)},
            }

        best = []
        for seed in range(5):
            searcher, ledger = made(tmp_path / f"{seed}", space_of("unet"), trials=24, seed=seed)
            run(searcher, ledger, bowl)
            best.append([max(o.metrics["psd"] for o in ledger.outcomes()[:count]) for count in (8, 24)])
        early, late = np.mean(best, axis=0)
        assert late > 0.96 > early

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_each_point_of_a_small_space_is_tried_once(self, tmp_path: Path, sampler: str) -> None:
        ranges = "projector.restarts: {choice: [1, 2, 4]}\nprojector.steps: {low: 1, high: 4}"
        space = space_of("defense", f"search.sampler: {sampler}\n{ranges}")
        searcher, ledger = made(tmp_path, space, trials=15, startup=4)
        assert (searcher.most, searcher.stopped) == (12, None)
        run(searcher, ledger, same)
        points = [tuple(params.values()) for params in ledger.proposals().values()]
        assert sorted(points) == [(restarts, steps) for restarts in (1, 2, 4) for steps in (1, 2, 3, 4)]
        for known in (searcher, made(tmp_path, space, trials=15)[0]):
            assert known.stopped == "exhausted: all 12 points of the space were tried"
            assert known.over

    def test_a_small_space_with_conditions_has_the_points_that_they_allow(self, tmp_path: Path) -> None:
        tolerance = "projector.tolerance: {choice: [0.1, 0.2], when: {projector.distance: insensitive}}"
        ranges = f"search.sampler: grid\nprojector.distance: {{choice: [l2, insensitive]}}\n{tolerance}"
        searcher, ledger = made(tmp_path, space_of("defense", ranges))
        run(searcher, ledger, same)
        points = [tuple(params.values()) for params in ledger.proposals().values()]
        assert sorted(points) == [("insensitive", 0.1), ("insensitive", 0.2), ("l2",)]

    def test_a_first_point_that_was_tried_gives_way_to_another(self, tmp_path: Path) -> None:
        ranges = "projector.restarts: {choice: [1, 2]}\nprojector.steps: {choice: [5, 9]}"
        twice = [{"projector.restarts": 2, "projector.steps": 9}] * 2
        searcher, ledger = made(tmp_path, space_of("defense", ranges), points=twice)
        run(searcher, ledger, same)
        assert len({tuple(params.values()) for params in ledger.proposals().values()}) == len(ledger.proposals()) == 4

    def test_running_trials_are_seen(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path, trials=30)
        run(searcher, ledger, stop=20)
        configs = [searcher.suggest(f"{index}") for index in range(4)]
        assert [config["trial"] for config in configs] == [21, 22, 23, 24]
        assert states(searcher)[20:] == [TrialState.RUNNING] * 5
        assert len({config["params"]["unet.high_level_weight"] for config in configs}) == 4
        for index in (2, 0, 3, 1):  # they end in any order
            ledger.record(Outcome(**configs[index], **judge(**configs[index])))
            searcher.on_trial_complete(f"{index}")
        assert visible(searcher) == visible(made(tmp_path, trials=30)[0])


class TestExport:
    """A database for optuna-dashboard, derived from the ledger."""

    def test_of_many_trials_some_are_exported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tune.optimizer.export._EXPORTED", (2, 3, 4))
        searcher, ledger = made(tmp_path, trials=30)
        run(searcher, ledger, stop=29)
        export_study(space_of(), ledger, tmp_path / "study.db")
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
        exported = {trial.user_attrs["trial"] for trial in study.trials}
        best = max((o for o in ledger.outcomes() if o.status == "finished"), key=lambda o: o.metrics["psd"])
        assert {best.trial, 26, 27, 28, 29} <= exported
        assert len(exported) < 16

    @pytest.mark.parametrize("target", TARGETS)
    def test_optuna_reads_it(self, tmp_path: Path, target: str) -> None:
        searcher, ledger = made(tmp_path, space_of(target))
        run(searcher, ledger, stop=12)
        export_study(space_of(target), ledger, tmp_path / "study.db", max_cost=60)
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
        assert [trial.state for trial in study.trials] == states(searcher)
        assert [trial.params for trial in study.trials] == list(ledger.proposals().values())
        assert len(study.trials[6].intermediate_values) == 2
        assert study.trials[4].user_attrs["error"] == "ValueError: too warm"
        assert study.trials[0].constraints["cost"] == study.trials[0].user_attrs["cost"] - 60
        assert study.best_trials

    def test_trials_have_their_own_times(self, tmp_path: Path) -> None:
        ledger = Ledger(Storage(tmp_path))
        for trial, ended in enumerate((1.7e9, 1.7e9 + 60)):
            judged = judge(trial, space_params())
            ledger.record(Outcome(trial=trial, params=space_params(), ended=ended, seconds=20.5, **judged))
        export_study(space_of(), ledger, tmp_path / "study.db")
        one, other = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}").trials
        assert other.datetime_complete - one.datetime_complete == timedelta(seconds=60)
        assert one.duration == timedelta(seconds=20.5)
        assert one.datetime_complete == datetime.fromtimestamp(1.7e9)

    def test_it_is_replaced_whole(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path)
        path = tmp_path / "study.db"
        for stop in (2, 5):
            run(searcher, ledger, stop=stop)
            export_study(space_of(), ledger, path)
        assert len(optuna.load_study(study_name=None, storage=f"sqlite:///{path}").trials) == 6
        assert sorted(os.listdir(tmp_path)) == ["proposals", "study.db", "trials"]

    def test_a_record_that_does_not_fit_the_space_is_kept_without_parameters(self, tmp_path: Path) -> None:
        ledger = Ledger(Storage(tmp_path))
        ledger.record(Outcome(trial=0, status="finished", params={"a": 1}, metrics={"psd": 0.5, "cost": 1}))
        export_study(space_of(), ledger, tmp_path / "study.db")
        (trial,) = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}").trials
        assert (trial.params, trial.values) == ({}, [0.5, 1])
        assert states(made(tmp_path)[0]) == []

    @pytest.mark.slow
    def test_the_dashboard_shows_it(self, tmp_path: Path) -> None:
        pytest.importorskip("optuna_dashboard")
        searcher, ledger = made(tmp_path)
        run(searcher, ledger, stop=12)
        export_study(space_of(), ledger, tmp_path / "study.db")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = Path(sys.executable).with_name("optuna-dashboard")
        command = [program, f"sqlite:///{tmp_path / 'study.db'}", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            shown = answer(f"http://127.0.0.1:{port}/api/studies/1", server)
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/dashboard/studies/1").read()
        finally:
            server.terminate()
            server.wait()
        assert b"<title>Optuna Dashboard</title>" in page
        assert (shown["name"], shown["directions"]) == ("small", ["maximize", "minimize"])
        assert shown["objective_names"] == ["psd", "cost"]
        found = [trial["state"].upper() for trial in shown["trials"]]
        assert found == [state.name for state in states(searcher)]
        assert {"COMPLETE", "FAIL", "PRUNED", "RUNNING"} == set(found)
        proposed = [{key: str(value) for key, value in params.items()} for params in ledger.proposals().values()]
        assert [
            {param["name"]: param["param_external_value"] for param in trial["params"]} for trial in shown["trials"]
        ] == proposed


def answer(address: str, server: "subprocess.Popen[bytes]") -> Any:
    """What a server that is just starting answers."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(address) as reply:
                return json.load(reply)
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"it ended with status {server.returncode}")
