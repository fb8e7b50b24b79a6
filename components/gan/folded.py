"""The generator as the projector runs it: frozen, and made of the convolutions that processors are fast at.

A transposed convolution of stride 2 has a slow path for few output channels, and its backward another. Written over
2 × 2 blocks of pixels it is an ordinary 2 × 2 convolution with four times the output channels (the sub-pixel
convolution of Shi et al. 2016), forwards and backwards: output rows 2j − 1 and 2j follow from input rows j − 1 and j,
through the kernel's rows 2 + a − 2u, where a, u ∈ {0, 1} count the rows of the block and of the input. The last two
layers follow each other without leaving the blocks. `benchmarks/projection.py` measures what it gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class FrozenGenerator(nn.Module):
    """Latents (N, latent_dim) → images (N, C, H, W) in [0, 1], differentiable by the latents alone.

    Images are computed in the weights' precision up to the last map, whose sigmoid is taken in float32 or better.

    Args:
        dense: weight (features, latent_dim) and bias (features,) of the layer to `base`, normalisation folded in.
        layers: weight (before, after, 4, 4) and bias (after,) of the three transposed convolutions, of stride 2 and
            padding 1, likewise.
        base: (C, H, W) of the maps after the first layer.
        sizes: (H, W) of the maps after each layer, from the first to the image.
    """

    dense: Tensor
    dense_bias: Tensor
    first: Tensor
    first_bias: Tensor
    blocks: Tensor
    blocks_bias: Tensor
    blocks_back: Tensor
    cells: Tensor
    cells_bias: Tensor
    cells_back: Tensor

    def __init__(
        self,
        dense: tuple[Tensor, Tensor],
        layers: Sequence[tuple[Tensor, Tensor]],
        base: Sequence[int],
        sizes: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__()
        self.base, self.sizes = tuple(base), tuple(sizes)
        (first, first_bias), (second, second_bias), (third, third_bias) = layers
        blocks, cells = _blocks_of(second), _cells_of(third)
        # the first layer in the order of channels_last, so that its maps need no copy
        order = torch.arange(len(dense[1]), device=dense[1].device).view(self.base).permute(1, 2, 0).flatten()
        tensors = {
            "dense": dense[0][order],
            "dense_bias": dense[1][order],
            "first": first,
            "first_bias": first_bias,
            "blocks": blocks,
            "blocks_bias": second_bias.repeat(4),
            "blocks_back": blocks.transpose(0, 1).flip(2, 3),
            "cells": cells,
            "cells_bias": third_bias.repeat(16),
            "cells_back": cells.transpose(0, 1).flip(2, 3),
        }
        for name, tensor in tensors.items():
            fast = tensor.detach().clone(memory_format=_LAST if tensor.ndim == 4 else torch.contiguous_format)
            self.register_parameter(name, nn.Parameter(fast, requires_grad=False))
        self.eval()

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (N, latent_dim) → images (N, C, H, W) in [0, 1]."""
        images: Tensor = _Generate.apply(latents, self)
        return images


class _Generate(torch.autograd.Function):
    """Forward as ever; backward to the latents only, over the maps that the forward left."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, net: FrozenGenerator) -> Tensor:
        height, breadth = net.sizes[1]
        base = (latents @ net.dense.T).add_(net.dense_bias).relu_()
        maps = base.view(-1, *net.base[1:], net.base[0]).permute(0, 3, 1, 2)
        maps = functional.conv_transpose2d(maps, net.first, net.first_bias, 2, 1)
        first = maps[..., :height, :breadth].contiguous(memory_format=_LAST).relu_()
        blocks = functional.conv2d(first, net.blocks, net.blocks_bias, padding=1).relu_()
        _clear_border(blocks, net.sizes[1], net.sizes[2])
        cells = functional.conv2d(blocks, net.cells, net.cells_bias, padding=1)
        images = _from_cells(cells, net.sizes[3])
        images = images.to(torch.promote_types(images.dtype, torch.float32)).sigmoid_()
        ctx.save_for_backward(base, first, blocks, images)
        ctx.net = net
        return images

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        net, (base, first, blocks, images) = ctx.net, ctx.saved_tensors
        gradient = torch.ops.aten.sigmoid_backward(gradient, images)
        cells = _to_cells(gradient.to(blocks.dtype), [size + 2 for size in net.sizes[1]])
        behind = _masked(functional.conv2d(cells, net.cells_back), blocks)
        behind = _masked(functional.conv2d(behind, net.blocks_back), first)
        margin = [2 * size - cut for size, cut in zip(net.sizes[0], net.sizes[1], strict=True)]
        behind = functional.pad(behind, (0, margin[1], 0, margin[0]))
        behind = functional.conv2d(behind, net.first, None, 2, 1)
        behind = _masked(behind.permute(0, 2, 3, 1).flatten(1), base)
        return behind @ net.dense, None


def _masked(gradient: Tensor, rectified: Tensor) -> Tensor:
    """The gradient before a ReLU from that after it."""
    before: Tensor = torch.ops.aten.threshold_backward(gradient, rectified, 0)
    return before


def _blocks_of(weight: Tensor) -> Tensor:
    """Transposed convolution (before, after, 4, 4) → convolution (2·2·after, before, 2, 2) to blocks of pixels."""
    rows = torch.tensor([[2 + a - 2 * u for u in (0, 1)] for a in (0, 1)], device=weight.device)
    picked: Tensor = weight[:, :, rows[:, None, :, None], rows[None, :, None, :]]  # before, after, a, b, u, v
    return picked.permute(2, 3, 1, 0, 4, 5).flatten(0, 2)


def _cells_of(weight: Tensor) -> Tensor:
    """Transposed convolution (before, after, 4, 4) → convolution (4·4·after, 2·2·before, 2, 2), blocks to cells.

    Cell i is output rows 4i − 3 … 4i; row t of it follows from row a of block i − 1 + u by the kernel's row
    4(1 − u) + t − 2a, where there is one.
    """
    offsets = [[[4 * (1 - u) + t - 2 * a for u in (0, 1)] for a in (0, 1)] for t in range(4)]
    rows = torch.tensor(offsets, device=weight.device)
    there = (rows >= 0) & (rows < 4)
    rows = rows.clamp(0, 3)
    picked: Tensor = weight[:, :, rows[:, None, :, None, :, None], rows[None, :, None, :, None, :]]
    picked = picked * (there[:, None, :, None, :, None] & there[None, :, None, :, None, :])
    return picked.permute(2, 3, 1, 4, 5, 0, 6, 7).flatten(3, 5).flatten(0, 2)


def _clear_border(blocks: Tensor, before: tuple[int, int], after: tuple[int, int]) -> None:
    """Clears the pixels of the blocks that lie outside the map: its rows are −1 … 2·before, and 0 … after − 1 count."""
    pixels = blocks.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
    pixels[:, 0, :, 0] = 0
    pixels[:, :, 0, :, 0] = 0
    pixels[:, -1, :, after[0] - 2 * before[0] + 1 :] = 0
    pixels[:, :, -1, :, after[1] - 2 * before[1] + 1 :] = 0


def _from_cells(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of cells (N, 4·4·C, I, J), the first at pixel −3 → images (N, C, H, W)."""
    pixels: Tensor = cells.unflatten(1, (4, 4, -1)).permute(0, 3, 4, 1, 5, 2)
    return pixels.flatten(4, 5).flatten(2, 3)[..., 3 : 3 + size[0], 3 : 3 + size[1]]


def _to_cells(images: Tensor, cells: Sequence[int]) -> Tensor:
    """Images (N, C, H, W) → maps of cells (N, 4·4·C, I, J), the first at pixel −3, cleared beyond the image."""
    height, breadth = images.shape[2:]
    padded = functional.pad(images, (3, 4 * cells[1] - 3 - breadth, 3, 4 * cells[0] - 3 - height))
    pixels: Tensor = padded.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).permute(0, 2, 4, 3, 5, 1)
    return pixels.flatten(3, 5).permute(0, 3, 1, 2)


_LAST = torch.channels_last
