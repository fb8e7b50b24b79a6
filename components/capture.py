"""A step that is repeated many times: on a card it becomes one CUDA graph, launched as a whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

log = logging.getLogger(__name__)

WARM_UP = 3  # calls that are executed as they are, in which libraries choose their algorithms
WORTHWHILE = 60  # calls below which capturing would cost more than it saves


class Captured:
    """A step over tensors that stay where they are. Each call is one step, however it is executed.

    On a processor, and on a card for its first calls, the step is simply called. After that its kernels are recorded
    once and launched together, which takes a few microseconds in place of a few for each kernel.

    Args:
        step: reads its inputs from tensors that the caller writes before a call, and writes its results into tensors
            that the caller reads after it. It must not wait for the card (`.item()`, boolean indices, copies to the
            processor), nor depend on numbers of Python's that change between calls.
        device: where it computes.
        calls: how often it will be called at most; fewer than `WORTHWHILE` are not captured.
    """

    def __init__(self, step: Callable[[], None], device: torch.device, calls: int) -> None:
        self._step, self._calls = step, 0
        self._captures = device.type == "cuda" and calls >= WORTHWHILE
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None

    def __call__(self) -> None:
        if self._graph is not None:
            self._graph.replay()
        elif not self._captures:
            self._step()
        else:
            self._prepare()

    def _prepare(self) -> None:
        """One step, on the stream that the capture will use; after a few of them, the capture and its first launch."""
        self._calls += 1
        if self._calls <= WARM_UP:
            with _beside(self._own_stream()), _benchmarking():
                self._step()
            return
        graph = torch.cuda.CUDAGraph()
        try:
            with _benchmarking(), torch.cuda.graph(graph, stream=self._own_stream(), capture_error_mode="thread_local"):
                self._step()
        except RuntimeError as error:  # a part that waits for the card, as a network of the user's may
            log.warning("expected a step that a CUDA graph can hold, found %s; it runs without one", error)
            self._captures = False
            self._step()
            return
        self._graph = graph
        graph.replay()

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
