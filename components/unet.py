"""The U-Net that cleans what projection leaves, and the high-level loss that trains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from components.config import Config
from components.training import Training, batches, drawn_from


class UNetConfig(Config):
    """The U-Net, its loss (Eq. 3) and its training."""

    width: int = Field(default=16, ge=1, le=1024)  # channels at full size; doubled at each halving
    depth: int = Field(default=2, ge=1, le=8)  # halvings of the contracting path
    images: int | None = Field(default=None, ge=2)  # training images that are projected for it; null = all
    epochs: int = Field(default=8, ge=1)  # passes over the projected training images
    batch_size: int = Field(default=64, ge=2)  # images per step
    learning_rate: float = Field(default=2e-3, gt=0, le=1)  # Adam's at the peak of a one-cycle schedule
    pixel_weight: float = Field(default=1.0, ge=0)  # of ‖U(x_g) − x‖₁
    high_level_weight: float = Field(default=1.0, ge=0)  # of ‖F(U(x_g)) − F(x)‖, what C sees
    label_weight: float = Field(default=0.1, ge=0)  # of CE(C(U(x_g)), y), y the true label
    layer: str = "logits"  # F: logits, penultimate, or a layer's name such as conv2
    norm: Literal["l1", "l2"] = "l1"  # of the high-level term
    precision: Literal["float32", "bfloat16"] = "float32"  # of the training's matrix products


class RepresentationClassifier(Protocol):
    """What the high-level loss needs of a classifier; `components.classifier.Classifier` is one."""

    def __call__(self, images: Tensor) -> Tensor:
        """Images → logits."""
        ...

    def features(self, images: Tensor, layer: str) -> Tensor:
        """Images → the named layer's output."""
        ...

    def features_and_logits(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """Images → the named layer's output, and the logits, in one pass."""
        ...


class UNet(nn.Module):
    """Generated images (N, C, H, W) in [0, 1] → denoised images of the same shape and range.

    A contracting and an expansive path with skip connections (Ronneberger, Fischer, Brox 2015, figure 1). The
    output is a correction that is added to the input. Any H and W: images are padded to a multiple of 2^depth and
    cropped again.

    Args:
        channels: C of the images it returns.
        width: channels at full size.
        depth: halvings.
        input_channels: C of its input where that is more than the image; the first `channels` are the image.
    """

    def __init__(self, channels: int, width: int, depth: int, input_channels: int | None = None) -> None:
        super().__init__()
        self.channels, self.width, self.depth = channels, width, depth
        self.input_channels = input_channels or channels
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(map(_block, [self.input_channels, *widths[:-1]], widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2 * after, after, 2, 2) for after in widths[:-1])
        self.up = nn.ModuleList(_block(2 * after, after) for after in widths[:-1])
        self.out = nn.Conv2d(width, channels, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)  # the first correction is none

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, input_channels, H, W) in [0, 1] → denoised (N, C, H, W) in [0, 1]."""
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


class UNetTraining(Training):
    """Trains U on projections of attacked images, towards what the classifier sees in the originals.

    Args:
        config: network, loss and training.
        generated: x_g, (N, C, H, W) in [0, 1].
        originals: x, likewise.
        labels: true labels, int64 (N,).
        classifier: frozen, in evaluation mode; gradients pass through it.
        seed: of weights and order.
        device: where to train.
    """

    def __init__(
        self,
        config: UNetConfig,
        generated: Tensor,
        originals: Tensor,
        labels: Tensor,
        classifier: RepresentationClassifier,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config.epochs, seed, device)
        self.config, self.classifier = config, classifier
        self.generated, self.originals = generated.to(device), originals.to(device)
        self.labels = labels.to(device)
        self.batch_size = min(config.batch_size, len(labels))
        with drawn_from(seed):
            self.unet = UNet(originals.shape[1], config.width, config.depth, generated.shape[1])
        self.unet.to(device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.unet.parameters(), config.learning_rate)
        steps = config.epochs * -(-len(labels) // self.batch_size)
        self.schedule = OneCycleLR(self.optimizer, config.learning_rate, total_steps=steps + 1)

    def parts(self) -> Mapping[str, Any]:
        return {"unet": self.unet, "optimizer": self.optimizer, "schedule": self.schedule}

    def run_epoch(self) -> dict[str, float]:
        self.unet.train()
        total, seen = 0.0, 0
        for index in batches(len(self.labels), self.batch_size):
            with _autocast(self.device, self.config.precision):
                loss = self.loss(self.generated[index], self.originals[index], self.labels[index])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total, seen = total + float(loss.detach()) * len(index), seen + len(index)
        self.unet.eval()
        return {"loss": total / seen}

    def loss(self, generated: Tensor, originals: Tensor, labels: Tensor) -> Tensor:
        """Eq. 3 on one batch: pixels, high-level representation, label."""
        config = self.config
        denoised = self.unet(generated)
        loss: Tensor = config.pixel_weight * (denoised - originals).abs().mean()
        if not (config.high_level_weight or config.label_weight):
            return loss
        seen, logits = self.classifier.features_and_logits(denoised, config.layer)
        if config.high_level_weight:
            with torch.no_grad():
                wanted = self.classifier.features(originals, config.layer)
            difference = seen - wanted
            size = difference.abs() if config.norm == "l1" else difference.square()
            loss = loss + config.high_level_weight * size.mean()
        if config.label_weight:
            loss = loss + config.label_weight * functional.cross_entropy(logits, labels)
        return loss

    @torch.no_grad()
    def validation_loss(
        self, generated: Tensor, originals: Tensor, labels: Tensor, batch_size: int = 250
    ) -> float:
        """Mean of Eq. 3 over images that were not trained on, in evaluation mode."""
        self.unet.eval()
        total = 0.0
        for part in zip(*(tensor.split(batch_size) for tensor in (generated, originals, labels)), strict=True):
            x_g, x, y = (tensor.to(self.device) for tensor in part)
            total += float(self.loss(x_g, x, y)) * len(y)
        return total / len(labels)


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        convolution = nn.Conv2d(channels, after, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
