"""Stages of a tiny experiment, built in this process without Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from components.datasets.dataset import Dataset
from tests.tune.tiny_search import SETTINGS
from tune.execution.trial import Setting, attempt
from tune.metrics import Target
from tune.monitor.progress import ProgressChannel, ProgressReporter
from tune.optimizer.searcher import LedgerSearcher
from tune.pipeline.executor import Executor
from tune.pipeline.recipe import Bounds, Development
from tune.pipeline.stages import path_of
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace, parse_space
from tune.storage.folder import Storage
from tune.storage.leases import FileLeases
from tune.storage.ledger import Ledger, Outcome
from tune.storage.store import Store

PARAMS = {"projector.restarts": 2, "projector.steps": 4, "unet.high_level_weight": 1.0}


def tiny_space(**changes: Any) -> SearchSpace:
    """The tiny space; `unet__epochs=4` changes `unet.epochs`."""
    settings = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    lines = [f"{key}: {str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()]
    return parse_space("\n".join(lines), "tiny", "tiny.yaml")


def tiny_config(**changes: Any) -> ExperimentConfig:
    """One configuration of it."""
    return tiny_space(**changes).config(PARAMS)


def path_to(target: Target) -> tuple[str, ...]:
    """The path of a trial of that target."""
    config = tiny_config()
    return path_of(config.model_copy(update={"search": config.search.model_copy(update={"target": target})}))


PATH = path_to("defense")


def executor_on(storage: Path, dataset: Dataset, seed: int = 0) -> Executor:
    """An executor as a new process makes it: it knows nothing of the store yet."""
    store = Store(Storage(storage / "store"))
    bounds = Bounds([1, 2], [2, 4, 6])
    data = Development.for_search(dataset)
    return Executor(store, FileLeases(storage / "store/.leases"), data, bounds, seed, torch.device("cpu"))


def setting_on(storage: Path, dataset: Dataset, space: SearchSpace | None = None) -> Setting:
    """What the trials of a search share."""
    return Setting(space or tiny_space(), str(storage), "one", 0, 1.0, 0.0, dataset.classes, dataset.fingerprint)


def with_test_labels(dataset: Dataset, change: Callable[[Any], Any]) -> Dataset:
    """The data set with other labels of its test images."""
    return replace(dataset, held_out=replace(dataset.held_out, labels=change(dataset.held_out.labels)))


def search_here(storage: Path, dataset: Dataset, space: SearchSpace | None = None) -> Ledger:
    """A whole search in this process, one trial after the other."""
    space = space or tiny_space()
    setting = setting_on(storage, dataset, space)
    ledger = Ledger(setting.home)
    trials = int(space.fixed["search.trials"])
    searcher = LedgerSearcher(space, ledger, trials=trials, seed=0, startup=int(space.fixed["search.startup_trials"]))
    while (config := searcher.suggest("here")) != LedgerSearcher.FINISHED:
        ledger.record(try_here(setting, dataset, config["trial"], config["params"]))
        searcher.on_trial_complete("here")
    return ledger


def try_here(setting: Setting, dataset: Dataset, number: int, params: Mapping[str, Any]) -> Outcome:
    """The outcome of one trial."""
    reporter = ProgressReporter(number, SilentChannel(), None, judged=False)
    outcome, _ = attempt(setting, Development.for_search(dataset), number, params, reporter)
    return outcome


class SilentChannel(ProgressChannel):
    """Stands where the driver's channel does, and forgets what it is told."""

    def __init__(self) -> None:
        super().__init__("nobody listens")

    def tell(self, trial: int, message: Any) -> None:
        """Takes a message."""
