"""The use of a machine: memory that the allocator keeps, work in threads, and steps as CUDA graphs of a card."""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

# mallopt(3): which sizes get pages of their own from the system, and how much freed memory goes back to it.
_TRIM, _TOP_PAD, _MMAP = -1, -2, -3
_MIB = 1 << 20

CPU_IMAGES = 250  # through a network at once: on a processor, whose caches hold little more, and …
GPU_IMAGES, GPU_NUMBERS = 1024, 1 << 21  # … on a card, where as many pixels keep it busy, of large images fewer

WARM_UP = 3  # calls that are executed as they are, in which libraries choose their algorithms
_KEEPS_RANDOM = torch.__version__ < "2.13"  # after a failed capture "Offset increment outside graph capture" is raised
WORTHWHILE = 60  # calls below which capturing would cost more than it saves


def keep_memory() -> bool:
    """Lets this process keep the memory that tensors leave, up to 512 MiB of it, for the next ones.

    GNU's allocator returns it to the system and asks again, and the system clears every page that it gives: up to
    a quarter of the time of a projection or a training whose maps are some MB large.

    Returns:
        True where the allocator was set; False on systems without GNU's C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # other C libraries; TypeError: Windows has no CDLL(None)
        return False
    settings = {_TRIM: 512 * _MIB, _TOP_PAD: 64 * _MIB, _MMAP: 32 * _MIB}
    return all([mallopt(which, value) == 1 for which, value in settings.items()])  # noqa: C419  (every call is made)


def images_at_once(images: Tensor, device: torch.device) -> int:
    """The number of `images` (N, C, H, W) to give a network at once on `device`.

    On a card their maps then take up to a GB or two of a usual network, with what a gradient needs, whatever their
    size: 1,024 images of MNIST, 682 of CIFAR-10, 13 of 3 × 224 × 224.
    """
    if device.type == "cpu":
        return CPU_IMAGES
    return max(1, min(GPU_IMAGES, GPU_NUMBERS // max(1, images.shape[1:].numel())))


def let_go(device: torch.device) -> None:
    """Gives back what finished work has left on a card, for what follows and for processes beside this one.

    The networks, optimizers, schedules and captured steps of a training hold each other, so they stay until Python
    looks for such circles, which may be minutes; `torch.cuda.graph` no longer does it.
    """
    if device.type == "cpu":
        return
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields work(item) in the items' order, as many at once as torch has threads, each on one of them.

    For items that are too small for a share of each operation to be worth a thread's waking. With one thread, or one
    item, `work` runs in the caller's thread with all that it has.
    """
    items, threads = list(items), torch.get_num_threads()
    if threads == 1 or len(items) == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, what has begun is finished and no more
        torch.set_num_threads(threads)  # what the threads set is the default of threads to come, too


class Captured:
    """A step over tensors that stay where they are. Each call is one step, however it is executed.

    On a processor, and on a card for its first calls, the step is simply called. After that its kernels are recorded
    once and launched together, which takes a few microseconds in place of a few for each kernel.

    Args:
        step: reads its inputs from tensors that the caller writes before a call, and writes its results into tensors
            that the caller reads after it. It must not wait for the card (`.item()`, boolean indices, copies to the
            processor), nor depend on numbers of Python's that change between calls.
        device: where it computes; a card need not be the current one.
        calls: how often it will be called at most; fewer than `WORTHWHILE` are not captured.
    """

    def __init__(self, step: Callable[[], None], device: torch.device, calls: int) -> None:
        self._step, self._device, self._calls = step, device, 0
        self._captures = device.type == "cuda" and calls >= WORTHWHILE
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None

    def __call__(self) -> None:
        if self._graph is not None:
            self._graph.replay()
        elif not self._captures:
            self._step()
        else:
            with torch.cuda.device(self._device):  # streams and random numbers are this card's
                self._prepare()

    def _prepare(self) -> None:
        """One step, on the stream that the capture will use; after a few of them, the capture and its first launch."""
        self._calls += 1
        if self._calls <= WARM_UP:
            with _beside(self._own_stream()), _benchmarking():
                self._step()
            return
        self._graph = self._recorded()
        if self._graph is not None:
            self._graph.replay()
            return
        self._captures = False
        if _KEEPS_RANDOM:
            self._free_random()
        self._step()

    def _recorded(self) -> torch.cuda.CUDAGraph | None:
        """The step as a graph, of which nothing is executed yet; None where it cannot be one.

        The caller takes the step behind this function: there the current stream is the caller's again, which
        `torch.cuda.graph` does not set where a capture fails, and what the failed attempt held on the card is free.
        """
        graph, stream = torch.cuda.CUDAGraph(), self._own_stream()
        try:
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                _benchmarking(),
                torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
            ):
                self._step()
        except RuntimeError as error:  # a part that waits for the card, as a network of the user's may; or no memory
            log.warning("expected a step that a CUDA graph can hold, found %s; it runs without one", str(error))
            return None
        return graph

    def _free_random(self) -> None:
        """Makes a capture that succeeds, after which the card's random numbers are drawn as ever."""
        number = torch.zeros((), device=self._device)
        with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self._own_stream(), capture_error_mode="thread_local"):
            number.add_(1)

    def _own_stream(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        return self._stream


@contextmanager
def _beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """Within the block work goes to `stream`, after what the current one holds, which then waits for it."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


@contextmanager
def _benchmarking() -> Iterator[None]:
    """Within the block convolutions try their algorithms and keep the fastest for these shapes."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
