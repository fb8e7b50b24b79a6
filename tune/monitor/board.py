"""The board on which running trials leave their last word for the live view; its own process imports Ray alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@dataclass(frozen=True)
class Message:
    """Where a trial is, for the live view."""

    stage: str
    done: int
    total: int
    since: float  # when the stage began, seconds since 1970
    host: str  # the node that it runs on


@ray.remote(num_cpus=0)
class Board:
    """Holds the last word of every running trial."""

    def __init__(self) -> None:
        self._messages: dict[int, Message] = {}

    def put(self, trial: int, message: Message | None) -> None:
        """Replaces a trial's word; None removes it."""
        if message is None:
            self._messages.pop(trial, None)
        else:
            self._messages[trial] = message

    def all(self) -> dict[int, Message]:
        """Every running trial's word."""
        return self._messages


def new_board() -> Any:
    """A board on the driver's node: on a worker it would go with that."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Board.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
