"""How many operations a projection's step takes, how many the processor could do meanwhile, and where the time goes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.baselines import PUBLISHED
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CHUNKS = (64, 128, 256)
RESTARTS, STEPS = 10, 40
CHUNKS_TIMED = 4


def operations_table(generator: Any) -> list[dict[str, Any]]:
    """Per layer, twice the multiplications of forward and backward to the latents, in millions.

    `needed` leaves out the terms of a transposed convolution that fall on padding or on cropped pixels; FLOP counters
    count those too.
    """
    channels = [generator.base[0], generator.base[0] // 2, generator.base[0] // 4, generator.image_shape[0]]
    dense = 4 * generator.latent_dim * generator.base[0] * generator.sizes[0][0] * generator.sizes[0][1] / 1e6
    rows = [{"layer": "dense", "all terms": dense, "needed": dense}]
    for index, (before, after) in enumerate(itertools.pairwise(channels)):
        (height, breadth), size = generator.sizes[index], generator.sizes[index + 1]
        per_term = 4 * before * after / 1e6
        terms = _terms(height, size[0]) * _terms(breadth, size[1])
        rows.append(
            {
                "layer": f"transposed convolution {before} → {after}",
                "all terms": 16 * height * breadth * per_term,
                "needed": terms * per_term,
            }
        )
    return [*rows, {"layer": "sum", **{key: sum(row[key] for row in rows) for key in ("all terms", "needed")}}]


def _terms(before: int, after: int) -> int:
    """Of a kernel of 4 and stride 2 along one side: (input, kernel) pairs that meet an output pixel."""
    return sum(0 <= 2 * p - 1 + k < after for p in range(before) for k in range(4))


def share_rows(generator: Any) -> list[dict[str, Any]]:
    """Of each precision: the rate of matrix products, that of the projector by chunk, and their ratio."""
    total = operations_table(generator)[-1]
    rows = []
    for precision, dtype in DTYPES.items():
        peak = max(_matrix_rates(dtype).values())
        for chunk in CHUNKS:
            rate = _evaluations_per_second(generator, precision, chunk)
            row = {
                "precision": precision,
                "chunk": str(chunk),
                "evaluations/s": rate,
                "needed GFLOP/s": rate * total["needed"] / 1e3,
                "matrix products GFLOP/s": peak,
                "share %": rate * total["needed"] / 10 / peak,
                "share with all terms %": rate * total["all terms"] / 10 / peak,
            }
            rows.append(row)
    return rows


def _matrix_rates(dtype: torch.dtype) -> dict[str, float]:
    """GFLOP/s of products of square matrices, by size: the most that three sizes reach."""
    rates = {}
    for size in (512, 1024, 2048):
        one, other = torch.randn(2, size, size).to(dtype)
        rates[str(size)] = 2 * size**3 / _shortest(lambda one=one, other=other: one @ other) / 1e9
    return rates


def _evaluations_per_second(generator: Any, precision: str, chunk: int) -> float:
    """Of the whole projector: forward, distance, backward and step."""
    config = ProjectorConfig(restarts=RESTARTS, steps=STEPS, chunk=chunk, precision=precision, **PUBLISHED)
    projector = Projector(generator, config)
    images = torch.rand(CHUNKS_TIMED * (chunk // RESTARTS), *generator.image_shape)
    # after the last step comes a forward, which is left out of the count
    return len(images) * RESTARTS * STEPS / _shortest(lambda: projector.project(images), 2.0)


def _shortest(run: Callable[[], Any], seconds: float = 1.0) -> float:
    run()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def profile_rows(projector: Projector, images: Tensor, most: int = 9) -> list[dict[str, Any]]:
    """The operations that take most of a projection's time."""
    projector.project(images)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        projector.project(images)
    found = [e for e in profiler.key_averages(group_by_input_shape=True) if e.self_cpu_time_total > 0]
    total = sum(event.self_cpu_time_total for event in found)
    found.sort(key=lambda event: -event.self_cpu_time_total)
    rows = [
        {
            "operation": event.key.removeprefix("aten::"),
            "on": " and ".join(str(shape) for shape in event.input_shapes[:2] if shape),
            "share %": 100 * event.self_cpu_time_total / total,
        }
        for event in found[:most]
    ]
    rest = 100 - sum(row["share %"] for row in rows)
    return [*rows, {"operation": f"{len(found) - most} others", "on": "", "share %": rest}]
