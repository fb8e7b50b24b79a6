"""The ways that are compared are given the same objective, which differs from trial to trial."""

from __future__ import annotations

import optuna

from benchmarks.bookkeeping import asked, measured


def test_an_empty_trial_has_the_same_metrics_whoever_asks() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [asked(study.ask()) for _ in range(5)]
    scores = [measured(params)["psd"] for params in trials]
    assert len(set(scores)) == 5
    assert scores == [measured(dict(reversed(params.items())))["psd"] for params in trials]
