"""A gradient for what has none: stand-ins by which a gradient passes through squeezing and descent.

    x ── squeezed ──▶ x̃ ── descent in z ──▶ z* ── G ──▶ x_g

Values are always those of the real projector; only the gradient is that of a stand-in (BPDA: Athalye, Carlini, Wagner,
Obfuscated gradients give a false sense of security, ICML 2018, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from components import squeezing
from components.projector.descent import Adam, Descent, Momentum
from components.projector.distances import DISTANCES
from components.squeezing import squeezed_with_gradient

if TYPE_CHECKING:
    from components.projector.config import ProjectorConfig
    from components.projector.projector import Projector

UNROLLED = 10  # steps of the descent that are unrolled where nothing else is said


class NoGradient(ValueError):
    """No gradient passes through a part of the defense; the message names it, and the stand-ins that exist."""


@dataclass(frozen=True)
class Surrogates:
    """Stand-ins for the parts of a projector that have no gradient of their own.

    Attributes:
        squeezing: of the grey levels, see `squeezing.squeezed_with_gradient`.
        descent: encoder: the latent moves as the encoder's guess does, and the steps are skipped; unrolled: through the
            last steps of the winning restart, to its start where the encoder made that. None: encoder where the
            projector starts from one, else unrolled.
        steps: the most steps that are unrolled; those before them are taken as they are.
        exact: whether values are the real ones; if not, and the encoder stands in, x_g is G(E(x)), for an attacker to
            whom fewer operations are worth more than the last digit.
    """

    squeezing: squeezing.Surrogate = "straight_through"
    descent: Literal["encoder", "unrolled"] | None = None
    steps: int = UNROLLED
    exact: bool = True


def reconstruct(
    projector: Projector, generate: Callable[[Tensor], Tensor], images: Tensor, surrogates: Surrogates
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


def _unrolled(projector: Projector, images: Tensor, seen: Tensor, most: int) -> Tensor:
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
    descent = _descent(config)
    for step in range(first + 1, config.steps + 1):
        if not latents.requires_grad:
            latents.requires_grad_()
        loss = _loss(projector, generator(latents), latents, seen)
        (gradient,) = torch.autograd.grad(loss, latents, create_graph=True)
        # a root's slope at zero is infinite, where Adam has met no gradient yet
        gradient.register_hook(lambda slope: torch.nan_to_num(slope, 0, 0, 0))
        latents, memory = descent(step, latents, gradient, memory)
    return latents


@torch.no_grad()
def _before(projector: Projector, images: Tensor, first: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Latents and memory of each image's winner after step `first`."""
    begun = projector.trace(images, [first])
    done = projector.extend(begun, images, [first, projector.config.steps])
    standing = begun.standing
    assert standing is not None
    rows, restarts = torch.arange(len(images)), torch.arange(done.restarts)
    winners = (done.leads[:, -1] * (restarts + 1)).argmax(1)  # the last that leads
    memory = {name: tensor[rows, winners].to(images.device) for name, tensor in standing.memory.items()}
    return standing.latents[rows, winners].to(images.device), memory


def _descent(config: ProjectorConfig) -> Descent:
    made: Mapping[str, Descent] = {
        "adam": Adam(config.learning_rate),
        "sgd": Momentum(config.learning_rate, config.momentum),
    }
    return made[config.optimizer]


def _loss(projector: Projector, generated: Tensor, latents: Tensor, targets: Tensor) -> Tensor:
    """The objective of the descent, summed over images; the same as the projector's."""
    config = projector.config
    loss: Tensor = DISTANCES[config.distance](generated - targets, config.tolerance).sum()
    if config.prior_weight:
        loss = loss + config.prior_weight * latents.square().mean(1).sum()
    if config.realism_weight and projector.discriminator is not None:
        loss = loss + config.realism_weight * nn.functional.softplus(-projector.discriminator(generated)).sum()
    return loss
