"""Processor time of the actors that every running trial is heard by: the coordinator, and the relay of a node."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from tune.cluster.coordinator import Answer, Message, News, start_coordinator
from tune.cluster.line import Line
from tune.monitor.progress import ProgressFeed

CALLS = 2000


@ray.remote(num_cpus=0)
class Nodes:
    """Many nodes' relays in one process."""

    def __init__(self, listener: Any, names: Sequence[str]) -> None:
        self._listener, self._names = listener, names

    def speak(self, messages: int, watched: int) -> None:
        """Sends messages as fast as they are answered, ten under way at a time."""
        keys = frozenset(f"{'5' * 20}-{part:03d}" for part in range(watched))
        for number in range(messages // 10):
            said = []
            for index in range(10):
                name = self._names[(10 * number + index) % len(self._names)]
                epoch = Message("unet", number, 20, 0.0, "ip-172-31-0-1")
                progress = {} if watched else {("bench", hash((name, trial))): epoch for trial in range(4)}
                holds = {} if watched else {f"{name}-{trial}": (f"{name}-{trial}",) for trial in range(4)}
                said.append(self._listener.exchange.remote(name, News(progress, holds, keys)))
            ray.get(said)

    def live(self, seconds: float) -> int:
        """Speaks for each node as often as it is told to; returns how many messages that was."""
        count, began, end = 0, time.monotonic(), time.monotonic() + seconds
        turns = [(began + index / len(self._names), name) for index, name in enumerate(self._names)]
        while turns[0][0] < end:
            at, name = turns.pop(0)
            time.sleep(max(0.0, at - time.monotonic()))
            epoch = Message("unet", count, 20, 0.0, "ip-172-31-0-1")
            news = News({("bench", hash((name, trial))): epoch for trial in range(4)}, {}, frozenset())
            answer: Answer = ray.get(self._listener.exchange.remote(name, news))
            turns.append((max(at + answer.pause, time.monotonic()), name))
            count += 1
        return count


@ray.remote(num_cpus=0)
class BareRelay:
    """A relay that speaks to nobody."""

    def __init__(self) -> None:
        self._line = Line(lambda: None)

    def exchange(self, source: str, news: News) -> Answer:
        return self._line.relay(source, news)


def processor_time(actor: Any) -> float:
    """Seconds of processor time of an actor's process so far."""
    return float(ray.get(actor.__ray_call__.remote(lambda self: time.process_time())))


def per_call(actor: Any, work: Callable[[], object], calls: int) -> float:
    """Seconds of processor time of an actor's process per call."""
    before = processor_time(actor)
    work()
    return (processor_time(actor) - before) / calls


def of_actors() -> dict[str, float]:
    """Processor time of the coordinator and of a relay per message and call, from four processes at once."""
    coordinator, relay = start_coordinator(), BareRelay.remote()  # type: ignore[attr-defined]
    senders = [Nodes.remote(coordinator, [f"{n}-{i}" for i in range(64)]) for n in range(4)]  # type: ignore[attr-defined]
    leaves = [Nodes.remote(relay, [f"{n}"]) for n in range(4)]  # type: ignore[attr-defined]

    def speak(who: Sequence[Any], watched: int) -> None:
        ray.get([sender.speak.remote(CALLS // 4, watched) for sender in who])

    def leases() -> None:
        for call in range(CALLS // 100):
            ray.get([coordinator.acquire.remote([f"{call}-{number}"], f"{number}") for number in range(100)])

    speak([*senders, *leaves], 0)  # they start
    costs = {
        "exchange_seconds": per_call(coordinator, lambda: speak(senders, 0), CALLS),
        "waiting_seconds": per_call(coordinator, lambda: speak(senders, 108), CALLS),
        "relay_seconds": per_call(relay, lambda: speak(leaves, 0), CALLS),
        "lease_seconds": per_call(coordinator, leases, CALLS),
    }
    return {**costs, "progress_seconds": of_progress(coordinator)}


def of_progress(coordinator: Any, trials: int = 4096, rounds: int = 10) -> float:
    """Processor time of this process per trial whose progress it takes."""
    feed, spent = ProgressFeed(), 0.0
    for number in range(rounds):
        epoch = Message("unet", number, 20, 0.0, "ip-172-31-0-1")
        news = News({(feed.channel.name, trial): epoch for trial in range(trials)}, {}, frozenset())
        ray.get(coordinator.exchange.remote("bench", news))
        feed._asked, before = 0.0, time.process_time()
        feed.look()
        while not feed.latest or feed.latest[0].done < number:
            feed.look()
            time.sleep(0.005)
        spent += time.process_time() - before
    return spent / rounds / trials


def real_run(nodes: int, seconds: float = 20.0) -> str:
    """The coordinator while eight processes speak for as many nodes, as often as it tells them to."""
    coordinator = start_coordinator()
    names = [f"{nodes}-{n}" for n in range(nodes)]
    senders = [Nodes.remote(coordinator, names[n::8]) for n in range(min(8, nodes))]  # type: ignore[attr-defined]
    ray.get([sender.speak.remote(10, 0) for sender in senders])
    before = processor_time(coordinator)
    messages = sum(ray.get([sender.live.remote(seconds) for sender in senders]))
    busy = (processor_time(coordinator) - before) / seconds
    pause = ray.get(coordinator.exchange.remote("bench", News({}, {}, frozenset()))).pause
    return f"{nodes} nodes: {messages / seconds:.0f} messages/s, coordinator {busy:.0%} of a core, period {pause:.1f} s"
