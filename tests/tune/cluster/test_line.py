"""The real actors, killed: what was held is still held, and what is new arrives."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from tests.tune.tiny_search import PATIENCE
from tune.cluster.coordinator import NAMESPACE, Message, coordinator, start_coordinator
from tune.cluster.leases import ClusterLeases
from tune.cluster.line import Line, _Relay
from tune.monitor.progress import ProgressFeed
from tune.storage.outage import outage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300 * PATIENCE)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray on this machine, and its coordinator."""
    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
    start_coordinator()
    yield
    ray.shutdown()


def kill(actor: Any) -> None:
    """kill -9 of an actor's process."""
    os.kill(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Waits for something to be true, and returns it."""
    end = time.monotonic() + seconds * PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def epoch(number: int) -> Message:
    return Message("unet", number, 20, 0.0, "node-7")


def heard(feed: ProgressFeed, trial: int, message: Message) -> bool:
    feed.look()
    return feed.latest.get(trial) == message


def test_a_killed_coordinator_takes_no_lease_and_no_news_with_it() -> None:
    one, other, feed = ClusterLeases(), ClusterLeases(), ProgressFeed()
    assert one.acquire(["a"]) == "a"
    feed.channel.tell(3, epoch(1))
    until(lambda: heard(feed, 3, epoch(1)))
    kill(coordinator())
    feed.channel.tell(3, epoch(2))
    assert until(lambda: other.acquire(["a", "b"])) == "b"
    until(lambda: heard(feed, 3, epoch(2)))
    one.release("a")
    assert list(other.wait(["a"], 0.0)) == ["a"]
    assert other.acquire(["a"]) == "a"


def test_a_lease_is_asked_for_again_where_the_coordinator_is_gone_for_good() -> None:
    leases, other = ClusterLeases(), ClusterLeases(patience=0.0)
    assert leases.acquire(["x"]) == "x"
    ray.kill(coordinator())
    with pytest.raises(TimeoutError, match="expected an answer of the cluster's coordinator") as caught:
        other.acquire(["c"])
    assert outage(caught.value)  # no trial's own failure
    leases.release("x")
    threading.Timer(1.0, start_coordinator).start()
    assert leases.acquire(["c"]) == "c"
    leases.release("c")


def relay() -> Any:
    """The relay of this node, which does without where the coordinator is."""
    return _Relay.options(name="relay", namespace=NAMESPACE, get_if_exists=True).remote()  # type: ignore[attr-defined]


def test_a_killed_relay_is_replaced() -> None:
    line, feed = Line(relay).start(), ProgressFeed()
    held = ray.get(coordinator().acquire.remote(["held"], "one"))
    line.hold("one", [held])
    line.tell((feed.channel.name, 5), epoch(1))
    until(lambda: heard(feed, 5, epoch(1)))
    kill(relay())
    line.tell((feed.channel.name, 5), epoch(2))
    until(lambda: heard(feed, 5, epoch(2)))
    assert ray.get(coordinator().acquire.remote(["held"], "other")) is None
    ray.get(coordinator().release.remote("held", "one"))
    assert line.wait("waiting", ["held"], 60) == {"held"}
