"""A search for what stays right when the attacker knows the defense."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, executor_on, path_to, search_here, tiny_config, tiny_space
from tune.execution.selection import Selection
from tune.execution.session import Session
from tune.metrics import DEFENSE_TARGETS, METRICS, objectives_of
from tune.monitor.hparams import experiment_record
from tune.optimizer.choice import choose, pareto_front, rule
from tune.optimizer.finalists import Finalist
from tune.planning.experiment import Options
from tune.planning.preflight import Plan
from tune.space.strict_yaml import SpaceError
from tune.storage.folder import Storage
from tune.storage.ledger import Outcome

PATH = path_to("defense")


def test_objectives_follow_from_what_is_asked() -> None:
    assert list(objectives_of("defense", "robust")) == ["robust", "cost"]
    assert list(objectives_of("defense", "both")) == ["robust", "psd", "cost"]
    assert list(objectives_of("unet", "robust")) == ["robust"]
    assert list(objectives_of("defense")) == ["psd", "cost"]
    assert rule(objectives_of("defense", "robust")).startswith("highest validation robust")


@pytest.mark.parametrize("target", ["gan", "projection"])
def test_a_target_without_a_whole_defense_is_refused(target: str) -> None:
    with pytest.raises(SpaceError, match=r"search\.objective: expected psd for target"):
        tiny_space(search__target=target, search__objective="robust", unet__high_level_weight=1.0)


def test_trials_are_judged_by_the_attacker(tmp_path: Path, tiny_dataset: Dataset) -> None:
    space = tiny_space(search__objective="both", search__robust_images=6)
    ledger = search_here(tmp_path, tiny_dataset, space)
    outcomes = ledger.outcomes()
    assert {outcome.status for outcome in outcomes} == {"finished"}
    assert all(0 <= outcome.metrics["robust"] <= 1 for outcome in outcomes)
    assert all(round(6 * outcome.metrics["robust"], 9).is_integer() for outcome in outcomes)
    objectives = objectives_of("defense", "both")
    best = choose(outcomes, objectives)
    assert best.metrics["robust"] == max(outcome.metrics["robust"] for outcome in outcomes)
    assert best in pareto_front(outcomes, objectives)


def test_finalists_are_told_apart_by_the_images_that_the_attacker_is_given(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = tiny_space(search__objective="robust", search__finalists=2, search__finalist_seeds=1,
                       search__robust_images=6)  # fmt: skip
    plan = Plan(space, Storage(tmp_path), "one", False, space.config(PARAMS), tiny_dataset)
    session = Session(plan, mock.Mock(), Options(quiet=True), mock.Mock())
    for number in range(2):
        session.ledger.record(
            Outcome(trial=number, status="finished", params=PARAMS, metrics={"robust": 0.5, "cost": 8})
        )
    pair = [Finalist(number, 8.0, 0.5, {0: 0.5}) for number in range(2)]  # of which the images are not known
    monkeypatch.setattr("tune.execution.selection.run_finalists", lambda *args: (pair, {}, {}))
    selection = Selection(plan, session.setting, session.options, session.lock.check)
    selection.final(session.ledger.outcomes()[0], session.ledger.outcomes())
    (_, other) = json.loads(plan.home.read("finalists.json"))["finalists"]
    selection.keep(session.ledger.outcomes()[0])
    assert json.loads(plan.home.child("best").read("choice.json"))["rule"].startswith("finalists by the highest")
    assert len(tiny_dataset.validation) > 6
    assert other["error"] == pytest.approx((2 * 0.25 / 6) ** 0.5)


def test_only_the_score_follows_from_the_objective(tmp_path: Path, tiny_dataset: Dataset) -> None:
    bench = executor_on(tmp_path, tiny_dataset)
    plain = bench.signatures(tiny_config(), PATH)
    assert bench.signatures(tiny_config(search__robust_images=7), PATH) == plain
    asked = bench.signatures(tiny_config(search__objective="robust"), PATH)
    assert {name for name in PATH if asked[name] != plain[name]} == {"score_unet"}
    assert bench.signatures(tiny_config(search__objective="both"), PATH) == asked
    more = bench.signatures(tiny_config(search__objective="robust", search__robust_images=7), PATH)
    assert more["score_unet"] != asked["score_unet"]


def test_tensorboard_has_a_column_for_it() -> None:
    column = METRICS["robust"].meaning.encode()
    for target in DEFENSE_TARGETS:
        assert experiment_record(tiny_space(), target).count(column) == 1  # of the retrained seeds
    assert experiment_record(tiny_space(search__objective="robust"), "defense").count(column) == 2
