"""The GPU memory that a trial needs, counted on the CPU.

A few batches of each training and of the projection run on the CPU while every tensor's bytes are counted; tensors have
the same sizes on a GPU.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from components.projector.chunks import GPU_CHUNK
from tune.pipeline.classifier import new_classifier
from tune.pipeline.projection import sampled_projector
from tune.pipeline.recipe import Bounds, Development, Recipe
from tune.planning.rates import workloads
from tune.space.ranges import Range
from tune.space.space import SearchSpace

# What no tensor shows, of each process on a GPU: CUDA's context, loaded kernels, and cuDNN's work space …
PROCESS = 1 << 30
# … and what torch's allocator keeps beside the tensors: it rounds up and cannot always join free blocks. Both assumed.
SLACK = 1.25
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


def bytes_per_trial(space: SearchSpace, data: Development, bounds: Bounds) -> int:
    """GPU memory of one trial at its largest moment, in whichever stage, of the space's largest configuration."""
    recipe = Recipe(space.config(largest(space)), bounds, data, 0)
    images = len(data.train) + len(data.held)
    # of each image the original, the attacked and the rebuilt one, and what the classifier sees in it
    numbers = 3 * math.prod(data.image_shape) + _seen(recipe)
    work = max(_of_trainings(recipe), _of_projection(recipe))
    return PROCESS + int(SLACK * (4 * images * numbers + work))


def largest(space: SearchSpace) -> dict[str, Any]:
    """The parameters of a space that take most memory, as more does in every setting that is a number."""
    params: dict[str, Any] = {}
    for key, values in space.ranges.items():
        if space.applies(key, params):
            params[key] = _most(values)
    return params


def _most(values: Range) -> Any:
    listed = values.values() or [values.high]  # type: ignore[union-attr]
    numbers = [value for value in listed if isinstance(value, int | float)]
    return max(numbers) if numbers else listed[0]


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
    # latents and errors of the steps that are kept, once apart and once together
    recorded = 2 * 4 * chunk * len(recipe.bounds.steps) * (config.gan.latent_dim + 1)
    return few + (more - few) * (chunk - latents) // latents + recorded


def _peak(work: Callable[[], object]) -> int:
    memory = PeakMemory()
    with memory:
        work()
    return int(memory.peak)
