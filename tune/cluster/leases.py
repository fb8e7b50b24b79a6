"""Leases for storages without file locks: the cluster's coordinator grants them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence

import ray

from tune.cluster.coordinator import coordinator
from tune.cluster.line import line

FIRST, LONGEST = 5.0, 60.0  # seconds without a word, after which the store is looked into all the same


class ClusterLeases:
    """Leases of one holder; they are kept as long as its process says so."""

    def __init__(self) -> None:
        self._coordinator, self._line = coordinator(), line()
        self._holder = uuid.uuid4().hex
        self._held: set[str] = set()

    def acquire(self, keys: Sequence[str]) -> str | None:
        """Takes the first lease that is free, in one call; None where other processes hold all of them."""
        wanted = [key for key in keys if key not in self._held]
        key: str | None = ray.get(self._coordinator.acquire.remote(wanted, self._holder))
        if key is not None:
            self._held.add(key)
            self._line.hold(self._holder, sorted(self._held))
        return key

    def release(self, key: str) -> None:
        """Frees the lease."""
        self._held.discard(key)
        self._line.hold(self._holder, sorted(self._held))
        ray.get(self._coordinator.release.remote(key, self._holder))

    def wait(self, keys: Sequence[str], waited: float) -> Collection[str]:
        """Waits until the coordinator tells of leases that nobody holds; after a minute without a word, all may be.

        The first time it is seconds: who waits for longer than those can offer its share of the machine to others.
        """
        return self._line.wait(self._holder, keys, LONGEST if waited else FIRST) or keys
