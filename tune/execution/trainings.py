"""Trainings that are no trials, side by side: their results, and how the live view shows them.

Their workers import what stands here, and so no Ray Tune, which takes seconds.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

import ray

from tune.cluster.coordinator import Message
from tune.monitor.progress import ProgressFeed
from tune.monitor.terminal import TrialView

LOOK = 0.5  # seconds between two looks at what trials and trainings say


def results_of(
    tasks: Mapping[Any, int],
    feed: ProgressFeed,
    check: Callable[[], None],
    show: Callable[[dict[int, Any]], None],
    get: Callable[[Any], Any] = ray.get,
) -> dict[int, dict[str, Any]]:
    """The result of every task, by its number, as `get` takes it; `show` is called often, with those that are there.

    Where `get` returns another task, that one's result is waited for in its place.
    """
    results: dict[int, dict[str, Any]] = {}
    left = dict(tasks)
    while left:
        check()
        done, _ = ray.wait(list(left), timeout=LOOK)
        for task in done:
            number, found = left.pop(task), get(task)
            if isinstance(found, ray.ObjectRef):
                left[found] = number
            else:
                results[number] = found
        feed.look()
        show(results)
    return results


def seed_view(
    number: int, result: Mapping[str, Any] | None, message: Message | None, began: float, name: str
) -> TrialView:
    """A training that is no trial, as the live view shows it."""
    if result is not None and "failed" in result:
        return TrialView(number, name, "failed", error=result["failed"])
    if result is not None:
        return TrialView(number, name, "finished", metrics=result["metrics"])
    shown = TrialView(number, name, "running" if message else "waiting", started=began)
    return running_view(shown, message) if message else shown


def running_view(shown: TrialView, message: Message) -> TrialView:
    """A trial or a training as the live view shows it, with its latest progress."""
    return TrialView(
        shown.number,
        shown.name,
        "running",
        message.stage,
        message.done,
        message.total,
        shown.started,
        message.since,
        host="" if message.host == socket.gethostname() else message.host,
        promoted=shown.promoted,
    )
