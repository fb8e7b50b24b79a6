"""Leases for storages without file locks: one actor on the cluster that counts heartbeats."""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

BEAT = 5.0  # seconds between a holder's signs of life
PATIENCE = 30.0  # seconds without one after which the lease is free again
_NAME, _NAMESPACE = "leases", "latent-defense"


@ray.remote(num_cpus=0)
class LeaseKeeper:
    """Who holds which lease, and when each holder was last heard of."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._holders: dict[str, str] = {}
        self._heard: dict[str, float] = {}

    def acquire(self, key: str, holder: str) -> bool:
        """Gives the lease to `holder` unless another, who was heard of lately, has it."""
        self._heard[holder] = time.monotonic()
        other = self._holders.get(key)
        if other not in (None, holder) and time.monotonic() - self._heard[other] < self._patience:
            return False
        self._holders[key] = holder
        return True

    def release(self, key: str, holder: str) -> None:
        """Takes it back; a lease that another has taken over meanwhile stays with that one."""
        if self._holders.get(key) == holder:
            del self._holders[key]

    def beat(self, holder: str) -> None:
        """Hears that a holder lives."""
        self._heard[holder] = time.monotonic()


def start_keeper() -> None:
    """Starts the cluster's keeper on the driver's node, unless there is one: on a worker it would go with that."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    LeaseKeeper.options(  # type: ignore[attr-defined]
        name=_NAME, namespace=_NAMESPACE, lifetime="detached", get_if_exists=True, scheduling_strategy=here
    ).remote()


class ActorLeases:
    """Leases kept by the cluster's `LeaseKeeper`; each instance is one holder, heard of while its process lives.

    Two builders at work on one artifact do no harm beside the lost time: it has the same content whoever writes it.
    """

    def __init__(self) -> None:
        self._keeper: Any = ray.get_actor(_NAME, _NAMESPACE)
        self._holder = uuid.uuid4().hex
        self._held: set[str] = set()
        threading.Thread(target=self._keep_alive, daemon=True).start()

    def acquire(self, key: str) -> bool:
        """Takes the lease; False where somebody else holds it."""
        if key in self._held or not ray.get(self._keeper.acquire.remote(key, self._holder)):
            return False
        self._held.add(key)
        return True

    def release(self, key: str) -> None:
        """Gives it back."""
        self._held.discard(key)
        ray.get(self._keeper.release.remote(key, self._holder))

    def _keep_alive(self) -> None:
        while True:
            time.sleep(BEAT)
            with suppress(ray.exceptions.RayError):  # the cluster is going down, and the trial with it
                if self._held:
                    self._keeper.beat.remote(self._holder)
