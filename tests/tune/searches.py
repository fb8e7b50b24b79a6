"""A small search that the tests of the searcher and its study run in memory."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from tune.optimizer.searcher import LedgerSearcher
from tune.space.space import SearchSpace, parse_space
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome

RANGES = """
projector.restarts: {choice: [1, 2, 4]}
projector.steps: {low: 10, high: 60, step: 10}
unet.high_level_weight: {low: 0.01, high: 10.0, log: true}
projector.distance: {choice: [l2, insensitive]}
projector.tolerance: {low: 0.1, high: 0.4, when: {projector.distance: insensitive}}
"""
SAMPLERS = ("tpe", "gp", "random", "grid", "nsga2")
TARGETS = ("unet", "defense")  # one objective, and two
Judge = Callable[[int, Mapping[str, Any]], dict[str, Any]]


def space_of(target: str = "defense", ranges: str = RANGES) -> SearchSpace:
    """A small space with one parameter of each kind, and a conditional one."""
    return parse_space(f"search.target: {target}\n{ranges}", "small", "small.yaml")


def judge(trial: int, params: Mapping[str, Any]) -> dict[str, Any]:
    """A result that depends on the parameters alone; every fifth trial fails and every seventh is pruned."""
    cost = params["projector.restarts"] * params["projector.steps"]
    psd = 1 - abs(math.log10(params["unet.high_level_weight"])) / 4 - abs(cost - 80) / 1000
    if trial % 5 == 4:
        return {"status": "failed", "error": "ValueError: too warm"}
    if trial % 7 == 6:
        return {"status": "pruned", "intermediate": {"1": psd / 2, "2": psd / 1.5}}
    return {"status": "finished", "metrics": {"psd": psd, "cost": cost}}


def run(searcher: LedgerSearcher, ledger: Ledger, judged: Judge = judge, stop: int | None = None) -> None:
    """Runs trials one at a time, up to the end or until trial `stop` has been handed out."""
    while (config := searcher.suggest("ray")) != LedgerSearcher.FINISHED:
        if config["trial"] == stop:
            return
        ledger.record(Outcome(**config, **judged(**config)))
        searcher.on_trial_complete("ray")


def made(folder: Path, space: SearchSpace | None = None, **settings: Any) -> tuple[LedgerSearcher, Ledger]:
    """A searcher on the ledger in `folder`, as a driver makes it at every start."""
    ledger = Ledger(Storage(folder))
    return LedgerSearcher(space or space_of(), ledger, **{"trials": 14, "seed": 3, **settings}), ledger


def states(searcher: LedgerSearcher) -> list[TrialState]:
    """What Optuna is told of each trial."""
    return [trial.state for trial in searcher.study.trials]


def visible(searcher: LedgerSearcher) -> list[Any]:
    """All of a study that a sampler may look at."""
    return [
        (t.state, t.params, t.distributions, t.values, t.intermediate_values, t.constraints)
        for t in searcher.study.trials
    ]


def space_params() -> dict[str, Any]:
    """Parameters of the small space."""
    return {
        "projector.restarts": 2,
        "projector.steps": 40,
        "unet.high_level_weight": 1.0,
        "projector.distance": "l2",
    }
