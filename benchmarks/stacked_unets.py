"""Many U-Nets of one shape trained side by side on one device: what `UNetTraining` makes of each, in a fraction of the
time where a single one is too small to fill the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from components.classifiers.base import ImageClassifier
from components.defense import in_batches
from components.training import batches, drawn_from, seeded
from components.unet.config import UNetConfig
from components.unet.network import UNet
from components.unet.training import UNetTraining

MOMENTUM, EPSILON = 0.1, 1e-5  # of nn.BatchNorm2d


class StackedUNets(nn.Module):
    """M U-Nets with the same first weights; maps are (M, B, C, H, W).

    Convolutions are products of unfolded maps: convolutions in groups, the usual way, are slow to differentiate.

    Args:
        unet: whose weights each begins with.
        count: M.
    """

    def __init__(self, unet: UNet, count: int) -> None:
        super().__init__()
        self.depth = unet.depth
        for name, value in [*unet.named_parameters(), *unet.named_buffers()]:
            if value.is_floating_point():
                stacked = value.detach().expand(count, *value.shape).clone()
                key = name.replace(".", "_")
                if isinstance(value, nn.Parameter):
                    self.register_parameter(key, nn.Parameter(stacked))
                else:
                    self.register_buffer(key, stacked)

    def forward(self, images: Tensor) -> Tensor:
        """(M, B, C, H, W) in [0, 1] → the same, denoised."""
        *_, height, width = images.shape
        multiple = 2**self.depth
        maps = functional.pad(images, (0, -width % multiple, 0, -height % multiple))
        skips = []
        for level in range(self.depth + 1):
            maps = self._block(f"down_{level}", _halved(maps) if level else maps)
            skips.append(maps)
        for level in reversed(range(self.depth)):
            maps = self._block(f"up_{level}", torch.cat([skips[level], self._grown(level, maps)], 2))
        weight, bias = self.out_weight.flatten(2).unsqueeze(1), self.out_bias[:, None, :, None]
        correction = (weight @ maps.flatten(3) + bias).unflatten(3, maps.shape[3:])[..., :height, :width]
        return (images[:, :, : correction.shape[2]] + correction).clamp(0, 1)

    def _block(self, name: str, maps: Tensor) -> Tensor:
        for convolution, normalisation in ((0, 1), (3, 4)):
            maps = self._convolved(getattr(self, f"{name}_{convolution}_weight"), maps)
            maps = self._normalised(f"{name}_{normalisation}", maps).relu()
        return maps

    def _convolved(self, weight: Tensor, maps: Tensor) -> Tensor:
        columns = functional.unfold(maps.flatten(0, 1), 3, padding=1).unflatten(0, maps.shape[:2])
        return (weight.flatten(2).unsqueeze(1) @ columns).unflatten(3, maps.shape[3:])

    def _normalised(self, name: str, maps: Tensor) -> Tensor:
        mean, variance = getattr(self, f"{name}_running_mean"), getattr(self, f"{name}_running_var")
        if self.training:
            variance_now, mean_now = torch.var_mean(maps, (1, 3, 4), correction=0)
            count = maps[0, :, 0].numel()
            with torch.no_grad():
                mean.lerp_(mean_now, MOMENTUM)
                variance.lerp_(variance_now * count / (count - 1), MOMENTUM)
            mean, variance = mean_now, variance_now
        scale = getattr(self, f"{name}_weight") * (variance + EPSILON).rsqrt()
        shift = getattr(self, f"{name}_bias") - mean * scale
        return maps * scale[:, None, :, None, None] + shift[:, None, :, None, None]

    def _grown(self, level: int, maps: Tensor) -> Tensor:
        """A transposed convolution of 2 × 2 with stride 2: each pixel becomes four."""
        weight, bias = getattr(self, f"grow_{level}_weight"), getattr(self, f"grow_{level}_bias")
        height, width = maps.shape[3:]
        pixels = weight.flatten(2).transpose(1, 2).unsqueeze(1) @ maps.flatten(3)
        grown = pixels.unflatten(2, (-1, 2, 2)).unflatten(5, (height, width)).permute(0, 1, 2, 5, 3, 6, 4)
        return grown.flatten(5, 6).flatten(3, 4) + bias[:, None, :, None, None]


def _halved(maps: Tensor) -> Tensor:
    return functional.max_pool2d(maps.flatten(0, 1), 2).unflatten(0, maps.shape[:2])


def train_stacked(
    configs: Sequence[UNetConfig],
    inputs: Tensor,
    originals: Tensor,
    labels: Tensor,
    judge: ImageClassifier,
    seed: int,
    held: tuple[Tensor, Tensor],
) -> Tensor:
    """Trains a U-Net for each configuration and returns what is right after each epoch.

    Args:
        configs: they may differ in `layer` (logits or penultimate) and in the weights of the loss.
        inputs: x_g of each, (M, N, C, H, W), on the device.
        originals: x, (N, C, H, W).
        labels: (N,).
        judge: frozen classifier.
        seed: of weights and order, the same for all.
        held: x_g of the validation images (M, V, C, H, W) and their labels (V,).

    Returns:
        bool (epochs, M, V): whether the classifier labels each denoised validation image correctly.
    """
    config, device = configs[0], originals.device
    with drawn_from(seed):
        first = UNet(originals.shape[1], config.width, config.depth, config.input)
    stack = StackedUNets(first, len(configs)).to(device)
    optimizer = torch.optim.Adam(stack.parameters(), config.learning_rate)
    steps = config.epochs * -(-len(labels) // config.batch_size)
    schedule = OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1)
    weights = [torch.tensor([getattr(c, name) for c in configs], device=device) for name in _WEIGHTS]
    by_logits = torch.tensor([c.layer == "logits" for c in configs], device=device)
    with torch.no_grad():
        wanted = judge.features_and_logits(originals, "penultimate")
    right = []
    for epoch in range(config.epochs):
        stack.train()
        with seeded(seed, epoch):
            order = list(batches(len(labels), config.batch_size))
        for index in (part.to(device) for part in order):
            denoised = stack(inputs[:, index])
            targets = [part[index] for part in wanted]
            losses = _losses(denoised, originals[index], labels[index], judge, targets, by_logits, weights)
            optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()
            optimizer.step()
            schedule.step()
        right.append(_right(stack.eval(), judge, *held))
    return torch.stack(right)


def train_singly(
    configs: Sequence[UNetConfig],
    inputs: Tensor,
    originals: Tensor,
    labels: Tensor,
    judge: ImageClassifier,
    seed: int,
    held: tuple[Tensor, Tensor],
) -> Tensor:
    """The same, one after the other, which is faster on a processor. As `train_stacked` otherwise."""
    right = []
    for config, own, seen in zip(configs, inputs, held[0], strict=True):
        training = UNetTraining(config, own, originals, labels, judge, seed, originals.device)
        denoised = (in_batches(training.unet, seen, originals.device) for _ in training)
        right.append(torch.stack([judge.predict(images) == held[1] for images in denoised]))
    return torch.stack(right, 1).cpu()


_WEIGHTS = ("pixel_weight", "high_level_weight", "label_weight")


def _losses(
    denoised: Tensor,
    originals: Tensor,
    labels: Tensor,
    judge: ImageClassifier,
    wanted: Sequence[Tensor],
    by_logits: Tensor,
    weights: Sequence[Tensor],
) -> Tensor:
    """Eq. 3 of each, (M,)."""
    count, size = denoised.shape[:2]
    seen = judge.features_and_logits(denoised.flatten(0, 1), "penultimate")
    apart = [(s.unflatten(0, (count, size)) - w).abs().flatten(1).mean(1) for s, w in zip(seen, wanted, strict=True)]
    entropy = functional.cross_entropy(seen[1], labels.repeat(count), reduction="none").view(count, size).mean(1)
    pixels = (denoised - originals).abs().flatten(1).mean(1)
    high_level = torch.where(by_logits, apart[1], apart[0])
    return weights[0] * pixels + weights[1] * high_level + weights[2] * entropy


@torch.no_grad()
def _right(stack: StackedUNets, judge: ImageClassifier, inputs: Tensor, labels: Tensor) -> Tensor:
    parts = []
    for part, truth in zip(inputs.split(50, 1), labels.split(50), strict=True):
        predicted = judge(stack(part).flatten(0, 1)).argmax(1).unflatten(0, part.shape[:2])
        parts.append(predicted == truth)
    return torch.cat(parts, 1).cpu()
