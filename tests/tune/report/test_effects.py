"""What the parameters did: planted effects are found, parameters that did nothing are not told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tune.experiment_fixture import write_experiment
from tune.report.blocks import Drawing
from tune.report.effects import Effects, shown
from tune.report.facts import Facts, facts_of
from tune.report.parameters import parameters
from tune.report.search import _history, history
from tune.storage.folder import Storage
from tune.storage.ledger import Outcome

RANGES: dict[str, Any] = {
    "projector.steps": {"choice": [1, 5, 20]},
    "projector.distance": {"choice": ["l2", "insensitive"]},
    "projector.tolerance": {"low": 0.1, "high": 0.4, "when": {"projector.distance": "insensitive"}},
    "unet.high_level_weight": {"low": 0.01, "high": 10.0, "log": True},
}


def facts(outcomes: list[Outcome]) -> Facts:
    space = {"search.target": "unet", **RANGES}
    record = {"data": {"validation": 1000}}
    return Facts("one", "one", space, record, tuple(outcomes))


def trials(count: int, noise: float = 0.002, by_weight: float = 0.05, pruned: int = 0) -> list[Outcome]:
    """The tolerance, where there is one, decides; the weight helps; steps do nothing."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        distance = str(rng.choice(["l2", "insensitive"]))
        weight = float(10 ** rng.uniform(-2, 1))
        params: dict[str, Any] = {"projector.steps": int(rng.choice([1, 5, 20])), "projector.distance": distance}
        params["unet.high_level_weight"] = weight
        psd = 0.8 + by_weight * np.log10(weight) + rng.normal(0, noise)
        if distance == "insensitive":
            params["projector.tolerance"] = float(rng.uniform(0.1, 0.4))
            psd += by_weight * 4 * (params["projector.tolerance"] - 0.1)
        epochs = {"1": psd - 0.1, "2": psd - 0.04}
        if number < pruned:
            found.append(Outcome(trial=number, status="pruned", params=params, intermediate={"1": epochs["1"]}))
        else:
            metrics = {"psd": psd}
            found.append(
                Outcome(trial=number, status="finished", params=params, metrics=metrics, intermediate=epochs)
            )
    return found


def found(outcomes: list[Outcome]) -> Effects:
    result = facts(outcomes).effects
    assert result is not None
    return result


def test_what_did_something_is_told_from_what_did_not() -> None:
    result = found(trials(60))
    assert "unet.high_level_weight" in result.clear
    assert "projector.steps" not in result.clear
    assert next(iter(result.shares)) in ("unet.high_level_weight", "projector.tolerance")


def test_a_parameter_that_not_every_trial_has_is_judged() -> None:
    assert "projector.tolerance" in found(trials(60)).shares


def test_nothing_is_told_apart_in_noise() -> None:
    result = found(trials(40, noise=0.01, by_weight=0.0))
    assert not result.clear
    words = parameters(facts(trials(40, noise=0.01, by_weight=0.0))).blocks[1]
    assert words.text.startswith("The search could not tell apart the values of any parameter: by chance")  # type: ignore[union-attr]


def test_a_parameter_of_one_value_that_only_some_trials_have_is_drawn_without_a_surface() -> None:
    """Its effect is that of being there; a surface needs two values of each."""
    outcomes = [
        Outcome(trial=o.trial, status="finished", metrics=o.metrics, params={
            "projector.distance": o.params["projector.distance"],
            **({"projector.tolerance": 0.2} if "projector.tolerance" in o.params else {}),
        })
        for o in trials(12)
    ]  # fmt: skip
    ranges = {
        "projector.distance": RANGES["projector.distance"],
        "projector.tolerance": {"choice": [0.2], "when": {"projector.distance": "insensitive"}},
    }
    known = replace(facts(outcomes), space={"search.target": "unet", **ranges})
    assert known.effects is not None
    assert len(known.effects.shares) == 2
    drawn = [block.chart.name for block in parameters(known).blocks if isinstance(block, Drawing)]
    assert drawn == ["importance", "courses"]


def test_stopped_trials_count_with_what_they_showed() -> None:
    outcomes = trials(8, pruned=4)
    showed = shown(outcomes, {"psd": "max"})
    assert [trial.finished for trial in showed] == [True] * 4 + [False] * 4
    whole = {trial.params["unet.high_level_weight"]: trial.score for trial in shown(trials(8), {"psd": "max"})}
    for trial in showed:  # the others gained 0.1 after the first epoch, and these would have
        assert trial.score == pytest.approx(whole[trial.params["unet.high_level_weight"]])
    assert facts(outcomes).effects is not None


def test_a_stopped_trial_is_carried_on_by_those_of_equal_fidelity() -> None:
    finals = {4: 0.6, 8: 0.9}
    outcomes = [
        Outcome(trial=0, status="finished", params={"unet.epochs": n}, metrics={"psd": psd}, intermediate={"1": 0.5})
        for n, psd in finals.items()
    ]
    outcomes += [
        Outcome(trial=n, status="pruned", params={"unet.epochs": epochs}, intermediate={"1": 0.4})
        for n, epochs in ((2, 4), (3, 8), (4, 16))
    ]
    assert [trial.score for trial in shown(outcomes, {"psd": "max"})] == pytest.approx([0.6, 0.9, 0.5, 0.8, 0.4])


EQUAL = [outcome.model_copy(update={"metrics": {"psd": 0.5}}) for outcome in trials(9)]


@pytest.mark.parametrize("outcomes", [[], trials(7), EQUAL])
def test_too_few_or_equal_trials_say_nothing(outcomes: list[Outcome]) -> None:
    assert facts(outcomes).effects is None
    assert "Left out" in parameters(facts(outcomes)).blocks[0].text  # type: ignore[union-attr]


def test_the_course_over_a_parameter_is_its_own() -> None:
    result = found(trials(60))
    weights = [0.01, 0.1, 1.0, 10.0]
    middle, deviation = result.course("unet.high_level_weight", weights)
    assert np.diff(middle) == pytest.approx([0.05] * 3, abs=0.012)
    assert (deviation < 0.02).all()
    heights = result.surface("unet.high_level_weight", "projector.steps", (weights, [1, 5, 20]))
    assert heights.shape == (3, 4)
    assert np.diff(heights, axis=1).min() > 0.02


def test_the_noise_of_robust_is_that_of_the_images_which_the_attacker_is_given() -> None:
    known = facts([o.model_copy(update={"metrics": {"robust": o.metrics["psd"]}}) for o in trials(40)])
    plain = found(trials(40)).noise
    for asked, images in (({}, 100), ({"search.robust_images": 400}, 400), ({"search.robust_images": 5000}, 1000)):
        space = {**known.space, "search.objective": "robust", **asked}
        result = replace(known, space=space).effects
        assert result is not None
        assert result.noise / plain == pytest.approx((1000 / images) ** 0.5, rel=0.02)


def test_of_a_whole_experiment(tmp_path: Path) -> None:
    read = facts_of(Storage(write_experiment(tmp_path / "whole")))
    result = read.effects
    assert result is not None
    assert len(result.trials) == 22  # nineteen finished and three that were pruned
    assert set(result.shares) == {*read.ranges}


def test_of_many_trials_the_process_is_fitted_to_the_best_and_some_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.report.effects.MODELLED", 60)
    monkeypatch.setattr("tune.report.effects.MODELLED_BEST", 5)
    result = found(trials(600, pruned=100))
    best = sorted(result.trials, key=lambda trial: -trial.score)[:5]
    assert len(result.trials) == 600
    assert len(result.modelled) <= 65
    assert all(trial in result.modelled for trial in best)
    assert any(not trial.finished for trial in result.modelled)
    assert result.clear == {"projector.distance", "projector.tolerance", "unet.high_level_weight"}
    low, high = result.course("unet.high_level_weight", [0.01, 10.0])[0]
    assert high - low == pytest.approx(0.15, abs=0.05)


def test_of_many_trials_a_chart_draws_some_and_the_best_so_far_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.report.search.DRAWN", 100)
    outcomes = trials(450, pruned=20)
    section = history(facts(outcomes))
    figure = _history(facts(outcomes))
    assert figure is not None
    steps, *points = figure.axes[0].lines
    assert sum(len(line.get_xdata()) for line in points) <= 100
    assert steps.get_ydata()[-1] == max(outcome.metrics.get("psd", 0.0) for outcome in outcomes)
    assert len(steps.get_xdata()) < 50
    captions = [block.caption for block in section.blocks if isinstance(block, Drawing)]
    assert captions[0].endswith("One of 5 trials is drawn.")
