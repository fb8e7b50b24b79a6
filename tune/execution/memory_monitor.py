"""Workers that Ray ends where the memory of a machine runs out: lost like any other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.air.execution._internal.actor_manager import RayActorManager

_SIZES = re.compile(r"low on memory.*was ([\d.]+ ?\w+) used / ([\d.]+ ?\w+) limit", re.DOTALL)


def in_words(said: str) -> str:
    """The last line of what Ray says of an error; of a worker that it ended for want of memory, what was there."""
    sizes = _SIZES.search(said)
    if sizes:
        found = f"{sizes[1]} of {sizes[2]} in use"
        return f"Ray ended it as the machine's memory ran out, {found}; run fewer trials at once (--concurrent)"
    return said.strip().rpartition("\n")[2]


@contextmanager
def workers_may_be_ended() -> Iterator[None]:
    """Within the block Ray Tune tries a trial again whose worker was ended for want of memory, as one that crashed.

    By itself it ends all trials, `Caught unexpected exception`: it knows errors that say that an actor is gone.
    """
    plain = RayActorManager._actor_task_failed

    def failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ray.exceptions.OutOfMemoryError):
            exception = ray.exceptions.RayActorError(error_msg=in_words(str(exception)))
        plain(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed  # type: ignore[method-assign]
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = plain  # type: ignore[method-assign]
