"""Measures the speed of this machine at each kind of work, for a moment each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch

from tune.evaluation.adaptive import adaptive_images
from tune.evaluation.scores import EPSILONS, curve_images
from tune.pipeline.attack import images_of
from tune.pipeline.purifier import cost
from tune.pipeline.recipe import Recipe
from tune.pipeline.stage import FORWARD, Rate, Rates, Workload
from tune.pipeline.stages import STAGES, final_path_of, path_of
from tune.pipeline.unet import ATTACK

SECONDS = 0.5  # of each measurement, after a first round that fills caches
SLOW = 2.0  # a first round that takes as long is not repeated: what fills caches is little of it
WHOLE = 3  # times an attack alone: that of the first seed, with its courses and what stands beside the defense
BATCHES = 4  # per epoch of a measured training, or steps of a GAN's: short, so that it ends in time


def measure(
    recipes: Sequence[Recipe],
    device: torch.device,
    seconds: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> Rates:
    """Trains and projects for a few seconds; what comes of it is thrown away.

    Args:
        recipes: configurations of the search; each kind of work is measured for the first that does it.
        device: where its trials compute.
        seconds: of each measurement; `SECONDS` where none is given.
        tell: is called with the title of each kind of work before it is measured.
    """
    rates: dict[str, Rate] = {}
    for work in (work for recipe in recipes for work in workloads(recipe, device)):
        if work.name in rates:
            continue
        if tell is not None:
            tell(work.title)
        rates[work.name] = Rate(work.title, work.unit, _timed(work, SECONDS if seconds is None else seconds))
    return rates


def workloads(recipe: Recipe, device: torch.device, batches: int = BATCHES) -> Iterator[Workload]:
    """Samples of all work that a configuration asks for, those of one rate once."""
    seen: set[str] = set()
    for name in dict.fromkeys([*path_of(recipe.config), *final_path_of(recipe.config)]):
        for work in STAGES[name].workloads(recipe, device, batches):
            if work.name not in seen:
                seen.add(work.name)
                yield work


def seconds_of_test(recipe: Recipe, images: int, rates: Rates) -> float:
    """Computing time of the look at the test images, of one seed: attacked, clean, and some at each strength."""
    known = {0.0, recipe.config.attack.epsilon}
    attacked = images + len({*EPSILONS} - known) * curve_images(recipe.config, images)
    projected = cost(recipe.config) * rates["projection"].seconds if "projection" in rates else 0.0
    classified, denoised = rates["classifier"].seconds, rates["unet"].seconds
    # each is classified behind the GAN and behind the U-Net; attacked ones also undefended, thresholded, as originals
    defended = projected + FORWARD * (denoised + 2 * classified)
    return (images + attacked) * defended + attacked * (1 + 3 * FORWARD) * classified


def seconds_of_attacks(recipe: Recipe, images: int, seeds: int, rates: Rates) -> float:
    """Computing time of the attacks by one who knows the defense, on a sample of the test images, of all seeds."""
    times = seeds - 1 + WHOLE
    return times * adaptive_images(recipe.config, images) * rates[ATTACK].seconds


def seconds_of_reference(recipe: Recipe, rates: Rates) -> float:
    """Computing time of the static reference: the classifier trained by the settings of an adaptive training."""
    config = recipe.config.unet
    if config.training != "adaptive":
        return 0.0
    gradients = 1 + config.attacked * (config.first_steps + config.steps) / 2
    return images_of(recipe, "train") * config.epochs * gradients * rates["classifier"].seconds


def _timed(work: Workload, seconds: float) -> float:
    """Seconds per unit of work that is done again and again for `seconds`."""
    began, times = time.perf_counter(), 0
    work.run()  # the first one also fills caches
    if (first := time.perf_counter() - began) >= SLOW:
        return first / work.units
    began = time.perf_counter()
    while times == 0 or time.perf_counter() - began < seconds:
        work.run()
        times += 1
    return (time.perf_counter() - began) / (times * work.units)
