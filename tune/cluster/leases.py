"""Leases for storages without file locks: the cluster's coordinator grants them."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

import ray

from tune.cluster import coordinator as coordinating
from tune.cluster.line import line
from tune.storage.patience import PATIENCE, patiently

FIRST, LONGEST = 5.0, 60.0  # seconds without a word, after which the store is looked into all the same


class ClusterLeases:
    """Leases of one holder; they are kept as long as its process says so.

    Attributes:
        patience: seconds for which a coordinator that is lost, or does not answer, is asked again.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._coordinator: Any = None
        self._holder = uuid.uuid4().hex
        self._held: set[str] = set()

    @patiently
    def acquire(self, keys: Sequence[str]) -> str | None:
        """Takes the first lease that is free, in one call; None where other processes hold all of them.

        Raises:
            TimeoutError: the coordinator is lost, and has not come back.
        """
        wanted = [key for key in keys if key not in self._held]
        try:
            key: str | None = self._ask("acquire", wanted)
        except (ray.exceptions.RayError, ValueError) as error:  # no failure of the trial that asks
            reason = str(error).strip().splitlines()[-1]
            said = f"expected an answer of the cluster's coordinator, found {reason}"
            raise TimeoutError(errno.ETIMEDOUT, said) from error
        if key is not None:
            self._held.add(key)
            line().hold(self._holder, sorted(self._held))
        return key

    def release(self, key: str) -> None:
        """Frees the lease."""
        self._held.discard(key)
        line().hold(self._holder, sorted(self._held))
        with suppress(ray.exceptions.RayError, ValueError):  # the coordinator frees what it is not told of
            self._ask("release", key)

    def _ask(self, question: str, about: Any) -> Any:
        """The coordinator's answer; one that does not give any is looked for again the next time."""
        try:
            self._coordinator = self._coordinator or coordinating.coordinator()
            asked = getattr(self._coordinator, question).remote(about, self._holder)
            return ray.get(asked, timeout=coordinating.PATIENCE)
        except (ray.exceptions.RayError, ValueError):
            self._coordinator = None
            raise

    def wait(self, keys: Sequence[str], waited: float) -> Collection[str]:
        """Waits until the coordinator tells of leases that nobody holds; after a minute without a word, all may be.

        The first time it is seconds: who waits for longer than those can offer its share of the machine to others.
        """
        return line().wait(self._holder, keys, LONGEST if waited else FIRST) or keys
