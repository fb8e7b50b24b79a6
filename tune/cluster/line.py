"""The line of a process and its node to the coordinator: once a second one message.

    trial ──┐
    trial ──┼── relay of the node ──┐
    trial ──┘                       ├── coordinator ◀── driver
            trials of its own node ─┘

A relay is started by the first trial of a node and ends with it: nothing is kept there that is not said again.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import cache
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune.cluster.coordinator import BEAT, NAMESPACE, PATIENCE, PERIOD, Answer, Message, News, Trial, coordinator


class _Statement(NamedTuple):
    """The leases of a process."""

    holds: Mapping[str, Sequence[str]]
    watched: Set[str]


class Line:
    """Says what has changed and what is waited for, as often as the coordinator wants to hear it.

    A message that does not arrive is said again; a relay or a coordinator that is gone is looked for again.

    Args:
        listener: finds the actor to speak to, whose `exchange` is the coordinator's. May raise ValueError.
        clock: seconds that only grow.
    """

    def __init__(self, listener: Callable[[], Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._listener, self._clock = listener, clock
        self._found: Any = None
        self._name = uuid.uuid4().hex
        self._changed = threading.Condition()
        self._progress: dict[Trial, Message] = {}
        self._news: dict[Trial, Message | None] = {}
        self._holds: dict[str, Sequence[str]] = {}
        self._watched: dict[str, Set[str]] = {}
        self._others: dict[str, tuple[_Statement, float]] = {}  # and when they were heard
        self._said, self._spoke = _Statement({}, frozenset()), 0.0
        self._free: Set[str] = frozenset()
        self._pause = PERIOD

    def tell(self, trial: Trial, message: Message | None) -> None:
        """Sets a trial's progress; None where it is over."""
        with self._changed:
            if self._progress.get(trial) != message:
                self._news[trial] = message
            if message is None:
                self._progress.pop(trial, None)
            else:
                self._progress[trial] = message

    def hold(self, holder: str, keys: Sequence[str]) -> None:
        """Sets the leases that a holder has."""
        with self._changed:
            self._holds[holder] = keys
            if not keys:
                del self._holds[holder]

    def wait(self, holder: str, keys: Collection[str], seconds: float) -> Set[str]:
        """Waits until nobody holds one of the leases; returns those that nobody holds, none after `seconds`."""
        with self._changed:
            self._watched[holder] = frozenset(keys)
            self._free = self._free - self._watched[holder]  # of before
            self._changed.wait_for(lambda: self._free & self._watched[holder], seconds)
            return self._free & self._watched.pop(holder)

    def relay(self, source: str, news: News) -> Answer:
        """Takes the news of another process, to be said with the next message; answers from the last answer."""
        with self._changed:
            self._news.update(news.progress)
            self._others[source] = _Statement(news.holds, news.watched), self._clock()
            return Answer(self._free & news.watched, PERIOD)

    def start(self) -> Line:
        """Begins to speak, in a thread of its own that ends with Ray."""
        threading.Thread(target=self._run, name="line", daemon=True).start()
        return self

    def _run(self) -> None:
        while True:
            time.sleep(self._pause)
            if not ray.is_initialized():
                return
            news = self.gather()
            if news is None:
                continue
            try:
                self._found = self._found or self._listener()
                answer: Answer = ray.get(self._found.exchange.remote(self._name, news), timeout=PATIENCE)
            except (ray.exceptions.RayError, ValueError):  # lost, or not there yet
                self._found = None
                with self._changed:
                    self._news = {**news.progress, **self._news}
            else:
                self.hear(answer)

    def gather(self) -> News | None:
        """News to be said now; None where there are none, and the last message was not long ago."""
        now = self._clock()
        with self._changed:
            self._others = {name: said for name, said in self._others.items() if now - said[1] < 3 * BEAT}
            all_said = [_Statement(self._holds, frozenset().union(*self._watched.values()))]
            all_said += [statement for statement, _ in self._others.values()]
            holds = {holder: tuple(keys) for said in all_said for holder, keys in said.holds.items()}
            said = _Statement(holds, frozenset().union(*(said.watched for said in all_said)))
            quiet = not self._news and not said.watched and said == self._said
            if quiet and (not holds or now - self._spoke < BEAT):
                return None
            news, self._news = self._news, {}
            self._said, self._spoke = said, now
            return News(news, *said)

    def hear(self, answer: Answer) -> None:
        """Takes the answer to what was said, and wakes whoever waited for it."""
        with self._changed:
            self._free, self._pause = frozenset(answer.free), answer.pause
            self._changed.notify_all()


@ray.remote(num_cpus=0)
class _Relay:
    """Gathers what the processes of its node have to say."""

    def __init__(self) -> None:
        self._line = Line(coordinator).start()

    def exchange(self, source: str, news: News) -> Answer:
        """As the coordinator's."""
        return self._line.relay(source, news)


def line() -> Line:
    """The line of this process."""
    return _line(ray.get_runtime_context().get_worker_id())


@cache
def _line(worker: str) -> Line:
    return Line(_nearest).start()


def _nearest() -> Any:
    """The coordinator on its own node, elsewhere the node's relay, which is started unless there is one.

    Its owner is this process: Ray's autoscaler would not end a node on which a detached actor lives.
    """
    here, found = ray.get_runtime_context().get_node_id(), coordinator()
    if ray.get(found.node.remote()) == here:
        return found
    place = NodeAffinitySchedulingStrategy(here, soft=False)
    return _Relay.options(  # type: ignore[attr-defined]
        name=f"relay-{here}", namespace=NAMESPACE, get_if_exists=True, scheduling_strategy=place
    ).remote()
