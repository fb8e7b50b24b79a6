"""What is left of trainings that nobody continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, PATH, executor_on, tiny_config, tiny_space
from tests.tune.searches import made
from tune.pipeline.job import Progress
from tune.pipeline.recipe import Development
from tune.pipeline.saves import Saves
from tune.pipeline.stages import signer
from tune.storage.folder import Storage
from tune.storage.ledger import Outcome
from tune.storage.store import Store


class Stopped(Exception):
    """The trial ends here."""


def stop_in(tmp_path: Path, dataset: Dataset, stage: str) -> list[str]:
    """Trains up to the first saved epoch of a stage; returns the folders of unfinished trainings."""

    def report(progress: Progress) -> None:
        if progress.stage == stage and progress.row:
            raise Stopped

    with pytest.raises(Stopped):
        executor_on(tmp_path, dataset).get(tiny_config(), PATH, report)
    return unfinished(tmp_path)


def unfinished(tmp_path: Path) -> list[str]:
    return Storage(tmp_path / "store/.unfinished").folders()


def saves_on(tmp_path: Path, dataset: Dataset) -> Saves:
    store = Store(Storage(tmp_path / "store"))
    return Saves(tiny_space(), Development.for_search(dataset), 0, store, dict)


@pytest.mark.parametrize("status", ["pruned", "failed"])
def test_those_of_a_trial_that_ended_without_its_unet_go(tmp_path: Path, tiny_dataset: Dataset, status: Any) -> None:
    assert len(stop_in(tmp_path, tiny_dataset, "unet")) == 1
    others = Outcome(trial=1, status=status, params={**PARAMS, "unet.high_level_weight": 2.0})
    saves_on(tmp_path, tiny_dataset).forget([others])
    assert len(unfinished(tmp_path)) == 1
    saves_on(tmp_path, tiny_dataset).forget([others, Outcome(trial=2, status=status, params=PARAMS)])
    assert unfinished(tmp_path) == []


def test_those_of_a_trial_that_may_be_promoted_stay_until_no_further_one_is(
    tmp_path: Path, tiny_dataset: Dataset
) -> None:
    space = tiny_space(search__promotion=True, search__early_stopping=True, search__warmup_epochs=1)
    saves = Saves(space, Development.for_search(tiny_dataset), 0, Store(Storage(tmp_path / "store")), dict)
    before = stop_in(tmp_path, tiny_dataset, "unet")
    aside = Outcome(trial=0, status="pruned", params=PARAMS)
    saves.forget([aside])
    assert unfinished(tmp_path) == before != []
    saves.forget([aside], last=True)
    assert unfinished(tmp_path) == []
    stop_in(tmp_path, tiny_dataset, "unet")
    saves.forget([Outcome(trial=0, status="failed", params=PARAMS)])
    assert unfinished(tmp_path) == []


def test_the_store_of_a_trial_that_shares_nothing_goes_once_it_is_over(tmp_path: Path, tiny_dataset: Dataset) -> None:
    store, data = Store(Storage(tmp_path / "store")), Development.for_search(tiny_dataset)
    statuses: dict[int, Any] = {0: "finished", 7: "failed", 1000: "pruned"}
    ended = [Outcome(trial=number, status=status, params=PARAMS) for number, status in statuses.items()]

    def left(promotion: bool, last: bool) -> list[str]:
        unshared = Storage(tmp_path / f"one/unshared {promotion} {last}")
        for number in (0, 7, 8, 1000):  # trial 8 runs
            unshared.write(f"{number:03d}/gan/a/generator.safetensors", b"x" * 10)
            unshared.write(f"{number:03d}/.unfinished/b/training.pt", b"x" * 10)
        space = tiny_space(search__promotion=promotion, search__early_stopping=True, search__warmup_epochs=1)
        saves = Saves(space, data, 0, store, dict, unshared)
        for outcome in ended:
            saves.forget([outcome], last)
        return unshared.folders()

    assert left(promotion=False, last=False) == ["008"]
    assert left(promotion=True, last=False) == ["008", "1000"]
    assert left(promotion=True, last=True) == ["008"]


@pytest.mark.parametrize(("stage", "status"), [("unet", "finished"), ("gan", "failed"), ("classifier", "pruned")])
def test_those_that_may_serve_again_stay(tmp_path: Path, tiny_dataset: Dataset, stage: str, status: Any) -> None:
    before = stop_in(tmp_path, tiny_dataset, stage)
    saves_on(tmp_path, tiny_dataset).forget([Outcome(trial=0, status=status, params=PARAMS)])
    assert unfinished(tmp_path) == before != []


@pytest.mark.parametrize("resumed", [False, True])
def test_those_of_a_unet_that_another_trial_has_as_well_stay_until_it_has_ended(
    tmp_path: Path, tiny_dataset: Dataset, resumed: bool
) -> None:
    adaptive = {"unet__training": "adaptive", "projector__levels": 2, "projector__init": "encoder"}
    space = tiny_space(unet__high_level_weight=1.0, **adaptive)  # R and L differ, from which the U-Net does not follow
    searcher, ledger = made(tmp_path / "one", space)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    data, store = Development.for_search(tiny_dataset), Store(Storage(tmp_path / "store"))
    store.unfinished(signer(space, data, 0)(first["params"])["unet"]).write("training.pt", b"four epochs")
    saves = Saves(space, data, 0, store, lambda: searcher.going_on)
    saves.forget([ledger.record(Outcome(**first, status="pruned"))])  # before the searcher knows, as Tune does it
    searcher.on_trial_complete("a")
    if resumed:
        searcher, ledger = made(tmp_path / "one", space)
        saves.forget(ledger.outcomes())
    assert len(unfinished(tmp_path)) == 1
    saves.forget([ledger.record(Outcome(**second, status="pruned"))])
    assert unfinished(tmp_path) == []


@pytest.mark.parametrize("params", [{}, {"projector.steps": "many"}, {"no.such": 1}])
def test_a_trial_that_failed_by_its_settings_has_none(
    tmp_path: Path, tiny_dataset: Dataset, params: dict[str, Any]
) -> None:
    before = stop_in(tmp_path, tiny_dataset, "unet")
    saves_on(tmp_path, tiny_dataset).forget([Outcome(trial=0, status="failed", params=params)])
    assert unfinished(tmp_path) == before


def test_a_storage_that_fails_ends_no_search(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Storage) -> None:
        raise OSError(30, "Read-only file system")

    stop_in(tmp_path, tiny_dataset, "unet")
    monkeypatch.setattr(Storage, "remove_tree", fail)
    saves_on(tmp_path, tiny_dataset).forget([Outcome(trial=0, status="pruned", params=PARAMS)])
    assert "Read-only file system" in caplog.text
