"""Steps on many latents at once, each row as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

Memory = dict[str, Tensor]  # what a descent remembers of the steps before: tensors of the latents' shape


class Descent(Protocol):
    """Latents and the gradient there → the next latents; a gradient passes through both."""

    @property
    def remembers(self) -> Sequence[str]:
        """The names of its memory, which is zero before the first step."""
        ...

    def __call__(self, step: Tensor | int, z: Tensor, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """The latents (m, latent_dim) and the memory after step number `step`, counted from 1."""
        ...


class Momentum:
    """SGD with momentum, v ← μv + g, z ← z − ηv."""

    remembers = ("velocity",)

    def __init__(self, rate: float, momentum: float) -> None:
        self.rate, self.momentum = rate, momentum

    def __call__(self, step: Tensor | int, z: Tensor, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        velocity = self.momentum * memory["velocity"] + gradient
        return z - self.rate * velocity, {"velocity": velocity}


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) with its published decays."""

    remembers = ("mean", "square")

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, step: Tensor | int, z: Tensor, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        mean = memory["mean"].lerp(gradient, 0.1)
        square = memory["square"].lerp(gradient.square(), 0.001)
        unbiased, spread = mean / (1 - 0.9**step), (square / (1 - 0.999**step)).sqrt()
        return z - self.rate * unbiased / (spread + 1e-8), {"mean": mean, "square": square}
