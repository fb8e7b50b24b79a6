"""What the allocator keeps, work spread over threads, and a captured step, which is the step."""

from __future__ import annotations

import platform
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from components import hardware
from components.hardware import WARM_UP, WORTHWHILE, Captured, images_at_once, in_threads, keep_memory
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from tests.tiny_networks import generator_of

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


def course_of(device: torch.device, calls: int, steps: int = 100) -> tuple[Tensor, list[int]]:
    """Descends a quadratic, and counts how often Python itself took the step."""
    z, called = torch.linspace(-1, 1, 7, device=device), []

    def step() -> None:
        called.append(1)
        z.sub_(0.1 * z + 0.01 * z.square())

    captured = Captured(step, device, calls)
    for _ in range(steps):
        captured()
    return z.cpu(), called


def test_on_a_processor_each_call_is_a_step() -> None:
    z, called = course_of(CPU, calls=10**6)
    assert len(called) == 100
    assert torch.equal(z, course_of(CPU, calls=1)[0])


class Stream:
    """One that has nothing to wait for."""

    def __init__(self, name: str = "own") -> None:
        self.name = name

    def wait_stream(self, other: Stream) -> None:
        """Returns at once."""


class Card:
    """Stands where `torch.cuda` does, for the order of what is asked of it: streams, captures, random numbers.

    Attributes:
        current: the stream.
        replays: of graphs.
        holds_random: whether a capture that failed still has the generator, as before torch 2.13.
    """

    Stream, CUDAGraph = Stream, SimpleNamespace

    def __init__(self) -> None:
        self.current, self.capturing, self.replays, self.holds_random = Stream("caller's"), False, 0, False

    def device(self, device: torch.device) -> Any:
        return nullcontext()

    def current_stream(self, device: torch.device | None = None) -> Stream:
        return self.current

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph: Any, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        before, self.current, self.capturing, self.holds_random = self.current, stream, True, True
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError("operation failed due to a previous error during capture") from error
        finally:
            self.capturing = False
        self.current, self.holds_random = before, False  # neither where it failed

        def replay() -> None:
            self.replays += 1

        graph.replay = replay


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    monkeypatch.setattr(torch, "cuda", made)
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: torch.full(shape[0], 0.0))
    return made


def test_a_step_is_captured_once(card: Card) -> None:
    called: list[str] = []
    captured = Captured(lambda: called.append(card.current.name), CUDA, WORTHWHILE)
    for _ in range(10):
        captured()
    assert called == ["own"] * (WARM_UP + 1)
    assert card.replays == 10 - WARM_UP


def test_a_step_that_cannot_be_captured_is_taken_where_the_caller_is(
    card: Card, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hardware, "_KEEPS_RANDOM", True)
    called: list[str] = []
    held: list[weakref.ref[Tensor]] = []

    def step() -> None:
        if card.capturing:
            large = torch.ones(3)
            held.append(weakref.ref(large))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert not any(one() is not None for one in held), "the failed attempt still holds its memory"
        assert not card.holds_random, "Offset increment outside graph capture encountered unexpectedly"
        called.append(card.current.name)

    captured = Captured(step, CUDA, WORTHWHILE)
    for _ in range(6):
        captured()
    assert called == ["own"] * WARM_UP + ["caller's"] * 3
    assert card.replays == 0
    assert "it runs without one" in caplog.text


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_items_are_worked_on_at_once_and_come_in_order() -> None:
    together = threading.Barrier(3, timeout=20)  # broken, and an error, where fewer than three run at once

    def work(item: int) -> tuple[int, int]:
        together.wait()
        return item, torch.get_num_threads()

    assert list(in_threads(work, range(6))) == [(item, 1) for item in range(6)]
    assert torch.get_num_threads() == 3
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [3]  # threads to come have what this one has


@pytest.mark.usefixtures("three_threads")
def test_one_item_has_all_threads() -> None:
    assert list(in_threads(lambda _: (threading.current_thread(), torch.get_num_threads()), [0])) == [
        (threading.current_thread(), 3)
    ]


@pytest.mark.usefixtures("three_threads")
def test_an_error_ends_it() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 4:
            raise ValueError("item 4")
        threading.Event().wait(0.01)
        return item

    with pytest.raises(ValueError, match="item 4"):
        list(in_threads(work, range(1000)))
    assert len(begun) < 1000
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("init", ["random", "bank"])
@pytest.mark.usefixtures("three_threads")
def test_a_projection_in_threads_is_that_in_one(init: str) -> None:
    settings = {"restarts": 2, "steps": 3, "chunk": 4, "bank_size": 16}
    images = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    told: list[int] = []

    def projected() -> torch.Tensor:
        torch.manual_seed(0)
        projector = Projector(generator_of(), ProjectorConfig.model_validate({**settings, "init": init}))
        told.clear()
        return projector.trace(images, progress=told.append).select(2, 3).images

    in_three = projected()
    assert told == [2, 4, 6, 8, 9]
    torch.set_num_threads(1)
    torch.testing.assert_close(in_three, projected(), rtol=1e-9, atol=1e-9)


def test_of_large_images_fewer_go_through_a_network_at_once() -> None:
    shapes = ((1, 28, 28), (3, 32, 32), (3, 224, 224), (3, 4000, 4000))
    assert [images_at_once(torch.empty(0, *shape), CUDA) for shape in shapes] == [1024, 682, 13, 1]
    assert {images_at_once(torch.empty(0, *shape), CPU) for shape in shapes} == {250}


def test_memory_is_kept_where_the_c_library_is_gnus() -> None:
    assert keep_memory() == (platform.libc_ver()[0] == "glibc")
    assert keep_memory() == keep_memory()
