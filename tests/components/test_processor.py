"""What the allocator keeps, and work spread over threads."""

import platform
import threading
from collections.abc import Iterator

import pytest
import torch

from components.hardware import in_threads, keep_memory
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from tests.tiny_networks import generator_of


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
