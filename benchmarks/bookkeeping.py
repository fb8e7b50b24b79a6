"""What a thousand trials cost the driver: the real searcher, scheduler, ledger and TensorBoard, around empty trials.

    python benchmarks/bookkeeping.py [TRIALS]

Prints, for every hundredth trial, the seconds per trial since the last line and the driver's resident memory.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
from ray import tune

from components.data import Dataset
from components.raw import RawSplit
from tune import driver
from tune.cluster import Resources, connect
from tune.ledger import Ledger, Outcome
from tune.live import LiveView
from tune.objectives import OBJECTIVES
from tune.searcher import LedgerSearcher
from tune.space import parse_space
from tune.storage import Storage
from tune.tracking import TrialBoard, write_experiment
from tune.trial import Setting

SPACE = """
search.trials: {trials}
search.early_stopping: false
projector.restarts: {{choice: [1, 2, 4, 8]}}
projector.steps: {{low: 10, high: 200, step: 10}}
unet.high_level_weight: {{low: 0.01, high: 10.0, log: true}}
"""
EVERY = 100


def empty_trial(config: dict[str, Any], *, setting: Setting, arrays: Mapping[str, Any], board: Any) -> None:
    """All that `tune.trial.run_trial` does beside building: report, record, TensorBoard."""
    number, params = int(config["trial"]), dict(config["params"])
    began = time.time()
    tune.report({"trial": number})
    with TrialBoard(setting.home, setting.space, number, params) as run:
        cost = params["projector.restarts"] * params["projector.steps"]
        metrics = {"psd": random.Random(number).random(), "cost": cost, "pco": 0.5, "validation_loss": 0.1}
        run.metrics(metrics)
        run.close("finished")
        seconds = round(time.time() - began, 3)
        Ledger(setting.home).record(
            Outcome(trial=number, params=params, status="finished", metrics=metrics, seconds=seconds)
        )
    board.put.remote(number, None)


def watch(home: Path, stop: threading.Event) -> None:
    """Prints a line per hundred ended trials."""
    before, last = 0, time.monotonic()
    final = False
    print("trials | s per trial | driver MB", flush=True)
    while not final:
        final = stop.wait(0.05)
        ended = len(list((home / "trials").glob("*.json")))
        if ended >= before + EVERY or (final and ended > before):
            now = time.monotonic()
            print(f"{ended:6} | {(now - last) / (ended - before):11.3f} | {resident():9.0f}", flush=True)
            before, last = ended, now


def resident() -> float:
    """Resident memory of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return float("nan")


def main(trials: int) -> None:
    """Runs them."""
    images = np.zeros((40, 1, 8, 8), np.uint8)
    split = RawSplit(images, (np.arange(40) % 4).astype(np.uint8))
    dataset = Dataset.cut("empty", split, split, validation_fraction=0.2)
    space = parse_space(SPACE.format(trials=trials), "bookkeeping", "bookkeeping.yaml")
    driver.run_trial = empty_trial
    with tempfile.TemporaryDirectory() as folder:
        home = Storage(folder).child("one")
        write_experiment(home, space, "defense")
        setting = Setting(space, folder, "one", 0, 1.0, 0.0, dataset.classes, dataset.fingerprint)
        searcher = LedgerSearcher(space, Ledger(home), trials=trials, seed=0)
        stop = threading.Event()
        thread = threading.Thread(target=watch, args=(Path(folder) / "one", stop))
        resources = Resources.asked(1.0, 0.0, 1, None, trials)
        with connect(resources), LiveView("empty", trials, OBJECTIVES["defense"], True, False) as view:
            thread.start()
            driver.run_trials(setting, dataset, searcher, resources.concurrent, view)
            time.sleep(0.5)
            stop.set()
        thread.join()
        print(f"{len(Ledger(home).outcomes())} outcomes of {trials} trials")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
