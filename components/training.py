"""The training loop of every network: epochs that can be interrupted and continued to the same result."""

from __future__ import annotations

import copy
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from components.hardware import Captured
from components.optimizer import Adam
from components.precision import Precision, resolved

Network = TypeVar("Network", bound=nn.Module)


class TrainingDiverged(RuntimeError):
    """A loss or metric became NaN or infinite; more steps cannot mend that."""


class Training(ABC):
    """A component's training, one epoch at a time.

    Each epoch draws all its random numbers (order, noise, dropout) from a seed of its own, so a training that was
    stopped after epoch k and continued from `state_dict()` ends in the same weights as one that was not. On a card they
    are alike and not the same: its convolutions are chosen anew after each start, by their time.

    Iterating runs the remaining epochs and yields their metrics:

        for metrics in training: ...
    """

    def __init__(self, epochs: int, seed: int, device: torch.device | str = "cpu") -> None:
        self.epochs = epochs
        self.epoch = 0
        self.seed = seed
        self.device = torch.device(device)
        self._batches: Batches | None = None

    @abstractmethod
    def run_epoch(self) -> dict[str, float]:
        """Trains one epoch and returns its metrics."""

    @abstractmethod
    def parts(self) -> Mapping[str, Any]:
        """Everything with a `state_dict` that the next epoch depends on, by name."""

    def __iter__(self) -> Iterator[dict[str, float]]:
        while self.epoch < self.epochs:
            with seeded(self.seed, self.epoch):
                metrics = self.run_epoch()
            self.epoch += 1
            for name, value in metrics.items():
                if not math.isfinite(value):
                    found = f"found {value} in epoch {self.epoch}"
                    raise TrainingDiverged(f"{name}: expected a finite number, {found}")
            yield metrics

    def run(self) -> dict[str, float]:
        """Runs all remaining epochs and returns the metrics of the last."""
        last: dict[str, float] = {}
        for metrics in self:
            last = metrics
        return last

    def descend(
        self,
        loss: Callable[[Tensor], Tensor],
        optimizer: Adam,
        schedule: LRScheduler,
        count: int,
        size: int,
        calls: int | None = None,
    ) -> float:
        """One step for each batch of an epoch.

        Args:
            loss: indices int64 (B,), on the training's device → the mean loss of those images, a scalar.
            optimizer: of the network.
            schedule: of the optimizer, one step per batch.
            count: images to draw the batches from.
            size: images per batch.
            calls: full batches of all epochs; None = of epochs that all have `count` images.

        Returns:
            The mean loss over the images.
        """
        if self._batches is None:
            calls = self.epochs * (count // size) if calls is None else calls
            self._batches = Batches(loss, optimizer, size, self.device, calls)
        return self._batches.run(count, schedule.step)

    def state_dict(self) -> dict[str, Any]:
        """State after the last finished epoch.

        Tensors and numbers only, so it can be read without unpickling code. As in torch, the tensors are the
        live ones: save or copy them before training on.
        """
        return {"epoch": self.epoch, **{name: part.state_dict() for name, part in self.parts().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`.

        Raises:
            KeyError, RuntimeError: it belongs to another architecture; nothing has changed.
        """
        before = copy.deepcopy(self.state_dict())
        try:
            self._load(state)
        except BaseException:
            self._load(before)
            raise

    def _load(self, state: Mapping[str, Any]) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.epoch = int(state["epoch"])


class Batches:
    """The steps of an epoch, one per batch; what they need and what they make stays on the device.

    Args: see `Training.descend`; `calls` is how many full batches there will be in all epochs.
    """

    def __init__(
        self, loss: Callable[[Tensor], Tensor], optimizer: Adam, size: int, device: torch.device, calls: int
    ) -> None:
        self.loss, self.optimizer, self.size = loss, optimizer, size
        self._index = torch.zeros(size, dtype=torch.int64, device=device)
        self._total = torch.zeros((), device=device)
        self._step = Captured(lambda: self._train(self._index), device, calls)

    def run(self, count: int, after: Callable[[], None]) -> float:
        """An epoch over `count` images, `after` being called after each step: the mean loss, read once."""
        self._total.zero_()
        seen = 0
        for index in batches(count, self.size, self._total.device):
            self.optimizer.step()
            if len(index) == self.size:
                self._index.copy_(index)
                self._step()
            else:
                self._train(index)
            after()
            seen += len(index)
        return float(self._total) / seen

    def _train(self, index: Tensor) -> None:
        loss = self.loss(index)
        self.optimizer.descend(loss)
        self._total += loss.detach() * len(index)


@contextmanager
def seeded(*seeds: int) -> Iterator[None]:
    """Within the block the global random state follows from `seeds` alone; then it is what it was before."""
    with drawn_from(mix(*seeds)):
        yield


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Within the block torch draws as after `torch.manual_seed(seed)`; then as if nothing had been drawn."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []  # `manual_seed` seeds every card
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def mix(*seeds: int) -> int:
    """One 63-bit seed from several numbers, such that neighbouring inputs give unrelated streams."""
    digest = hashlib.sha256(",".join(map(str, seeds)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def batches(count: int, size: int, device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """Indices 0 … count-1 in a random order, in groups of `size`; a last group of fewer than two is left out.

    Batch normalisation cannot train on one image. The order is drawn on the processor, so that it is the same on every
    device, and goes to `device` as a whole.
    """
    for group in torch.randperm(count, device="cpu").to(device).split(size):
        if len(group) > 1 or count == 1:
            yield group


def freeze(module: Network) -> Network:
    """Sets `module` to evaluation mode and stops gradients to its weights (they still pass through it)."""
    module.eval().requires_grad_(False)
    return settle(module)


def settle(module: Network) -> Network:
    """Frees `module` of what its last pass left, so that it can be copied.

    A hook such as that of `torch.nn.utils.weight_norm` derives a weight in each pass, and keeps it with its gradient's
    graph, of which torch makes no copies. The next pass derives it again.
    """
    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                vars(part)[name] = value.detach()
    return module


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Within the block matrix products run in `precision`; weights, sums and losses stay in float32."""
    enabled = resolved(precision, device) == "bfloat16"
    # without the cache, whose copies of the weights a CUDA graph would go on using
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def uncast(device: torch.device) -> torch.autocast:
    """Within the block no autocast of the caller's changes what is computed; the threads of a pool know of none."""
    return torch.autocast(device.type, enabled=False)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within the block `module` is in evaluation mode; then each part of it is in the mode it was in before."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
