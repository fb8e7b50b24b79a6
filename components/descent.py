"""Steps on many latents at once, each row as if it were alone."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Descent(Protocol):
    """Latents and the gradient there → the next latents; it remembers the steps before."""

    def __call__(self, z: Tensor, gradient: Tensor) -> Tensor:
        """Both of one shape, which stays the same from call to call."""
        ...


class Momentum:
    """SGD with momentum, v ← μv + g, z ← z − ηv."""

    def __init__(self, rate: float, momentum: float) -> None:
        self.rate, self.momentum = rate, momentum
        self.velocity: Tensor | None = None

    def __call__(self, z: Tensor, gradient: Tensor) -> Tensor:
        self.velocity = gradient if self.velocity is None else self.momentum * self.velocity + gradient
        return z - self.rate * self.velocity


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) with its published decays."""

    def __init__(self, rate: float) -> None:
        self.rate, self.step = rate, 0
        self.mean: Tensor | None = None
        self.square: Tensor | None = None

    def __call__(self, z: Tensor, gradient: Tensor) -> Tensor:
        self.step += 1
        if self.mean is None or self.square is None:
            self.mean, self.square = torch.zeros_like(z), torch.zeros_like(z)
        self.mean = self.mean.lerp(gradient, 0.1)
        self.square = self.square.lerp(gradient.square(), 0.001)
        mean, square = self.mean / (1 - 0.9**self.step), self.square / (1 - 0.999**self.step)
        return z - self.rate * mean / (square.sqrt() + 1e-8)
