"""What work asks of a machine, counted on the processor: operations, and bytes that go through the memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Demand:
    """Of one unit of work.

    Attributes:
        operations: multiplications and additions of matrix products and convolutions.
        bytes: read and written, where every operation reads its inputs from the memory and writes its results there.
    """

    operations: float
    bytes: float


class Count(TorchDispatchMode):
    """Counts while the block computes; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.operations += formula(*args, **kwargs, out_val=result)
        view = any(value.alias_info and not value.alias_info.is_write for value in func._schema.returns)
        if not view:
            found = {id(value): value for value in tree_iter((args, kwargs, result)) if isinstance(value, Tensor)}
            self.bytes += sum(value.numel() * value.element_size() for value in found.values())
        return result


def demand(work: Callable[[int], object], units: int) -> Demand:
    """Of a unit, as the difference of twice the work and once: what each run does once is not in it.

    Args:
        work: does so many times `units`.
        units: in the work of 1.
    """
    counts = []
    for times in (1, 2):
        with Count() as count:
            work(times)
        counts.append(count)
    once, twice = counts
    return Demand((twice.operations - once.operations) / units, (twice.bytes - once.bytes) / units)


@dataclass(frozen=True)
class Ceilings:
    """What a device reached in work that is nothing else.

    Attributes:
        operations: per second, by precision; of a card also in TF32, in which its convolutions take float32.
        bytes: per second, read and written by a copy from device to device.
    """

    operations: dict[str, float]
    bytes: float

    def roofs(self, needed: Demand, precision: str) -> dict[str, float]:
        """Units per second that operations and bytes would let through, were there nothing else."""
        precision = "tf32" if precision == "float32" and "tf32" in self.operations else precision
        operations, moved = self.operations[precision] / needed.operations, self.bytes / needed.bytes
        return {"roof by operations": operations, "roof by bytes": moved}


def ceilings(device: torch.device, *, quick: bool) -> Ceilings:
    """Measures large matrix products in both precisions, and a large copy."""
    size, numbers = (512, 1 << 22) if quick else (8192, 1 << 28)
    operations = {}
    for precision in ("float32", "bfloat16", "tf32") if device.type == "cuda" else ("float32", "bfloat16"):
        one, other = torch.randn(2, size, size, device=device).to(getattr(torch, precision, torch.float32))
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        seconds = shortest(lambda one=one, other=other: one @ other, device, 0.2 if quick else 1.0)
        operations[precision] = 2 * size**3 / seconds
    torch.backends.cuda.matmul.allow_tf32 = False  # torch's default
    source = torch.zeros(numbers, device=device)
    target = torch.empty_like(source)
    copied = shortest(lambda: target.copy_(source), device, 0.2 if quick else 1.0)
    return Ceilings(operations, 2 * 4 * numbers / copied)


def shortest(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds of one run: the shortest of as many as fit into `seconds`, after two that are not counted."""
    for _ in range(2):
        work()
    best, began = float("inf"), time.perf_counter()
    while True:
        finish(device)
        start = time.perf_counter()
        work()
        finish(device)
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - began > seconds:
            return best


def finish(device: torch.device) -> None:
    """Waits for what was given to a card."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
