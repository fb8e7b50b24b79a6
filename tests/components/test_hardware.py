"""What the allocator keeps, work spread over threads, and a captured step, which is the step."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from components.hardware import WORTHWHILE, Captured, in_threads, keep_memory
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from components.training import drawn_from
from tests.tiny_networks import generator_of

CPU = torch.device("cpu")
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")


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


@pytest.mark.gpu
@needs_card
def test_a_graph_takes_the_same_steps() -> None:
    card = torch.device("cuda")
    eager, called = course_of(card, calls=WORTHWHILE - 1)
    assert len(called) == 100
    replayed, called = course_of(card, calls=WORTHWHILE)
    assert len(called) < 10
    assert torch.equal(replayed, eager)


@pytest.mark.gpu
@needs_card
def test_a_step_that_waits_for_the_card_runs_without_a_graph(caplog: pytest.LogCaptureFixture) -> None:
    total, before = torch.zeros((), device="cuda"), torch.cuda.current_stream()

    def step() -> None:
        total.add_(1 if total.item() >= 0 else 2)
        torch.dropout(total, 0.5, train=True)  # random numbers, of which no capture may hold the generator

    captured = Captured(step, torch.device("cuda"), WORTHWHILE)
    for _ in range(20):
        captured()
    assert float(total) == 20
    assert "it runs without one" in caplog.text
    assert torch.cuda.current_stream() == before


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs that torch can use")
def test_a_card_that_is_not_the_current_one_takes_its_steps_too() -> None:
    other = torch.device("cuda:1")
    eager, replayed = (course_of(other, calls)[0] for calls in (WORTHWHILE - 1, WORTHWHILE))
    assert torch.equal(replayed, eager)
    assert torch.cuda.current_device() == 0
    before = torch.cuda.get_rng_state(other)
    with drawn_from(5):
        torch.rand(3, device=other)
    assert torch.equal(torch.cuda.get_rng_state(other), before)


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


def test_memory_is_kept_where_the_c_library_is_gnus() -> None:
    assert keep_memory() == (platform.libc_ver()[0] == "glibc")
    assert keep_memory() == keep_memory()
