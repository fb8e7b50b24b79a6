"""A search for what stays right when the attacker knows the defense."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import executor_on, path_to, search_here, tiny_config, tiny_space
from tune.metrics import METRICS, objectives_of
from tune.monitor.hparams import experiment_record
from tune.optimizer.choice import choose, pareto_front, rule
from tune.space.strict_yaml import SpaceError

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
    assert experiment_record(tiny_space(), "defense").count(column) == 1  # of the retrained seeds
    assert experiment_record(tiny_space(search__objective="robust"), "defense").count(column) == 2
