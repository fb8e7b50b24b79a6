"""Workers that Ray ends for want of memory: Tune takes them for lost ones, and one line says why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.air.execution import FixedResourceManager
from ray.air.execution._internal.actor_manager import RayActorManager

from tune.execution.memory_monitor import in_words, workers_may_be_ended

ENDED = ray.exceptions.OutOfMemoryError(
    "2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1, ID: 77c8) was "
    "22.71GB used / 23.54GB limit (0.964750)\nOOM kill reason: …\nRefer to the documentation on how to address it."
)


def test_a_worker_that_was_ended_for_want_of_memory_counts_as_lost() -> None:
    """Without this the whole search ends, with a traceback and no word on how to go on."""
    told: list[tuple[str, Exception]] = []
    manager = RayActorManager(resource_manager=FixedResourceManager({"CPU": 1}))
    actor: Any = SimpleNamespace(actor_id=1, _on_error=lambda actor, error: told.append(("actor", error)))
    task: Any = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: told.append(("task", error)))
    manager._cleanup_actor = lambda tracked_actor: None  # type: ignore[method-assign, misc]
    with workers_may_be_ended():
        manager._actor_task_failed(tracked_actor_task=task, exception=ENDED)
    assert [who for who, _ in told] == ["actor", "task"]
    assert all(isinstance(error, ray.exceptions.RayActorError) for _, error in told)
    assert "22.71GB of 23.54GB in use" in str(told[0][1])
    with pytest.raises(RuntimeError, match="unexpected"):  # as Tune is by itself; once it is not, this can go
        manager._actor_task_failed(tracked_actor_task=task, exception=ENDED)


def test_what_ray_says_in_one_line() -> None:
    assert in_words("Traceback\nOSError: [Errno 28] full\n") == "OSError: [Errno 28] full"
    ended = "Ray ended it as the machine's memory ran out, 22.71GB of 23.54GB in use"
    assert in_words(str(ENDED)).startswith(ended)
