"""The U-Net that cleans what projection leaves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.layout import channels_last
from components.unet.config import Input

_IMAGES = {"generated": 1, "both": 2, "attacked": 1}  # that a U-Net reads for each that it returns


class UNet(nn.Module):
    """Images (N, C, H, W) in [0, 1] → denoised images of the same shape and range.

    A contracting and an expansive path with skip connections (Ronneberger, Fischer, Brox 2015, figure 1). The
    output is a correction that is added to the input. Any H and W: images are padded to a multiple of 2^depth and
    cropped again.

    Args:
        channels: C of the images it returns.
        width: channels at full size.
        depth: halvings.
        input: what it reads, see `join`.
    """

    def __init__(self, channels: int, width: int, depth: int, input: Input = "generated") -> None:
        super().__init__()
        self.channels, self.width, self.depth, self.input = channels, width, depth, input
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(map(_block, [channels * _IMAGES[input], *widths[:-1]], widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2 * after, after, 2, 2) for after in widths[:-1])
        self.up = nn.ModuleList(_block(2 * after, after) for after in widths[:-1])
        self.out = nn.Conv2d(width, channels, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)  # the first correction is none
        channels_last(self)

    @property
    def settings(self) -> dict[str, Any]:
        """The values of its constructor but for the images' channels."""
        return {"width": self.width, "depth": self.depth, "input": self.input}

    def forward(self, images: Tensor) -> Tensor:
        """Output of `join`, in [0, 1] → denoised (N, C, H, W) in [0, 1]; the first C channels are corrected."""
        height, width = images.shape[-2:]
        multiple = 2**self.depth
        maps = functional.pad(images, (0, -width % multiple, 0, -height % multiple))
        skips = []
        for level, block in enumerate(self.down):
            maps = block(functional.max_pool2d(maps, 2) if level else maps)
            skips.append(maps)
        for level in reversed(range(self.depth)):
            maps = self.up[level](torch.cat([skips[level], self.grow[level](maps)], 1))
        correction: Tensor = self.out(maps)[..., :height, :width]
        return (images[:, : self.channels] + correction).clamp(0, 1)


def join(input: Input, generated: Tensor, images: Tensor) -> Tensor:
    """Builds the U-Net's input from x_g and the image that was projected.

    Args:
        input: what to join.
        generated: x_g, (N, C, H, W).
        images: (N, C, H, W).

    Returns:
        generated: x_g. both: x_g, then the image, (N, 2C, H, W). attacked: the image alone.
    """
    chosen = {"both": (generated, images), "attacked": (images,)}.get(input, (generated,))
    return torch.cat(chosen, 1)


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        convolution = nn.Conv2d(channels, after, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
