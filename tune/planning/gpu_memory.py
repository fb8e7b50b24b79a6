"""The GPU memory that a trial needs: measured on the card where trials share it, else counted on the CPU.

A second of each training and of the projection runs on the card while its allocator keeps the peak. Where there is no
card, a few batches run on the CPU while every tensor's bytes are counted; tensors have the same sizes on a GPU.
"""

from __future__ import annotations

import gc
import math
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from components.projector.chunks import GPU_CHUNK
from tune.cluster.resources import NeededMemory
from tune.pipeline.classifier import new_classifier
from tune.pipeline.projection import sampled_projector
from tune.pipeline.recipe import Bounds, Development, Recipe
from tune.planning.rates import workloads
from tune.space.ranges import Range
from tune.space.space import SearchSpace

# What the allocator does not show, of each process on a GPU: CUDA's context, loaded kernels, and cuDNN's work space …
PROCESS = 1 << 30
# … and what torch's allocator keeps beside the tensors: it rounds up and cannot always join free blocks. Both assumed.
SLACK = 1.25
SECONDS = 0.3  # of each kind of work that is measured, twice: the first time it captures its step
MOST_TRIED = 8  # configurations of which each takes some seconds
_FEW = 2  # images of a projection that is counted
CPU = torch.device("cpu")


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that the block makes or uses.

    Attributes:
        peak: the most at any moment.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter((args, kwargs, result)):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # views of one storage have one
        if key in self._known:
            return
        self._known.add(key)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


class CardMemory:
    """Memory that this process takes of a GPU, as torch's allocator knows it.

    Attributes:
        device: the GPU.
        name: of it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.name = device, torch.cuda.get_device_name(device)

    def clear(self) -> None:
        """Gives back what nothing uses, and begins a new peak."""
        gc.collect()  # networks, optimizers and schedules hold each other
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        """The most bytes since the last `clear`: reserved ones, as a CUDA graph's own do not count as allocated."""
        return torch.cuda.max_memory_reserved(self.device)


def memory_per_trial(
    space: SearchSpace, data: Development, bounds: Bounds, card: CardMemory | None = None
) -> NeededMemory:
    """GPU memory of one trial at its largest moment, in whichever stage, of the space's largest configurations.

    Args:
        space: what is searched.
        data: the images of the search.
        bounds: of the projection.
        card: where to measure it; None = count it on the processor, as where the card lacks the memory to measure.
    """
    recipes = [Recipe(space.config(params), bounds, data, 0) for params in largest(space)]
    return max((_needed(recipe, card) for recipe in recipes), key=lambda needed: needed.bytes)


def _needed(recipe: Recipe, card: CardMemory | None) -> NeededMemory:
    data = recipe.data
    images = len(data.train) + len(data.held)
    # of each image the original, the attacked and the rebuilt one, and what the classifier sees in it
    kept = 4 * images * (3 * math.prod(data.image_shape) + _seen(recipe))
    how = "counted on the processor"
    if card is not None:
        try:
            return NeededMemory(PROCESS + int(SLACK * (kept + _measured(recipe, card))), f"measured on {card.name}")
        except torch.OutOfMemoryError:
            how = f"counted on the processor, as {card.name} has too little free to measure it"
    work = max(_of_trainings(recipe), _of_projection(recipe))
    return NeededMemory(PROCESS + int(SLACK * (kept + work)), how)


def _measured(recipe: Recipe, card: CardMemory) -> int:
    """Bytes that the largest work takes on the card, beside the images."""
    config = recipe.config
    # with what is free now a projector would take more at once than it does where trials share the card
    projector = config.projector.model_copy(update={"chunk": config.projector.chunk or GPU_CHUNK})
    recipe = replace(recipe, config=config.model_copy(update={"projector": projector}))
    names = [work.name for work in workloads(recipe, CPU, batches=1)]
    peaks = {name: _peak_on(card, recipe, name) for name in names}
    card.clear()
    if "projection" in peaks:
        peaks["projection"] += _recorded(recipe, config.projector.chunk or GPU_CHUNK)
    return max(peaks.values())


def _peak_on(card: CardMemory, recipe: Recipe, name: str) -> int:
    """Bytes of one kind of work as it goes on, after it has chosen its algorithms and captured its step."""
    work = next(work for work in workloads(recipe, card.device) if work.name == name)  # those before it are gone
    for _ in range(2):
        card.clear()
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            work.run()
    return card.peak()


def largest(space: SearchSpace) -> list[dict[str, Any]]:
    """The parameters of a space that may take most memory: more does in every setting that is a number; of others each
    choice is tried, until these are too many.
    """
    found: list[dict[str, Any]] = [{}]
    for key, values in space.ranges.items():
        options = _most(values) if len(found) * len(_most(values)) <= MOST_TRIED else _most(values)[:1]
        chosen = [{key: option} for option in options]
        found = [{**params, **own} for params in found for own in (chosen if space.applies(key, params) else [{}])]
    return found


def _most(values: Range) -> list[Any]:
    listed = values.values() or [values.high]  # type: ignore[union-attr]
    numbers = [value for value in listed if isinstance(value, int | float) and not isinstance(value, bool)]
    return [max(numbers)] if numbers else list(listed)


def _seen(recipe: Recipe) -> int:
    """Numbers of the representation of one image."""
    judge = new_classifier(recipe).eval()
    return judge.features(recipe.data.train.images[:1], recipe.config.unet.layer).numel()


def _of_trainings(recipe: Recipe) -> int:
    """A batch of each; what one leaves is gone before the next."""
    return max(_peak(work.run) for work in workloads(recipe, CPU, batches=1) if work.name != "projection")


def _of_projection(recipe: Recipe) -> int:
    """Bytes of a projection. Counted for two chunk sizes on the CPU, and extrapolated to a GPU's chunk size."""
    config, images = recipe.config, recipe.data.train.images
    projector = sampled_projector(recipe, CPU, config.projector.bank_size)
    projector.warm_up()
    few = _peak(lambda: projector.trace(images[:_FEW], [1]))
    more = _peak(lambda: projector.trace(images[: 2 * _FEW], [1]))
    latents, chunk = _FEW * projector.config.restarts, config.projector.chunk or GPU_CHUNK
    return few + (more - few) * (chunk - latents) // latents + _recorded(recipe, chunk)


def _recorded(recipe: Recipe, chunk: int) -> int:
    """Bytes of latents and errors of the steps that are kept, once apart and once together."""
    return 2 * 4 * chunk * len(recipe.bounds.steps) * (recipe.config.gan.latent_dim + 1)


def _peak(work: Callable[[], object]) -> int:
    memory = PeakMemory()
    with memory:
        work()
    return int(memory.peak)
