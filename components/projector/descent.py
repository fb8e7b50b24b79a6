"""Steps on many latents at once, each row as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

Memory = dict[str, Tensor]  # what a descent remembers of the steps before: tensors of the latents' shape


class Descent(Protocol):
    """Latents and the gradient there → the next latents, in the same tensors."""

    @property
    def remembers(self) -> Sequence[str]:
        """The names of its memory, which is zero before the first step."""
        ...

    def __call__(self, step: Tensor, z: Tensor, gradient: Tensor, memory: Memory) -> None:
        """Moves the latents (m, latent_dim) and the memory by step number `step`, a float64 scalar from 1."""
        ...


class Momentum:
    """SGD with momentum, v ← μv + g, z ← z − ηv."""

    remembers = ("velocity",)

    def __init__(self, rate: float, momentum: float) -> None:
        self.rate, self.momentum = rate, momentum

    @torch.no_grad()
    def __call__(self, step: Tensor, z: Tensor, gradient: Tensor, memory: Memory) -> None:
        velocity = memory["velocity"].mul_(self.momentum).add_(gradient)
        z.sub_(self.rate * velocity)


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) with its published decays."""

    remembers = ("mean", "square")

    def __init__(self, rate: float) -> None:
        self.rate = rate

    @torch.no_grad()
    def __call__(self, step: Tensor, z: Tensor, gradient: Tensor, memory: Memory) -> None:
        mean = memory["mean"].lerp_(gradient, 0.1)
        square = memory["square"].lerp_(gradient.square(), 0.001)
        unbiased, spread = mean / (1 - 0.9**step), (square / (1 - 0.999**step)).sqrt_()
        z.sub_(self.rate * unbiased / spread.add_(1e-8))
