"""How much memory a trial takes on a GPU, counted without one.

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

from components.classifiers.defense_gan import Classifier
from components.projector.projector import GPU_CHUNK
from tune.execution.rates import projector, trainings
from tune.pipeline.job import Bounds, Development
from tune.space.config import ExperimentConfig
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
    config = space.config(largest(space))
    images = len(data.train) + len(data.split("validation"))
    # of each image the original, the attacked and the rebuilt one, and what the classifier sees in it
    numbers = 3 * math.prod(data.image_shape) + _seen(config, data)
    work = max(_of_trainings(config, data), _of_projection(config, data, bounds))
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


def _seen(config: ExperimentConfig, data: Development) -> int:
    """Numbers of the representation of one image."""
    judge = Classifier(config.classifier.architecture, data.image_shape, data.classes).eval()
    return judge.features(data.train.images[:1], config.unet.layer).numel()


def _of_trainings(config: ExperimentConfig, data: Development) -> int:
    """A batch of each; what one leaves is gone before the next."""
    return max(_peak(training.run_epoch) for _, training, _ in trainings(config, data, CPU, batches=1))


def _of_projection(config: ExperimentConfig, data: Development, bounds: Bounds) -> int:
    """What grows with the number of latents at once is counted for two numbers, and continued to a GPU's."""
    runner = projector(config, data, CPU, config.projector.bank_size)
    runner.warm_up()
    few = _peak(lambda: runner.trace(data.train.images[:_FEW], [1]))
    more = _peak(lambda: runner.trace(data.train.images[: 2 * _FEW], [1]))
    latents, chunk = _FEW * runner.config.restarts, config.projector.chunk or GPU_CHUNK
    # latents and errors of the steps that are kept, once apart and once together
    recorded = 2 * 4 * chunk * len(bounds.steps) * (config.gan.latent_dim + 1)
    return few + (more - few) * (chunk - latents) // latents + recorded


def _peak(work: Callable[[], object]) -> int:
    memory = PeakMemory()
    with memory:
        work()
    return int(memory.peak)
