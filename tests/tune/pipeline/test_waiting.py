"""Trials that wait for what another builds: how often they look, and what they survive."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import executor_on, path_to, tiny_config
from tests.tune.pipeline.waiting_trials import WAITING, Waiting
from tune.pipeline.job import Progress
from tune.pipeline.stage import Stage
from tune.storage.folder import Storage
from tune.storage.leases import LONGEST, SHORTEST, FileLeases
from tune.storage.store import Store

FAILURES = 5  # of each trial's requests to a folder


def test_who_waits_looks_once_when_it_is_told(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: Counter[str] = Counter()
    find = Store.find

    def counted(store: Store, stage: str, signature: str) -> Any:
        looked[stage] += 1
        return find(store, stage, signature)

    monkeypatch.setattr(Store, "find", counted)
    search = Waiting(Storage(tmp_path), tiny_dataset, tmp_path)
    assert sorted(search.run()) == [0] + [1] * WAITING
    assert search.built["gan"] == 1
    assert looked["gan"] <= 2 * WAITING + 3  # before it was there, and after


def test_waiting_trials_outlast_a_store_that_does_not_answer(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request is answered once all wait for the GAN, those of its builder neither."""
    asked: Counter[str] = Counter()
    opened = Storage.reading
    interrupted = threading.Event()
    search = Waiting(Storage(tmp_path / "results", patience=60.0), tiny_dataset, tmp_path, interrupted.set)

    def unreachable(storage: Storage, name: str) -> Any:
        where = f"{threading.get_ident()} {storage.uri}"
        asked[where] += 1
        if interrupted.is_set() and asked[where] <= FAILURES:
            raise OSError(f"s3://{name}: AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7")
        return opened(storage, name)

    monkeypatch.setattr(Storage, "reading", unreachable)
    monkeypatch.setattr("tune.storage.patience.SHORTEST", 0.01)
    assert sorted(search.run()) == [0] + [1] * WAITING
    assert search.built["gan"] == 1
    assert max(asked.values()) > FAILURES


def test_parts_are_looked_for_by_one_listing(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stage, "part_images", 5)
    asked: list[str] = []
    find, listed = Store.find, Store.listed
    monkeypatch.setattr(Store, "find", lambda store, *key: asked.append("find") or find(store, *key))
    monkeypatch.setattr(Store, "listed", lambda store, stage: asked.append("list") or listed(store, stage))

    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.stage == "projection_train":
            raise Enough

    executor = executor_on(tmp_path, tiny_dataset)
    path = path_to("unet")
    with pytest.raises(Enough):
        executor.get(tiny_config(), path, stop)
    asked.clear()
    with pytest.raises(Enough):
        executor_on(tmp_path, tiny_dataset).get(tiny_config(), path, stop)
    # one for each ready stage that is made in parts, with no request for a part that is not there
    assert asked.count("list") <= 4
    assert asked.count("find") <= 8


def test_without_a_coordinator_the_pauses_grow_and_differ() -> None:
    slept: list[float] = []
    leases, waited = FileLeases(Path("unused"), slept.append), 0.0
    while waited < 100:
        assert list(leases.wait(["a"], waited)) == ["a"]
        waited += slept[-1]
    assert SHORTEST / 2 <= slept[0] <= SHORTEST * 1.5
    assert max(slept) <= LONGEST * 1.5
    assert len(slept) < 40  # every quarter of a second it would be 400
    assert len(set(slept)) == len(slept)
