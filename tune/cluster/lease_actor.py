"""Leases for storages without file locks: one actor on the cluster that counts heartbeats."""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

BEAT = 5.0  # seconds between a holder's heartbeats
PATIENCE = 30.0  # seconds without a heartbeat after which the lease is free again
_NAME, _NAMESPACE = "leases", "latent-defense"


@ray.remote(num_cpus=0)
class LeaseActor:
    """A Ray actor that grants leases and frees those whose holder sends no heartbeat."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._holders: dict[str, str] = {}
        self._heard: dict[str, float] = {}

    def acquire(self, key: str, holder: str) -> bool:
        """Grants the lease to `holder`; False where another holder with a recent heartbeat has it."""
        self._heard[holder] = time.monotonic()
        other = self._holders.get(key)
        if other not in (None, holder) and time.monotonic() - self._heard[other] < self._patience:
            return False
        self._holders[key] = holder
        return True

    def release(self, key: str, holder: str) -> None:
        """Frees the lease if `holder` still has it."""
        if self._holders.get(key) == holder:
            del self._holders[key]

    def beat(self, holder: str) -> None:
        """Records a heartbeat of a holder."""
        self._heard[holder] = time.monotonic()


def start_lease_actor() -> None:
    """Starts the lease actor on the driver's node unless there is one; on a worker's node it would be lost with it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    LeaseActor.options(  # type: ignore[attr-defined]
        name=_NAME, namespace=_NAMESPACE, lifetime="detached", get_if_exists=True, scheduling_strategy=here
    ).remote()


class ActorLeases:
    """Leases granted by the cluster's `LeaseActor`; each instance is one holder, and sends heartbeats.

    If two processes build one artifact, only time is lost: both write the same content.
    """

    def __init__(self) -> None:
        self._actor: Any = ray.get_actor(_NAME, _NAMESPACE)
        self._holder = uuid.uuid4().hex
        self._held: set[str] = set()
        threading.Thread(target=self._keep_alive, daemon=True).start()

    def acquire(self, key: str) -> bool:
        """Takes the lease; False where another process holds it."""
        if key in self._held or not ray.get(self._actor.acquire.remote(key, self._holder)):
            return False
        self._held.add(key)
        return True

    def release(self, key: str) -> None:
        """Frees the lease."""
        self._held.discard(key)
        ray.get(self._actor.release.remote(key, self._holder))

    def _keep_alive(self) -> None:
        while True:
            time.sleep(BEAT)
            with suppress(ray.exceptions.RayError):  # the cluster is going down, and the trial with it
                if self._held:
                    self._actor.beat.remote(self._holder)
