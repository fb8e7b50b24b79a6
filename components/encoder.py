"""An encoder that guesses the latent of a noisy image: a start for the projector, learned from the generator alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.training import Training, drawn_from


class Encoder(nn.Module):
    """Images (N, C, H, W) in [0, 1], attacked or not → a guess at their latents (N, latent_dim).

    Args:
        latent_dim: length of z.
        width: channels of the first map.
        image_shape: (C, H, W), at least 8 × 8.
    """

    def __init__(self, latent_dim: int, width: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.latent_dim, self.width, self.image_shape = latent_dim, width, image_shape
        channels = [image_shape[0], width, 2 * width, 4 * width]
        blocks: list[nn.Module] = []
        for before, after in pairwise(channels):
            blocks += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*blocks, nn.Flatten())
        with torch.no_grad():
            features = self.body.eval()(torch.zeros(1, *image_shape)).shape[1]
        self.head = nn.Sequential(nn.Linear(features, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, latent_dim))
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] → latents (N, latent_dim)."""
        latents: Tensor = self.head(self.body(images))
        return latents


class EncoderTraining(Training):
    """Draws z, hides G(z) under random noise, and learns to find it again.

    No image of the data is used and no attack: the noise is ±ε per pixel or per patch, of random signs and strength, so
    nothing of a classifier or of a label can leak into the starts.

    Args:
        generator: trained; a frozen copy is used.
        image_shape: (C, H, W).
        width: of the encoder.
        steps: gradient steps.
        steps_per_epoch: steps between two saves.
        noise: the largest ε.
        batch_size: images per step.
        seed: of weights, latents and noise.
        device: where to train.
    """

    def __init__(
        self,
        generator: Any,
        image_shape: tuple[int, int, int],
        *,
        width: int,
        steps: int,
        steps_per_epoch: int,
        noise: float = 0.4,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(-(-steps // steps_per_epoch), seed, device)
        self.steps, self.steps_per_epoch, self.noise, self.batch_size = steps, steps_per_epoch, noise, batch_size
        self._generator = generator.folded().to(device)
        with drawn_from(seed):
            self.encoder = Encoder(generator.latent_dim, width, image_shape)
        self.encoder.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.encoder.parameters(), 3e-3)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 3e-3, total_steps=steps + 1)

    def parts(self) -> Mapping[str, Any]:
        return {"encoder": self.encoder, "optimizer": self.optimizer, "schedule": self.schedule}

    def run_epoch(self) -> dict[str, float]:
        self.encoder.train()
        first = self.epoch * self.steps_per_epoch
        last = min(first + self.steps_per_epoch, self.steps)
        total = 0.0
        for step in range(first, last):
            total += self._step(patch=(1, 1, 2, 4)[step % 4])
        self.encoder.eval()
        return {"encoder_loss": total / (last - first)}

    def _step(self, patch: int) -> float:
        latents = torch.randn(self.batch_size, self.encoder.latent_dim, device=self.device)
        with torch.no_grad():
            images = self._generator(latents)
            noisy = self._noisy(images, patch)
        guess = self.encoder(noisy)
        # What counts is the image; the latents' own distance keeps the guess where the generator was trained.
        pixels = functional.mse_loss(self._generator(guess), images)
        loss = 30 * pixels + 0.1 * functional.mse_loss(guess, latents)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())

    def _noisy(self, images: Tensor, patch: int) -> Tensor:
        """The images with ±ε on each patch of `patch` × `patch` pixels, ε uniform in 0 … `noise` for each image."""
        count, channels, height, width = images.shape
        shape = (count, channels, -(-height // patch), -(-width // patch))
        signs = torch.randn(shape, device=images.device).sign()
        signs = functional.interpolate(signs, scale_factor=patch, mode="nearest")[..., :height, :width]
        strength = self.noise * torch.rand(count, 1, 1, 1, device=images.device)
        return (images + strength * signs).clamp(0, 1)
