"""The Ray actor that holds the latest progress of running trials; its own process imports Ray alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@dataclass(frozen=True)
class Message:
    """The stage and progress of a trial, for the live view."""

    stage: str
    done: int
    total: int
    since: float  # when the stage began, seconds since 1970
    host: str  # the node that it runs on


@ray.remote(num_cpus=0)
class ProgressActor:
    """A Ray actor that holds the latest progress of every running trial."""

    def __init__(self) -> None:
        self._messages: dict[int, Message] = {}

    def put(self, trial: int, message: Message | None) -> None:
        """Replaces a trial's progress; None removes it."""
        if message is None:
            self._messages.pop(trial, None)
        else:
            self._messages[trial] = message

    def all(self) -> dict[int, Message]:
        """The latest progress of every running trial."""
        return self._messages


def start_progress_actor() -> Any:
    """Starts the actor on the driver's node; on a worker's node it would be lost with that node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ProgressActor.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
