"""The numbers that arithmetic is done in; importing this module imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

# auto: bfloat16 where the device multiplies matrices in it at least `_GAIN` times as fast, else float32
Precision = Literal["float32", "bfloat16", "auto"]
Exact = Literal["float32", "bfloat16"]

_SIZE, _REPEATS = 512, 5  # of the matrix products by which a device is judged: a few milliseconds in all
_SIZES = {"cuda": 2048}  # one of 512 takes a card 20 µs, about as long as it takes to launch it and to wait for it
_GAIN = 1.5  # a processor without bfloat16 arithmetic is slower in it; one with it gains 2 (AVX-512) to 8 (AMX)


def resolved(precision: Precision, device: torch.device) -> Exact:
    """The precision that `precision` means on a device. `auto` is measured once per process and kind of device.

    A result made under `auto` may have been computed in either; trials share it by its settings, which say `auto`,
    and its manifest says which it was.
    """
    if precision != "auto":
        return precision
    return _faster(device.type)


@cache
def _faster(kind: str) -> Exact:
    import torch

    seconds = {dtype: _seconds(kind, dtype) for dtype in (torch.float32, torch.bfloat16)}
    return "bfloat16" if seconds[torch.bfloat16] * _GAIN < seconds[torch.float32] else "float32"


def _seconds(kind: str, dtype: torch.dtype) -> float:
    """The shortest of a few products, in seconds; infinite where the device cannot multiply in `dtype`."""
    import torch

    try:
        size = _SIZES.get(kind, _SIZE)
        matrix = torch.ones(size, size, device=kind, dtype=dtype)
        return min(_timed(lambda: matrix @ matrix, kind) for _ in range(_REPEATS))
    except RuntimeError:
        return float("inf")


def _timed(work: Callable[[], object], kind: str) -> float:
    import torch

    wait = torch.cuda.synchronize if kind == "cuda" else (lambda: None)
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began
