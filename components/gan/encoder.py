"""An encoder that guesses the latent of a noisy image, and so where the projector starts."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from components.layout import channels_last


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
        channels_last(self).train()

    @property
    def settings(self) -> dict[str, int]:
        """The values of its constructor but for the images' shape and the latents, which are the generator's."""
        return {"width": self.width}

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] → latents (N, latent_dim)."""
        latents: Tensor = self.head(self.body(images))
        return latents
