"""kill -9 at each place at which a search has written something: the resumed one goes on as if nothing had happened.

Searcher, executor, store, saves, ledger, and the records of driver and trial are real. The stages pretend: each says
what it would have taken, so that what is learned of seconds does not hang on this machine's mood.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from torch import nn

from components.datasets.dataset import Dataset
from components.training import Training
from tests.tune.executor_fixture import SilentChannel, setting_on, tiny_space
from tests.tune.searches import SAMPLERS
from tune.execution.trial import Setting, attempt
from tune.execution.trial_callback import TrialCallback
from tune.monitor.progress import ProgressReporter
from tune.optimizer.costs import Signatures, StageCosts
from tune.optimizer.grid import identity
from tune.optimizer.searcher import LedgerSearcher
from tune.pipeline.job import Job
from tune.pipeline.recipe import Development
from tune.pipeline.stages import STAGES, signer
from tune.space.space import SearchSpace
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome, Params

SECONDS = {"classifier": 20.0, "gan": 30.0, "projection": 11.0, "projection_train": 6.0, "unet": 20.0}
TRIALS = 6
WRITES = ("write", "create", "upload", "delete", "remove_tree")


class Killed(BaseException):
    """The process is gone."""


class Stopped(BaseException):
    """What Tune ends a trial with that its scheduler stops."""


class Walk(Training):
    """A training with nothing to learn."""

    def __init__(self) -> None:
        super().__init__(3, seed=5)
        self.layer = nn.Linear(1, 1)

    def run_epoch(self) -> dict[str, float]:
        return {"loss": 1.0}

    def parts(self) -> Mapping[str, Any]:
        return {"layer": self.layer}


def pretend(job: Job) -> None:
    """Builds what a stage would, but for its content; a training saves each epoch, as any."""
    job.draft.seconds_before = SECONDS.get(job.stage, 2.0)
    config = job.config
    cost = config.projector.restarts * config.projector.steps
    psd = 0.9 - 20 * abs(config.gan.learning_rate - 0.001) - abs(cost - 8) / 100 - config.unet.high_level_weight / 100
    row = {"psd": psd, "pco": 0.5, "validation_loss": 1.0}
    if STAGES[job.stage].judged or job.stage == "gan":
        job.write_history(job.train(Walk(), lambda: row))
    job.draft.metrics |= {"evaluations_per_second": 9.0, "cost": cost, **row}
    (job.draft.folder / "content").write_text(job.stage)


def search(
    storage: Path, dataset: Dataset, space: SearchSpace, paths: Signatures, trials: int = TRIALS
) -> LedgerSearcher:
    """Takes a search up and runs so many trials of it, as driver and worker do."""
    setting, data = setting_on(storage, dataset, space), Development.for_search(dataset)
    ledger = Ledger(setting.home)
    searcher = LedgerSearcher(space, ledger, trials=TRIALS, seed=0, startup=3, costs=lambda: StageCosts(paths))
    callback = TrialCallback(setting, ledger, mock.Mock(), mock.Mock(), mock.Mock(), lambda: None)
    for _ in range(trials):
        if (config := searcher.suggest("ray")) != LedgerSearcher.FINISHED:
            run_here(setting, data, config, ledger, callback)
            searcher.on_trial_complete("ray")
    return searcher


def run_here(
    setting: Setting, data: Development, config: dict[str, Any], ledger: Ledger, callback: TrialCallback
) -> None:
    """One trial; of two weights of the U-Net the larger is stopped early."""
    trial = SimpleNamespace(config=config)
    callback.on_trial_start(0, [trial], trial)

    def tell(result: dict[str, Any]) -> None:
        callback.on_trial_result(0, [trial], trial, result)
        if result["epoch"] == 2 and config["params"]["unet.high_level_weight"] > 2:
            raise Stopped

    with mock.patch("tune.monitor.progress.tell_tune", tell):
        try:
            reporter = ProgressReporter(config["trial"], SilentChannel(), None, judged=True)
            ledger.record(attempt(setting, data, config["trial"], config["params"], reporter)[0])
        except Stopped:
            pass
    callback.on_trial_complete(0, [trial], trial)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Storage], None]]:
    """Who is called before each write; stages pretend, and that of the training images has two parts."""
    listeners: list[Callable[[Storage], None]] = []
    for name in WRITES:
        original = getattr(Storage, name)

        @functools.wraps(original)
        def wrapped(self: Storage, *arguments: Any, original: Any = original) -> Any:
            for listener in listeners:
                listener(self)
            return original(self, *arguments)

        monkeypatch.setattr(Storage, name, wrapped)
    for stage in {type(stage) for stage in STAGES.values()}:
        monkeypatch.setattr(stage, "build", lambda self, job: pretend(job))
    monkeypatch.setattr("tune.pipeline.stage.Stage.part_images", 16)
    return listeners


def facts(outcome: Outcome) -> dict[str, Any]:
    """All of a record that must not hang on kills; seconds as stages say that they took them."""
    work = {stage: (row["built"], row["reused"], round(row["seconds"])) for stage, row in outcome.work.items()}
    told = outcome.model_dump(include={"params", "status", "metrics", "stages", "intermediate", "right"})
    return {**told, "work": work, "seconds": round(outcome.seconds / 4)}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_interrupted_trial_and_the_next_are_those_of_the_undisturbed_search(
    tmp_path: Path, tiny_dataset: Dataset, writes: list[Callable[[Storage], None]], sampler: str
) -> None:
    """With TPE killed at each place, with the others at some; at some places also once more soon after."""
    weight = "{choice: [0.1, 1.0, 10.0]}" if sampler == "grid" else "{low: 0.1, high: 10.0, log: true}"
    rates = "{choice: [0.0001, 0.001, 0.003]}"
    space = tiny_space(search__sampler=sampler, gan__learning_rate=rates, unet__high_level_weight=weight)
    whole, killed = tmp_path / "whole", [tmp_path / "killed-000"]
    whole.mkdir()

    def photograph(storage: Storage) -> None:
        if storage.local is not None and whole in storage.local.parents:
            shutil.copytree(whole, killed[-1])
            killed.append(tmp_path / f"killed-{len(killed):03d}")

    writes.append(photograph)
    signatures, known = signer(space, Development.for_search(tiny_dataset), 0), dict[Any, Mapping[str, str]]()

    def paths(params: Params) -> Mapping[str, str]:
        return known.get(identity(params)) or known.setdefault(identity(params), signatures(params))

    ledger = search(whole, tiny_dataset, space, paths).ledger
    undisturbed = {outcome.trial: outcome for outcome in ledger.outcomes()}
    writes.clear()
    assert {outcome.status for outcome in undisturbed.values()} == {"finished", "pruned"}
    assert sum(outcome.work["gan"]["built"] for outcome in undisturbed.values()) > 1
    for number, place in list(enumerate(killed[:-1]))[:: 1 if sampler == "tpe" else 16]:
        if number % 4 == 0:
            writes.append(kill_at(5))
            with suppress(Killed):
                search(place, tiny_dataset, space, paths, trials=1)
            writes.clear()
        searcher = search(place, tiny_dataset, space, paths, trials=1)
        for outcome in searcher.ledger.outcomes():
            assert facts(outcome) == facts(undisturbed[outcome.trial]), f"{place.name}: trial {outcome.trial}"
        if number % 4 == 0 and isinstance(following := searcher.suggest("ray"), Mapping):
            assert following["params"] == undisturbed[following["trial"]].params, place.name


def kill_at(write: int) -> Callable[[Storage], None]:
    """Kills the process at its write of that number."""
    left = list(range(write))

    def count(storage: Storage) -> None:
        if not left:
            raise Killed
        left.pop()

    return count
