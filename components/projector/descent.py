"""The descent of many restarts at once: the objective, what a step is, and the loop of evaluations and steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.hardware import Captured
from components.projector.settings import ProjectorSettings
from components.projector.trace import DescentState

Memory = dict[str, Tensor]  # what a descent remembers of the steps before: tensors of the latents' shape


def l2(difference: Tensor, tolerance: float) -> Tensor:
    """Mean square over each image: (…, C, H, W) → (…)."""
    return difference.square().flatten(-3).mean(-1)


def huber(difference: Tensor, tolerance: float) -> Tensor:
    """Huber's loss (1964), quadratic up to `tolerance` and linear beyond, scaled to agree with `l2` near zero."""
    size = difference.abs()
    inner = size.clamp(max=tolerance)
    return (inner * (2 * size - inner)).flatten(-3).mean(-1)


def insensitive(difference: Tensor, tolerance: float) -> Tensor:
    """Mean of max(|d| − tolerance, 0)²: Vapnik's ε-insensitive loss, squared.

    What an attack of radius ≤ tolerance can have added costs nothing, so it is not fitted.
    """
    return functional.softshrink(difference, tolerance).square().flatten(-3).mean(-1)


DISTANCES = {"l2": l2, "huber": huber, "insensitive": insensitive}


class Objective:
    """Distance between the image of a latent and the image that is sought, and what is added to it.

    Args:
        config: of the projector.
        generator: folded and frozen, where and in the precision in which it is to compute.
        discriminator: scores realism, where `config.realism_weight` is positive.
    """

    def __init__(self, config: ProjectorSettings, generator: nn.Module, discriminator: nn.Module | None) -> None:
        self.config, self.generator, self.discriminator = config, generator, discriminator
        self._precision = next(generator.parameters()).dtype

    def images(self, latents: Tensor) -> Tensor:
        """G(z): latents (m, latent_dim) → images (m, C, H, W) in [0, 1], in the latents' precision."""
        images: Tensor = self.generator(latents.to(self._precision))
        return images.to(latents.dtype)

    def distances(self, images: Tensor, targets: Tensor) -> Tensor:
        """(…, C, H, W) and what is sought, likewise → (…)."""
        return DISTANCES[self.config.distance](images - targets, self.config.tolerance)

    def loss(self, latents: Tensor, images: Tensor, errors: Tensor) -> Tensor:
        """The sum of all terms: the step of an image must not depend on how many others are in the batch.

        Args:
            latents: (m, latent_dim).
            images: of the latents, (m, C, H, W).
            errors: their distances, (m,).
        """
        loss, config = errors.sum(), self.config
        if config.prior_weight:
            loss = loss + config.prior_weight * latents.square().mean(1).sum()
        if config.realism_weight and self.discriminator is not None:
            loss = loss + config.realism_weight * functional.softplus(-self.discriminator(images)).sum()
        return loss

    @torch.no_grad()
    def errors(self, latents: Tensor, targets: Tensor) -> Tensor:
        """Latents (m, latent_dim), images (m, C, H, W) → distances (m,)."""
        return self.distances(self.images(latents), targets)

    @torch.enable_grad()
    def slope(self, latents: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (m, latent_dim), images (m, C, H, W) → distances (m,) and the loss's gradient by the latents."""
        latents = latents.detach().requires_grad_()
        images = self.images(latents)
        errors = self.distances(images, targets)
        (gradient,) = torch.autograd.grad(self.loss(latents, images, errors), latents)
        return errors.detach(), gradient


class Descent(Protocol):
    """A step on many latents, each row as if it were alone: latents and the gradient there → the next latents.

    A gradient passes through both.
    """

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


def descent_of(config: ProjectorSettings) -> Descent:
    """The steps of the configured optimizer."""
    if config.optimizer == "sgd":
        return Momentum(config.learning_rate, config.momentum)
    return Adam(config.learning_rate)


class Buffers:
    """The restarts of n images in tensors that stay, and a step on them.

    Attributes:
        latents: (n, R, latent_dim).
        memory: the descent's, likewise.
        targets: what is sought, (n, R, C, H, W).
        errors: (n, R), of where the latents stood before the last step.
        count: of steps, on the device, 0-dimensional.
    """

    def __init__(self, objective: Objective, descent: Descent, images: Tensor, begin: DescentState) -> None:
        self._objective, self._descent = objective, descent
        self.latents = torch.empty_like(begin.latents, memory_format=torch.contiguous_format)
        self.memory = {name: torch.empty_like(self.latents) for name in begin.memory}
        self.targets = images.new_empty((*self.latents.shape[:2], *images.shape[1:]))
        self.errors = self.latents.new_empty(self.latents.shape[:2])
        self.count = torch.zeros((), dtype=torch.float64, device=images.device)

    def begin(self, images: Tensor, begin: DescentState) -> None:
        """Writes where the restarts of these images stand."""
        self.latents.copy_(begin.latents)
        self.targets.copy_(images.unsqueeze(1).expand_as(self.targets))
        for name, tensor in begin.memory.items():
            self.memory[name].copy_(tensor)
        self.count.fill_(begin.step)

    def advance(self) -> None:
        """One step of every restart."""
        z = self.latents.flatten(0, 1)
        errors, gradient = self._objective.slope(z, self.targets.flatten(0, 1))
        self.errors.copy_(errors.view_as(self.errors))
        self.count += 1
        memory = {name: part.flatten(0, 1) for name, part in self.memory.items()}
        moved, remembered = self._descent(self.count, z, gradient, memory)
        z.copy_(moved)
        for name, part in remembered.items():
            memory[name].copy_(part)


class DescentLoop:
    """The steps of n images' restarts, so that a card can take each as one CUDA graph.

    Args:
        objective: of the descent.
        descent: gradient → step.
        images: (n, C, H, W); gives the number of images, their shape, type and device.
        begin: gives the shape of the latents, (n, R, latent_dim).
        calls: steps that will be taken in all.
    """

    def __init__(self, objective: Objective, descent: Descent, images: Tensor, begin: DescentState, calls: int) -> None:
        self._objective = objective
        # what the step holds does not hold the step: a graph and its memory go with the loop, not when Python cleans up
        self._held = Buffers(objective, descent, images, begin)
        self._step = Captured(self._held.advance, images.device, calls)

    def run(self, images: Tensor, begin: DescentState, record: Sequence[int]) -> tuple[Tensor, Tensor, DescentState]:
        """Steps up to the last of `record`.

        Args:
            images: (n, C, H, W), of the shape given before.
            begin: where they stand.
            record: the step counts to keep, ascending.

        Returns:
            Latents (n, S, R, latent_dim) and errors (n, S, R) at the recorded steps, and where they stand at last.
        """
        held, latents, errors = self._held, [], []
        held.begin(images, begin)
        for step in range(begin.step, record[-1]):
            if step in record:
                latents.append(held.latents.clone())
            self._step()
            if step in record:
                errors.append(held.errors.clone())
        latents.append(held.latents.clone())
        last = self._objective.errors(held.latents.flatten(0, 1), held.targets.flatten(0, 1))
        errors.append(last.view_as(held.errors))
        memory = {name: tensor.clone() for name, tensor in held.memory.items()}
        return torch.stack(latents, 1), torch.stack(errors, 1), DescentState(record[-1], latents[-1], memory)
