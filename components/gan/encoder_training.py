"""Encoder and generator, trained together to rebuild images from noisy copies of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from components.gan.encoder import Encoder
from components.gan.networks import Generator
from components.hardware import Captured
from components.optimizer import Adam
from components.precision import Precision
from components.squeezing import squeezed
from components.training import Training, autocast, drawn_from

_PATCHES = 1, 1, 2, 4  # pixels to a side of the noise's patches, in turns
_RATES = 2e-3, 1e-3  # Adam's at the peak of a one-cycle schedule, of encoder and generator


class EncoderTraining(Training):
    """Teaches encoder and generator together to rebuild training images from noisy copies of them.

    The generator, trained as one half of a GAN, goes on learning: what it could not make of the training images, no
    search in its latents would find. The images are clean and unlabelled and no classifier is attacked: the noise is ±ε
    per pixel or per patch, of random signs and strength, so nothing of a classifier or label can leak into the starts.
    (A denoising autoencoder, Vincent et al. 2008, whose decoder is the generator.)

    Args:
        generator: trained; a copy of it is.
        images: (N, C, H, W) in [0, 1].
        width: of the encoder.
        steps: gradient steps.
        steps_per_epoch: steps between two saves.
        levels: grey levels that the noisy copies are reduced to, as the projector will reduce its images.
        precision: of the matrix products.
        noise: the largest ε.
        batch_size: images per step.
        seed: of weights, order and noise.
        device: where to train.
    """

    def __init__(
        self,
        generator: Generator,
        images: Tensor,
        *,
        width: int,
        steps: int,
        steps_per_epoch: int,
        levels: int | None = None,
        precision: Precision = "float32",
        noise: float = 0.4,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(-(-steps // steps_per_epoch), seed, device)
        self.images, self.steps, self.steps_per_epoch = images.to(device), steps, steps_per_epoch
        self.levels, self.precision, self.noise, self.batch_size = levels, precision, noise, batch_size
        channels, height, breadth = images.shape[1:]
        with drawn_from(seed):
            self.encoder = Encoder(generator.latent_dim, width, (channels, height, breadth))
        self.encoder.to(self.device)
        self.generator = copy.deepcopy(generator).to(self.device).requires_grad_(True)
        # the encoder starts from nothing, the generator from what it has learned
        groups = [{"params": self.encoder.parameters()}, {"params": self.generator.parameters()}]
        self.optimizer = Adam(groups, 1e-3)
        self._total = torch.zeros((), device=self.device)
        self._captured = {
            patch: Captured(partial(self._step, patch), self.device, steps // len(_PATCHES)) for patch in set(_PATCHES)
        }
        self.schedule = OneCycleLR(self.optimizer, list(_RATES), total_steps=steps + 1)

    def parts(self) -> Mapping[str, Any]:
        return {
            "encoder": self.encoder,
            "generator": self.generator,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }

    def run_epoch(self) -> dict[str, float]:
        self.encoder.train()
        self.generator.train()
        first = self.epoch * self.steps_per_epoch
        last = min(first + self.steps_per_epoch, self.steps)
        self._total.zero_()
        for step in range(first, last):
            self.optimizer.step()
            self._captured[_PATCHES[step % len(_PATCHES)]]()
            self.schedule.step()
        self.encoder.eval()
        self.generator.eval()
        return {"reconstruction_loss": float(self._total) / (last - first)}

    def _step(self, patch: int) -> None:
        images = self.images[torch.randint(len(self.images), (self.batch_size,), device=self.device)]
        noisy = squeezed(self._noisy(images, patch), self.levels)
        with autocast(self.device, self.precision):
            latents = self.encoder(noisy)
            pixels = functional.mse_loss(self.generator(latents), images)
            # the latents' size keeps them where the generator was trained
            loss = 30 * pixels + 0.003 * latents.square().mean()
        self.optimizer.descend(loss)
        self._total += pixels.detach()

    def _noisy(self, images: Tensor, patch: int) -> Tensor:
        """The images with ±ε on each patch of `patch` × `patch` pixels, ε uniform in 0 … `noise` for each image."""
        count, channels, height, width = images.shape
        shape = (count, channels, -(-height // patch), -(-width // patch))
        signs = torch.randn(shape, device=images.device).sign()
        signs = functional.interpolate(signs, scale_factor=patch, mode="nearest")[..., :height, :width]
        strength = self.noise * torch.rand(count, 1, 1, 1, device=images.device)
        return (images + strength * signs).clamp(0, 1)
