"""Generator and discriminator."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from components.gan.folded import FrozenGenerator
from components.training import freeze


class Generator(nn.Module):
    """Latent z (N, latent_dim) ~ N(0, I) → images (N, C, H, W) in [0, 1].

    The generator of Defense-GAN's MNIST experiments, a DCGAN (Radford et al. 2016), for images of any size:
    maps of ⌈H/8⌉ × ⌈W/8⌉ are doubled three times, and cropped where that is more than ⌈H/4⌉, ⌈H/2⌉ and H.
    """

    def __init__(self, latent_dim: int, width: int, image_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_dim, self.width, self.image_shape = latent_dim, width, tuple(image_shape)
        channels, height, breadth = image_shape
        self.sizes = [(-(-height // scale), -(-breadth // scale)) for scale in (8, 4, 2, 1)]
        self.base = (4 * width, *self.sizes[0])
        features = math.prod(self.base)
        self.dense = nn.Sequential(nn.Linear(latent_dim, features), nn.BatchNorm1d(features))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(2 * after, after, 4, 2, 1), nn.BatchNorm2d(after))
            for after in (2 * width, width)
        )
        self.out = nn.ConvTranspose2d(width, channels, 4, 2, 1)

    @property
    def settings(self) -> dict[str, int]:
        """The values of its constructor but for the images' shape."""
        return {"latent_dim": self.latent_dim, "width": self.width}

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (N, latent_dim) → images (N, C, H, W) in [0, 1]."""
        maps: Tensor = functional.relu(self.dense(latents)).unflatten(1, self.base)
        maps = maps.contiguous(memory_format=torch.channels_last)
        for layer, (height, breadth) in zip([*self.up, self.out], self.sizes[1:], strict=True):
            maps = layer(maps)[..., :height, :breadth]
            maps = torch.sigmoid(maps) if layer is self.out else functional.relu(maps)
        return maps

    def folded(self) -> FrozenGenerator:
        """A frozen copy in evaluation mode with normalisation folded into the weights.

        It makes the same images, in fewer passes over the memory and by faster convolutions.
        """
        clone = freeze(copy.deepcopy(self))
        linear, norm = cast(tuple[nn.Linear, nn.BatchNorm1d], tuple(clone.dense))
        stages = [cast(tuple[nn.ConvTranspose2d, nn.BatchNorm2d], cast(nn.Sequential, up)) for up in clone.up]
        layers = [*(fuse_conv_bn_eval(conv, norm, transpose=True) for conv, norm in stages), clone.out]
        return FrozenGenerator(
            _weights(fuse_linear_bn_eval(linear, norm)), [_weights(layer) for layer in layers], self.base, self.sizes
        )


def _weights(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return cast(Tensor, layer.weight), cast(Tensor, layer.bias)


class Discriminator(nn.Module):
    """Images (N, C, H, W) in [0, 1] → realism scores (N,): logits, higher is more like the training images.

    Raises:
        ValueError: images of fewer than 8 × 8 pixels, which cannot be halved three times.
    """

    def __init__(self, width: int, image_shape: Sequence[int]) -> None:
        super().__init__()
        if min(image_shape[1:]) < 8:
            found = f"{image_shape[1]} × {image_shape[2]}"
            raise ValueError(f"gan: expected images of at least 8 × 8, found {found}")
        self.width, self.image_shape = width, tuple(image_shape)
        self.body = nn.Sequential(
            nn.Conv2d(image_shape[0], width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.score = nn.Linear(4 * width * math.prod(size // 8 for size in image_shape[1:]), 1)

    @property
    def settings(self) -> dict[str, int]:
        """The values of its constructor but for the images' shape."""
        return {"width": self.width}

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] → scores (N,)."""
        scores: Tensor = self.score(self.body(images))
        return scores.squeeze(1)
