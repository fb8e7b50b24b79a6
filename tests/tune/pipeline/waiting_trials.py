"""Trials in threads of this process that all wait for what one of them builds."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import path_to, tiny_config
from tune.cluster.coordinator import BEAT, Coordinator, News
from tune.pipeline.executor import Executor
from tune.pipeline.job import Progress
from tune.pipeline.recipe import Bounds, Development
from tune.storage.folder import Storage
from tune.storage.leases import FileLeases, Leases
from tune.storage.store import Store

GAN = path_to("gan")
WAITING = 32


class Node:
    """A coordinator, and what the trials of this process hold, which is said again and again, as by a relay."""

    def __init__(self) -> None:
        self.coordinator, self.lock = Coordinator(), threading.Lock()
        self.held: dict[str, tuple[str, ...]] = {}
        self.over = threading.Event()

    def speak(self) -> None:
        """Says what is held, until it is over."""
        while not self.over.wait(BEAT):
            with self.lock:
                self.coordinator.exchange("relay", News({}, dict(self.held), frozenset()))


class CoordinatedLeases:
    """Leases of a coordinator in this process, of one holder.

    Args:
        node: what all holders share.
        name: of the holder.
        patience: seconds without a word, after which the store is looked into all the same.
    """

    def __init__(self, node: Node, name: str, patience: float) -> None:
        self.coordinator, self.lock, self.held = node.coordinator, node.lock, node.held
        self.name, self.patience = name, patience

    def acquire(self, keys: Sequence[str]) -> str | None:
        with self.lock:
            if key := self.coordinator.acquire(keys, self.name):
                self.held[self.name] = (key,)
            return key

    def release(self, key: str) -> None:
        with self.lock:
            self.coordinator.release(key, self.name)
            del self.held[self.name]

    def wait(self, keys: Sequence[str], waited: float) -> Collection[str]:
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            with self.lock:
                if free := self.coordinator.exchange(self.name, News({}, {}, frozenset(keys))).free:
                    return free
            time.sleep(0.02)
        return keys


class Waiting:
    """Trials in threads, of which the first to come builds the GAN only once all others wait for it.

    Args:
        storage: of the store.
        dataset: to train on.
        caches: a folder for the copies of each.
        interrupt: called by the builder when all others wait, before it begins.
        patience: seconds for which the others wait without a word from the coordinator.
        by_files: whether they do without a coordinator, by locks of files.
    """

    def __init__(
        self,
        storage: Storage,
        dataset: Dataset,
        caches: Path,
        interrupt: Callable[[], None] = lambda: None,
        patience: float = 600.0,
        by_files: bool = False,
    ) -> None:
        self.node, self.patience = Node(), patience
        self.storage, self.caches, self.interrupt, self.by_files = storage, caches, interrupt, by_files
        self.data = Development.for_search(dataset)
        self.all_wait = threading.Barrier(WAITING + 1)
        self.built: Counter[str] = Counter()

    def trial(self, number: int) -> int:
        """Runs one; returns 1 where it waited for the GAN, else 0."""
        waited: list[tuple[str, ...]] = []

        def report(progress: Progress) -> None:
            if progress.waits_for and progress.stage == "waiting for gan" and not waited:
                waited.append(progress.waits_for)
                self.all_wait.wait(60)
            if (progress.stage, progress.total, progress.artifact) == ("gan", 0, None):
                self.all_wait.wait(60)
                self.interrupt()

        store = Store(self.storage.child("store"), self.caches / f"{number}")
        leases, bounds = self._leases(store, number), Bounds([1, 2], [2, 4])
        executor = Executor(store, leases, self.data, bounds, 0, torch.device("cpu"))
        path = executor.get(tiny_config(), GAN, report)
        with self.node.lock:
            self.built.update({name: work.built for name, work in path.work.items()})
        return len(waited)

    def run(self) -> list[int]:
        """Runs all of them; returns whether each waited for the GAN, as 1 or 0."""
        threading.Thread(target=self.node.speak, daemon=True).start()
        with ThreadPoolExecutor(WAITING + 1) as threads:
            waited = list(threads.map(self.trial, range(WAITING + 1)))
        self.node.over.set()
        return waited

    def _leases(self, store: Store, number: int) -> Leases:
        if store.storage.local is not None and self.by_files:
            return FileLeases(store.storage.local / ".leases", patience=store.storage.patience)
        return CoordinatedLeases(self.node, f"{number}", self.patience)
