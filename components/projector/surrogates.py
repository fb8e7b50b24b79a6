"""A gradient for what has none: stand-ins by which a gradient passes through squeezing and descent.

    x ── squeezed ──▶ x̃ ── descent in z ──▶ z* ── G ──▶ x_g

Values are those of the real projector, unless `Surrogates.exact` is given up; only the gradient is that of a stand-in
(BPDA: Athalye, Carlini, Wagner, Obfuscated gradients give a false sense of security, ICML 2018, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from components.projector.descent import Objective, descent_of
from components.projector.settings import ProjectorSettings
from components.projector.trace import Projection, ProjectionTrace
from components.purifiers import NoGradient, Surrogates
from components.squeezing import squeezed_with_gradient


class Descending(Protocol):
    """The parts of a projector that its gradient goes through."""

    @property
    def config(self) -> ProjectorSettings:
        """Its settings."""
        ...

    @property
    def generator(self) -> Any:
        """Latents → images."""
        ...

    @property
    def encoder(self) -> nn.Module | None:
        """Images → latents, where there is one."""
        ...

    @property
    def objective(self) -> Objective:
        """The objective that its descent minimises."""
        ...

    def project(self, images: Tensor) -> Projection:
        """As `Projector.project`."""
        ...

    def trace(self, images: Tensor, record: Sequence[int]) -> ProjectionTrace:
        """As `Projector.trace`."""
        ...

    def extend(self, trace: ProjectionTrace, images: Tensor, record: Sequence[int]) -> ProjectionTrace:
        """As `Projector.extend`."""
        ...


def reconstruct(
    projector: Descending, generate: Callable[[Tensor], Tensor], images: Tensor, surrogates: Surrogates
) -> Tensor:
    """x_g of `images` (N, C, H, W), with a gradient to them.

    Args:
        projector: what is differentiated.
        generate: its generator in the images' precision and on their device, differentiable by the latents.
        images: in [0, 1], on the projector's device.
        surrogates: what gives the gradient.

    Raises:
        NoGradient: the projector has not what the surrogate needs.
    """
    descent = surrogates.descent or ("encoder" if projector.config.init == "encoder" else "unrolled")
    if descent == "encoder" and projector.encoder is None:
        raise NoGradient(
            "surrogates.descent: expected an encoder to stand in for the descent, found none "
            f"(projector.init: {projector.config.init}); the surrogate that exists is: unrolled"
        )
    seen = squeezed_with_gradient(images, projector.config.levels, projector.config.threshold, surrogates.squeezing)
    if descent == "encoder" and not surrogates.exact and projector.encoder is not None:
        return generate(projector.encoder(seen))
    with torch.no_grad():
        found = projector.project(images.detach())
    if descent == "encoder":
        assert projector.encoder is not None
        latents = projector.encoder(seen)
    else:
        latents = _unrolled(projector, images.detach(), seen, surrogates.steps)
    latents = found.latents + _gradient_only(latents)
    return found.images + _gradient_only(generate(latents))


def _gradient_only(tensor: Tensor) -> Tensor:
    """Zero, with the gradient of `tensor`."""
    return tensor - tensor.detach()


def _unrolled(projector: Descending, images: Tensor, seen: Tensor, most: int) -> Tensor:
    """The winner's latent (N, latent_dim) as a function of the squeezed images `seen`, by its last steps."""
    config, generator = projector.config, projector.generator
    if not isinstance(generator, nn.Module):
        exist = "encoder" if config.init == "encoder" else "none"
        found = f"found {type(generator).__name__}; surrogates that exist: {exist}"
        raise NoGradient(f"projector.generator: expected a torch module, through which steps are unrolled, {found}")
    first = max(0, config.steps - most)
    latents, memory = _before(projector, images, first)
    if config.init == "encoder" and first == 0:
        assert projector.encoder is not None
        latents = latents + _gradient_only(projector.encoder(seen))
    descent = descent_of(config)
    for step in range(first + 1, config.steps + 1):
        if not latents.requires_grad:
            latents.requires_grad_()
        generated = generator(latents)
        loss = projector.objective.loss(latents, generated, projector.objective.distances(generated, seen))
        (gradient,) = torch.autograd.grad(loss, latents, create_graph=True)
        # a root's slope at zero is infinite, where Adam has met no gradient yet
        gradient.register_hook(lambda slope: torch.nan_to_num(slope, 0, 0, 0))
        latents, memory = descent(step, latents, gradient, memory)
    return latents


@torch.no_grad()
def _before(projector: Descending, images: Tensor, first: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Latents and memory of each image's winner after step `first`."""
    begun = projector.trace(images, [first])
    done = projector.extend(begun, images, [first, projector.config.steps])
    standing = begun.standing
    assert standing is not None
    rows, restarts = (torch.arange(count, device="cpu") for count in (len(images), done.restarts))
    winners = (done.leads[:, -1] * (restarts + 1)).argmax(1)  # the last that leads
    memory = {name: tensor[rows, winners].to(images.device) for name, tensor in standing.memory.items()}
    return standing.latents[rows, winners].to(images.device), memory
