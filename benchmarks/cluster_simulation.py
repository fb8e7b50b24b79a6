"""A cluster in virtual time while every trial needs one projection: the real coordinator and lines, costs as measured.

Every trial looks for the parts, builds one that nobody builds, and waits for the others, until it has all of them.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tune.cluster.coordinator import Coordinator, Message, News
from tune.cluster.line import Line

WINDOW = 10.0  # seconds, of which the busiest are told
BEFORE = 30.0  # seconds for which trials arrive: the nodes of a cluster do not start at one moment


@dataclass(frozen=True)
class Prices:
    """Measured costs.

    Attributes:
        exchange: seconds of the coordinator's processor time per message of a node.
        lease: the same per call that asks for a lease or frees one.
        look: requests to the storage of a look that finds nothing.
        fetch: requests for one part, of a node's first process.
        parts: of the projection.
        seconds: of building one.
    """

    exchange: float
    lease: float
    look: int
    fetch: int
    parts: int
    seconds: float


@dataclass
class Trial:
    """A trial of a node, and the parts that it still lacks."""

    name: str
    lacks: list[str]
    builds: str | None = None


@dataclass
class Node:
    """A node with its relay."""

    name: str
    line: Line
    trials: list[Trial]
    copies: set[str] = field(default_factory=set)


class Simulation:
    """One projection on `nodes` nodes of `each` trials."""

    def __init__(self, prices: Prices, nodes: int, each: int) -> None:
        self.now, self.work, self.prices = 0.0, 0.0, prices
        self.coordinator = Coordinator(clock=lambda: self.now, work=lambda: self.work)
        keys = [f"{'5' * 20}-{part:03d}" for part in range(prices.parts)]
        self.nodes = [
            Node(f"{node}", Line(lambda: None, lambda: self.now), [Trial(f"{node}/{n}", keys[:]) for n in range(each)])
            for node in range(nodes)
        ]
        self.random = random.Random(0)
        self.events: list[tuple[float, int, Iterator[float]]] = []
        self.busy: Counter[int] = Counter()  # window → seconds of the coordinator's processor
        self.looks: Counter[int] = Counter()  # window → requests that found nothing, and listings
        self.released: dict[str, float] = {}
        self.fetched = 0
        self.delays: list[float] = []
        self.pauses: list[float] = []

    def run(self) -> dict[str, float]:
        """Runs to the end; the share of its processor that the coordinator needs, requests, pauses, delays."""
        for node in self.nodes:
            start = self.random.uniform(0, BEFORE)
            self._push(start, self._speak(node))
            for trial in node.trials:
                self._push(start, self._live(node, trial))
        while self.events:
            self.now, _, process = heapq.heappop(self.events)
            if (pause := next(process, None)) is not None:
                self._push(self.now + pause, process)
        return {
            "coordinator": max(self.busy.values()) / WINDOW,
            "looks per second": max(self.looks.values()) / WINDOW,
            "fetches": self.fetched,
            "period": max(self.pauses),
            "delay": sum(self.delays) / max(1, len(self.delays)),
            "seconds": self.now,
        }

    def _push(self, at: float, process: Iterator[float]) -> None:
        heapq.heappush(self.events, (at, self.random.getrandbits(60), process))

    def _spend(self, seconds: float) -> None:
        self.work += seconds
        self.busy[int(self.now / WINDOW)] += seconds  # type: ignore[assignment]

    def _live(self, node: Node, trial: Trial) -> Iterator[float]:
        """A trial: it builds as long as there is something that nobody builds; `_speak` tells it the rest."""
        while trial.lacks:
            self.looks[int(self.now / WINDOW)] += self.prices.look
            self._take(node, trial, [key for key in trial.lacks if key in self.released])
            self._spend(self.prices.lease)
            trial.builds = self.coordinator.acquire(trial.lacks, trial.name)
            if trial.builds is None:
                return
            yield self.prices.seconds * self.random.uniform(0.9, 1.1)
            self._spend(self.prices.lease)
            self.coordinator.release(trial.builds, trial.name)
            self.released[trial.builds] = self.now
            node.copies.add(trial.builds)
            trial.lacks.remove(trial.builds)
            trial.builds = None

    def _take(self, node: Node, trial: Trial, keys: list[str]) -> None:
        """Reads parts; the first process of a node fetches them."""
        for key in keys:
            if key not in node.copies:
                self.fetched += self.prices.fetch
                node.copies.add(key)
            trial.lacks.remove(key)

    def _speak(self, node: Node) -> Iterator[float]:
        """A relay: the news of its trials, and what they are told."""
        while any(trial.lacks for trial in node.trials):
            for trial in node.trials:
                progress = Message("projection_train", int(self.now), 500, 0.0, node.name)
                holds: dict[str, Any] = {trial.name: (trial.builds,)} if trial.builds else {}
                watched = frozenset() if trial.builds else frozenset(trial.lacks)
                line_news = News({("search", hash(trial.name)): progress} if trial.builds else {}, holds, watched)
                node.line.relay(trial.name, line_news)
            pause = 1.0
            if (news := node.line.gather()) is not None:
                self._spend(self.prices.exchange)
                answer = self.coordinator.exchange(node.name, news)
                node.line.hear(answer)
                pause = answer.pause
                free = set(answer.free)
                for trial in node.trials:
                    told = [] if trial.builds else [key for key in trial.lacks if key in free and key in self.released]
                    self.delays += [self.now - self.released[key] for key in told]
                    self._take(node, trial, told)
            self.pauses.append(pause)
            yield pause
