"""What a search costs beside its trials: ours, plain Optuna and plain Ray Tune around trials that do nothing."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import optuna
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from components.datasets.dataset import Dataset
from components.datasets.raw import RawSplit
from tune.cluster.connection import connect
from tune.execution import driver
from tune.execution.trial import Setting
from tune.metrics import OBJECTIVES
from tune.monitor.tensorboard import TensorBoardRun, write_experiment
from tune.monitor.terminal import LiveView
from tune.optimizer.searcher import LedgerSearcher
from tune.space.space import parse_space
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome

SPACE = """
search.trials: {trials}
search.early_stopping: false
projector.restarts: {{choice: [1, 2, 4, 8]}}
projector.steps: {{low: 10, high: 200, step: 10}}
unet.high_level_weight: {{low: 0.01, high: 10.0, log: true}}
"""
CONCURRENT = 2


def bookkeeping_rows(few: int = 24, many: int = 240, *, patient: bool = False) -> list[dict[str, Any]]:
    """Each way with each number of trials; plain Ray Tune with many, which takes ten minutes, only for the patient."""
    ways: tuple[tuple[str, Callable[[int], dict[str, Any]], tuple[int, ...]], ...] = (
        ("ours", ours, (few, many)),
        ("plain Optuna, one process", plain_optuna, (few, many)),
        ("plain Ray Tune", plain_tune, (few, many) if patient else (few,)),
    )
    rows = []
    for name, run, counts in ways:
        for count in counts:
            began = time.perf_counter()
            found = run(count)
            taken = time.perf_counter() - began
            row = {"bookkeeping of": name, "trials": str(count), "wall s": taken, "ms per trial": 1e3 * taken / count}
            rows.append({**row, **found})
    return rows


def measured(params: Mapping[str, Any]) -> dict[str, float]:
    """Metrics that an empty trial says it measured: of every way the same for the same parameters, and noise."""
    cost = params["projector.restarts"] * params["projector.steps"]
    psd = random.Random(repr(sorted(params.items()))).random()
    return {"psd": psd, "cost": cost, "pco": 0.5, "validation_loss": 0.1}


def empty_trial(config: dict[str, Any], *, setting: Setting, arrays: Mapping[str, Any], channel: Any) -> None:
    """All that `tune.execution.trial.run_trial` does beside building: report, record, TensorBoard."""
    number, params = int(config["trial"]), dict(config["params"])
    began = time.time()
    tune.report({"trial": number})
    with TensorBoardRun(setting.home, setting.space, number, params) as run:
        metrics = measured(params)
        run.metrics(metrics)
        run.close("finished")
        seconds = round(time.time() - began, 3)
        work = {"empty": {"built": 1, "reused": 0, "process": os.getpid()}}
        Ledger(setting.home).record(
            Outcome(trial=number, params=params, status="finished", metrics=metrics, seconds=seconds, work=work)
        )
    channel.tell(number, None)


def ours(trials: int) -> dict[str, Any]:
    """The real searcher, driver, ledger and TensorBoard."""
    with tempfile.TemporaryDirectory() as folder, connect(None):
        searcher = prepared(folder, trials)
        run_empty_trials(folder, searcher)
        outcomes = Ledger(Storage(folder).child("one")).outcomes()
    assert len(outcomes) == trials, f"expected {trials} outcomes, found {len(outcomes)}"
    return {"worker processes": len({outcome.work["empty"]["process"] for outcome in outcomes})}


def prepared(folder: str, trials: int, kind: type[LedgerSearcher] = LedgerSearcher) -> LedgerSearcher:
    """The searcher of the experiment `one` in a folder, which may hold a ledger."""
    home, space = Storage(folder).child("one"), parse_space(SPACE.format(trials=trials), "one", "bookkeeping.yaml")
    write_experiment(home, space, "defense")
    return kind(space, Ledger(home), trials=trials, seed=0)


def run_empty_trials(folder: str, searcher: LedgerSearcher) -> None:
    """Runs what is left of a search, on the running Ray."""
    images = np.zeros((40, 1, 8, 8), np.uint8)
    split = RawSplit(images, (np.arange(40) % 4).astype(np.uint8))
    dataset = Dataset.cut("empty", split, split, validation_fraction=0.2)
    space = parse_space(SPACE.format(trials=searcher.most), "one", "bookkeeping.yaml")
    setting = Setting(space, folder, "one", 0, 1.0, 0.0, dataset.classes, dataset.fingerprint)
    driver.run_trial = empty_trial
    with LiveView("empty", searcher.most, OBJECTIVES["defense"], True, False) as view:
        driver.run_trials(setting, dataset, searcher, CONCURRENT, view, lambda: None)


def plain_optuna(trials: int) -> dict[str, Any]:
    """An in-memory study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: measured(asked(trial))["psd"], n_trials=trials)
    return {"worker processes": 0}


def plain_tune(trials: int, reuse: bool = False) -> dict[str, Any]:
    """Ray Tune with its own OptunaSearch, as its documentation shows it; with `reuse` a process serves many trials."""

    def train(config: dict[str, Any]) -> None:
        tune.report({"psd": measured(config)["psd"], "process": os.getpid()})

    search = ConcurrencyLimiter(OptunaSearch(asked, metric="psd", mode="max"), max_concurrent=CONCURRENT)
    with tempfile.TemporaryDirectory() as folder, connect(None):
        tuner = tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            tune_config=tune.TuneConfig(search_alg=search, num_samples=trials, reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
        assert len(results) == trials, f"expected {trials} results, found {len(results)}"
        return {"worker processes": len({result.metrics["process"] for result in results})}


def asked(trial: Any) -> dict[str, Any]:
    """Parameters of a trial, as plain Optuna's users ask for them."""
    return {
        "projector.restarts": trial.suggest_categorical("projector.restarts", [1, 2, 4, 8]),
        "projector.steps": trial.suggest_int("projector.steps", 10, 200, step=10),
        "unet.high_level_weight": trial.suggest_float("unet.high_level_weight", 0.01, 10.0, log=True),
    }


def resident() -> float:
    """Resident memory of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return float("nan")
