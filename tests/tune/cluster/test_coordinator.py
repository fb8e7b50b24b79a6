"""The coordinator and the lines to it, without Ray: who holds what, who is told what, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from tune.cluster.coordinator import BEAT, BUSY, LONGEST_PERIOD, PATIENCE, PERIOD, Coordinator, Message, News
from tune.cluster.line import Line

NOTHING = News({}, {}, frozenset())
EPOCH = Message("unet", 3, 20, 0.0, "node-7")


class Clock:
    """A clock, and the processor time of a process that is never busy, both set by hand."""

    now = 100.0
    work = 0.0

    def coordinator(self, **options: Any) -> Coordinator:
        return Coordinator(clock=lambda: self.now, work=lambda: self.work, **options)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def watching(*keys: str) -> News:
    return News({}, {}, frozenset(keys))


def test_a_lease_has_one_holder(clock: Clock) -> None:
    coordinator = clock.coordinator()
    assert coordinator.acquire(["a", "b"], "one") == "a"
    assert coordinator.acquire(["a", "b"], "other") == "b"
    assert coordinator.acquire(["a", "b"], "third") is None
    coordinator.release("a", "other")  # it is not the other's
    assert coordinator.acquire(["a"], "third") is None
    coordinator.release("a", "one")
    assert coordinator.acquire(["a"], "third") == "a"


def test_a_request_that_ray_repeats_is_granted_again(clock: Clock) -> None:
    coordinator = clock.coordinator()
    assert [coordinator.acquire(["a"], "one") for _ in range(2)] == ["a", "a"]


def test_who_waits_is_told_what_nobody_holds(clock: Clock) -> None:
    coordinator = clock.coordinator()
    coordinator.acquire(["a"], "one")
    assert list(coordinator.exchange("node", watching("a")).free) == []
    coordinator.release("a", "one")
    assert list(coordinator.exchange("node", watching("a")).free) == ["a"]


def test_who_is_not_heard_of_loses_the_lease(clock: Clock) -> None:
    coordinator = clock.coordinator()
    coordinator.acquire(["silent"], "dead")
    coordinator.acquire(["kept"], "alive")
    for _ in range(int(PATIENCE / BEAT)):
        clock.now += BEAT
        coordinator.exchange("node", News({}, {"alive": ["kept"]}, frozenset()))
    assert list(coordinator.exchange("node", watching("silent", "kept")).free) == ["silent"]
    assert coordinator.acquire(["silent", "kept"], "other") == "silent"
    coordinator.release("silent", "dead")  # comes too late, and takes nothing from the other
    assert coordinator.acquire(["silent"], "third") is None


def test_one_that_was_lost_learns_who_holds_what_before_it_grants(clock: Clock) -> None:
    coordinator = clock.coordinator(restarted=True)
    assert coordinator.acquire(["a"], "other") is None
    assert list(coordinator.exchange("node", watching("a")).free) == []
    clock.now += BEAT
    coordinator.exchange("node", News({}, {"one": ["a"]}, frozenset()))
    clock.now += BEAT
    assert coordinator.acquire(["a", "b"], "other") == "b"
    coordinator.release("a", "one")
    assert coordinator.acquire(["a"], "other") == "a"


def test_two_searches_share_leases_and_not_progress(clock: Clock) -> None:
    coordinator = clock.coordinator()
    coordinator.exchange("node", News({("one", 3): EPOCH, ("two", 3): None}, {"one": ["a"]}, frozenset()))
    assert coordinator.progress("one") == {3: EPOCH}
    assert coordinator.progress("one") == {}  # only what has changed
    assert coordinator.progress("two") == {3: None}


def test_the_period_grows_until_half_of_a_core_is_enough(clock: Clock) -> None:
    coordinator, cost, nodes = clock.coordinator(), 0.0005, 10_000
    pause = PERIOD
    for _ in range(5):
        clock.now += pause
        clock.work += cost * nodes
        pause = coordinator.exchange("node", NOTHING).pause
    assert cost * nodes / pause == pytest.approx(BUSY)
    clock.now, clock.work = clock.now + pause, clock.work + 60
    assert coordinator.exchange("node", NOTHING).pause == LONGEST_PERIOD
    for _ in range(3):
        clock.now += pause
        pause = coordinator.exchange("node", NOTHING).pause
    assert pause == PERIOD


@pytest.fixture
def line(clock: Clock) -> Line:
    return Line(lambda: None, lambda: clock.now)


def test_a_line_says_only_what_has_changed(line: Line) -> None:
    line.tell(("one", 3), EPOCH)
    assert line.gather() == News({("one", 3): EPOCH}, {}, frozenset())
    line.tell(("one", 3), EPOCH)
    assert line.gather() is None
    line.tell(("one", 3), None)
    assert line.gather() == News({("one", 3): None}, {}, frozenset())


def test_a_line_repeats_what_is_held(line: Line, clock: Clock) -> None:
    line.hold("one", ["a"])
    assert line.gather() == News({}, {"one": ("a",)}, frozenset())
    clock.now += BEAT - 1
    assert line.gather() is None
    clock.now += 1
    assert line.gather() == News({}, {"one": ("a",)}, frozenset())
    line.hold("one", [])
    assert line.gather() == NOTHING
    clock.now += 3 * BEAT
    assert line.gather() is None


def test_a_relay_speaks_for_all_of_its_node(line: Line, clock: Clock) -> None:
    coordinator = clock.coordinator()
    for key in ("a", "b"):
        coordinator.acquire([key], "elsewhere")
    for number in range(4):
        said = News({("one", number): EPOCH}, {f"{number}": [f"k{number}"]}, frozenset(["a", "b"]))
        assert not line.relay(f"trial-{number}", said).free
    news = line.gather()
    assert news is not None
    assert (len(news.progress), len(news.holds), news.watched) == (4, 4, {"a", "b"})
    coordinator.release("a", "elsewhere")
    line.hear(coordinator.exchange("relay", news))
    assert line.relay("trial-0", watching("a")).free == {"a"}
    assert not line.relay("trial-1", watching("b")).free


def test_a_relay_forgets_who_is_silent(line: Line, clock: Clock) -> None:
    line.relay("dead", News({}, {"dead": ["a"]}, frozenset(["b"])))
    assert line.gather() == News({}, {"dead": ("a",)}, frozenset(["b"]))
    clock.now += 3 * BEAT
    assert line.gather() == NOTHING
