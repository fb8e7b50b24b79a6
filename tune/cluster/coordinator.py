"""The coordinator: one Ray actor of a cluster that grants leases, says which are free, and passes on trials' progress.

It is asked by `tune.cluster.line`, once a second by each node, in one message: what the node's trials have to tell,
what they hold and what they wait for. Its own process imports Ray alone.
"""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray

BEAT = 5.0  # seconds at most between two messages of a process that holds a lease
PATIENCE = 30.0  # seconds unheard of, after which a lease is free again
PERIOD = 1.0  # seconds between two messages of a node, while there are not too many of them
LONGEST_PERIOD = 15.0  # half of the patience
BUSY = 0.4  # share of its processor's time that the messages may take; the period grows with what is more
NAMESPACE = "latent-defense"
HEAD = "node:__internal_head__"  # a resource that Ray gives to the head alone, one of it
_NAME = "coordinator"


@dataclass(frozen=True)
class Message:
    """The stage and progress of a trial, for the live view."""

    stage: str
    done: int
    total: int
    since: float  # when the stage began, seconds since 1970
    host: str  # the node that it runs on


Trial = tuple[str, int]  # the channel of a search, and the number


@dataclass(frozen=True)
class News:
    """News of a process, or of all processes of a node.

    Attributes:
        progress: of the trials whose progress has changed; None = the trial is over.
        holds: the keys of all leases that each holder has.
        watched: the keys of all leases that somebody waits for.
    """

    progress: Mapping[Trial, Message | None]
    holds: Mapping[str, Sequence[str]]
    watched: Set[str]


class Answer(NamedTuple):
    """The answer to news: those of the watched leases that nobody holds, and seconds until the next message."""

    free: Collection[str]
    pause: float


class Coordinator:
    """Grants leases and frees those that are not heard of; keeps the progress of trials until the driver asks for it.

    If two processes build one artifact, only time is lost: both write the same content.

    Args:
        restarted: whether it stands in for one that was lost. Then it grants nothing until the holders of leases, of
            which it knows none, have had time for a message.
        clock: seconds that only grow.
        work: seconds of processor time of this process.
    """

    def __init__(
        self,
        restarted: bool = False,
        clock: Callable[[], float] = time.monotonic,
        work: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock, self._work = clock, work
        self._settled = clock() + (2 * BEAT if restarted else 0.0)
        self._holders: dict[str, str] = {}
        self._heard: dict[str, float] = {}  # key → when somebody last said to hold it
        self._progress: dict[str, dict[int, Message | None]] = defaultdict(dict)
        self._pause = PERIOD
        self._measured = clock(), work()

    def exchange(self, source: str, news: News) -> Answer:
        """Takes the news of a process or a node, and answers what it waits for."""
        now = self._clock()
        for (channel, trial), message in news.progress.items():
            self._progress[channel][trial] = message
        for holder, keys in news.holds.items():
            for key in keys:
                if now < self._settled:
                    self._holders.setdefault(key, holder)
                if self._holders.get(key) == holder:
                    self._heard[key] = now
        self._measure(now)
        return Answer([key for key in news.watched if self._is_free(key, now)], self._pause)

    def acquire(self, keys: Sequence[str], holder: str) -> str | None:
        """Grants the first of the leases that is free; None where others hold all of them."""
        now = self._clock()
        for key in keys:
            if self._is_free(key, now) or (now >= self._settled and self._holders[key] == holder):
                self._holders[key], self._heard[key] = holder, now
                return key
        return None

    def release(self, key: str, holder: str) -> None:
        """Frees the lease if `holder` still has it."""
        if self._holders.get(key) == holder:
            del self._holders[key], self._heard[key]

    def progress(self, channel: str) -> dict[int, Message | None]:
        """The progress of a search's trials that has changed since the last call; None for those that are over."""
        return self._progress.pop(channel, {})

    def _is_free(self, key: str, now: float) -> bool:
        return now >= self._settled and (key not in self._holders or now - self._heard[key] >= PATIENCE)

    def _measure(self, now: float) -> None:
        """Once a second, sets the pause by how busy this process was."""
        since, work = self._measured
        if now - since >= PERIOD:
            self._measured = now, self._work()
            wanted = self._pause * (self._measured[1] - work) / (now - since) / BUSY
            self._pause = min(max(PERIOD, wanted), LONGEST_PERIOD)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class _CoordinatorActor(Coordinator):
    """The coordinator as a Ray actor, which Ray starts again where its process was lost."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Ray 2.60 says of its own use of an old name
            super().__init__(ray.get_runtime_context().was_current_actor_reconstructed)

    def node(self) -> str:
        """Ray's id of the node that it runs on."""
        return str(ray.get_runtime_context().get_node_id())


def start_coordinator() -> Any:
    """Starts the coordinator on the cluster's head unless there is one.

    Any other node may go before the cluster does, the driver's too; and a worker's node would not go while it is there.
    """
    return _CoordinatorActor.options(  # type: ignore[attr-defined]
        name=_NAME, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, resources={HEAD: 0.001}
    ).remote()


def coordinator() -> Any:
    """The coordinator of this cluster. Raises ValueError where there is none."""
    return ray.get_actor(_NAME, NAMESPACE)
