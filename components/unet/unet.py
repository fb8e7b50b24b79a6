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
from components.training import Precision, Training, autocast, batches, drawn_from

Input = Literal["generated", "both", "attacked"]
_KEPT = 1024  # numbers per image that F(x) may have to be kept for all training images
_IMAGES = {"generated": 1, "both": 2, "attacked": 1}  # that a U-Net reads for each that it returns


class UNetConfig(Config):
    """The U-Net, its loss (Eq. 3) and its training."""

    width: int = Field(default=16, ge=1, le=1024)  # channels at full size; doubled at each halving
    depth: int = Field(default=2, ge=1, le=8)  # halvings of the contracting path
    input: Input = "generated"  # x_g, as published; both: and x; attacked: x alone
    images: int | None = Field(default=None, ge=2)  # training images that are projected for it; null = all
    epochs: int = Field(default=8, ge=1)  # passes over the projected training images
    batch_size: int = Field(default=64, ge=2)  # images per step
    learning_rate: float = Field(default=2e-3, gt=0, le=1)  # Adam's at the peak of a one-cycle schedule
    pixel_weight: float = Field(default=1.0, ge=0)  # of ‖U(x_g) − x‖₁
    high_level_weight: float = Field(default=1.0, ge=0)  # of ‖F(U(x_g)) − F(x)‖, what C sees
    label_weight: float = Field(default=0.1, ge=0)  # of CE(C(U(x_g)), y), y the true label
    layer: str = "logits"  # F: logits, penultimate, or a layer's name such as conv2
    norm: Literal["l1", "l2"] = "l1"  # of the high-level term
    precision: Precision = "float32"  # of the training's matrix products


class RepresentationClassifier(Protocol):
    """What the high-level loss needs of a classifier; `components.classifiers.defense_gan.Classifier` is one."""

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

    def forward(self, images: Tensor) -> Tensor:
        """What `join` makes, in [0, 1] → denoised (N, C, H, W) in [0, 1]; the first C channels are corrected."""
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
    """What a U-Net reads of x_g and the image that was projected.

    Args:
        input: what to join.
        generated: x_g, (N, C, H, W).
        images: (N, C, H, W).

    Returns:
        generated: x_g. both: x_g, then the image, (N, 2C, H, W). attacked: the image alone.
    """
    chosen = {"both": (generated, images), "attacked": (images,)}.get(input, (generated,))
    return torch.cat(chosen, 1)


class UNetTraining(Training):
    """Trains U on projections of attacked images, towards what the classifier sees in the originals.

    Args:
        config: network, loss and training.
        inputs: what U reads, in [0, 1], as `join` makes it for `config.input`.
        originals: x, (N, C, H, W) in [0, 1].
        labels: true labels, int64 (N,).
        classifier: frozen, in evaluation mode; gradients pass through it.
        seed: of weights and order.
        device: where to train.
    """

    def __init__(
        self,
        config: UNetConfig,
        inputs: Tensor,
        originals: Tensor,
        labels: Tensor,
        classifier: RepresentationClassifier,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config.epochs, seed, device)
        self.config, self.classifier = config, classifier
        self.inputs, self.originals = inputs.to(device), originals.to(device)
        self.labels = labels.to(device)
        self.batch_size = min(config.batch_size, len(labels))
        with drawn_from(seed):
            self.unet = UNet(originals.shape[1], config.width, config.depth, config.input)
        self.unet.to(device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.unet.parameters(), config.learning_rate)
        self._wanted = self._features_of_originals()
        steps = config.epochs * -(-len(labels) // self.batch_size)
        self.schedule = OneCycleLR(self.optimizer, config.learning_rate, total_steps=steps + 1)

    def parts(self) -> Mapping[str, Any]:
        return {"unet": self.unet, "optimizer": self.optimizer, "schedule": self.schedule}

    def run_epoch(self) -> dict[str, float]:
        self.unet.train()
        total, seen = 0.0, 0
        for index in batches(len(self.labels), self.batch_size):
            with autocast(self.device, self.config.precision):
                wanted = None if self._wanted is None else self._wanted[index]
                loss = self.loss(self.inputs[index], self.originals[index], self.labels[index], wanted)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total, seen = total + float(loss.detach()) * len(index), seen + len(index)
        self.unet.eval()
        return {"loss": total / seen}

    @torch.no_grad()
    def _features_of_originals(self) -> Tensor | None:
        """F(x), which no step changes, once for all epochs; None where it is not needed or would fill the memory."""
        if not self.config.high_level_weight:
            return None
        parts: list[Tensor] = []
        for part in self.originals.split(250):
            parts.append(self.classifier.features(part, self.config.layer))
            if parts[0][0].numel() > _KEPT:
                return None
        return torch.cat(parts)

    def loss(
        self, inputs: Tensor, originals: Tensor, labels: Tensor, wanted: Tensor | None = None
    ) -> Tensor:
        """Eq. 3 on one batch: pixels, high-level representation, label. `wanted` is F(originals) where it is known."""
        config = self.config
        denoised = self.unet(inputs)
        loss: Tensor = config.pixel_weight * (denoised - originals).abs().mean()
        if not (config.high_level_weight or config.label_weight):
            return loss
        seen, logits = self.classifier.features_and_logits(denoised, config.layer)
        if config.high_level_weight:
            if wanted is None:
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
        self, inputs: Tensor, originals: Tensor, labels: Tensor, batch_size: int = 250
    ) -> float:
        """Mean of Eq. 3 over images that were not trained on, in evaluation mode."""
        self.unet.eval()
        total = 0.0
        for part in zip(*(tensor.split(batch_size) for tensor in (inputs, originals, labels)), strict=True):
            read, x, y = (tensor.to(self.device) for tensor in part)
            total += float(self.loss(read, x, y)) * len(y)
        return total / len(labels)


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        convolution = nn.Conv2d(channels, after, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)

