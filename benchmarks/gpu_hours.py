"""GPU hours of a search, by arithmetic: operations counted on a CPU, at an assumed speed of a GPU.

    python benchmarks/gpu_hours.py [SPACE] [TFLOP_PER_SECOND]

The operations of one batch of each training and of one step of the projection are counted exactly, as multiplications
and additions of convolutions and matrix products, forward and backward; times how often a search on 60,000 and 10,000
images of 28×28 pixels does them. The speed is not measured: on a GPU that is known, divide by its own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from components.datasets.dataset import Dataset
from components.datasets.raw import RawSplit
from tune.pipeline.projection import sampled_projector
from tune.pipeline.recipe import Recipe, bounds_of
from tune.pipeline.stage import Rate, Rates
from tune.planning.estimate import Artifacts, count
from tune.planning.rates import seconds_of_test, workloads
from tune.space.space import load_space
from tune.storage.folder import Storage

ASSUMED = 3.0  # TFLOP/s: a tenth of the 30.3 in 32 bits that NVIDIA's data sheet gives for one L4
CPU = torch.device("cpu")
IMAGES = 2  # of the projection that is counted


def mnist_like() -> Dataset:
    """As many images as MNIST has; what is in them does not change the number of operations."""
    train, test = (
        RawSplit(np.zeros((number, 1, 28, 28), np.uint8), (np.arange(number) % 10).astype(np.uint8))
        for number in (60_000, 10_000)
    )
    return Dataset.cut("mnist", train, test, validation_fraction=0.1)


class Operations(TorchDispatchMode):
    """Counts as torch's own FlopCounterMode does, which fails where gradients are asked for by `autograd.grad`."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def operations(work: Callable[[], object]) -> int:
    """Multiplications and additions of `work`."""
    with Operations() as counter:
        work()
    return int(counter.total)


def per_unit(recipe: Recipe) -> Rates:
    """Operations in the place of seconds. Of two runs the difference: what each run does once is not in it."""
    runs = [
        {work.name: (work, operations(work.run)) for work in workloads(recipe, CPU, n) if work.name != "projection"}
        for n in (1, 2)
    ]
    rates = {}
    for name, (small, few) in runs[0].items():
        large, more = runs[1][name]
        rates[name] = Rate(small.title, small.unit, (more - few) / (large.units - small.units))
    projector, images = sampled_projector(recipe, CPU), recipe.data.train.images[:IMAGES]
    one, two = (operations(lambda n=n: projector.trace(images, [n])) for n in (1, 2))
    gradient = (two - one) / (IMAGES * projector.config.restarts)
    return {**rates, "projection": Rate("projection", "gradient", gradient)}


def row(artifacts: Artifacts, rates: Rates) -> tuple[str, float, float]:
    """Stage, number of its artifacts, and 10^12 operations of all."""
    return artifacts.stage, artifacts.times * len(artifacts.missing), artifacts.seconds(rates) / 1e12


def main(name: str, speed: float) -> None:
    """Prints the table."""
    space, dataset = load_space(name), mnist_like()
    with tempfile.TemporaryDirectory() as empty:
        counted = count(space, dataset, Storage(empty), Storage(empty).child("none"), bounds_of(space))
    rates = per_unit(counted.typical)
    during = [row(artifacts, rates) for artifacts in counted.search]
    further = [row(artifacts, rates) for artifacts in counted.finalists]
    final = [row(artifacts, rates) for artifacts in counted.final]
    seeds = int(counted.typical.config.search.retrain_seeds)
    final.append(("test images", seeds, seeds * seconds_of_test(counted.typical, len(dataset.held_out), rates) / 1e12))
    print(f"{name}: {counted.trials} trials; {speed:g} TFLOP/s assumed")
    each = ", ".join(f"{rate.title} {rate.seconds / 1e9:.3g} per {rate.unit}" for rate in rates.values())
    print(f"GFLOP: {each}\n")
    print("| stage | times | TFLOP | GPU hours |\n|---|---|---|---|")
    for title, rows in (("search", during), ("finalists", further), ("retraining", final)):
        for stage, times, tera in rows:
            if tera:
                print(f"| {stage} ({title}) | {times:.0f} | {tera:,.0f} | {tera / speed / 3600:.2f} |")
    total = sum(tera for _, _, tera in [*during, *further, *final])
    print(f"| **all** | | **{total:,.0f}** | **{total / speed / 3600:.1f}** |")


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "published",
        float(sys.argv[2]) if len(sys.argv) > 2 else ASSUMED,
    )
