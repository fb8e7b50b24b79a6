"""The U-Net's training, by the high-level loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from components.optimizer import Adam
from components.order import spread
from components.training import Training, autocast, drawn_from
from components.unet.config import UNetConfig
from components.unet.network import UNet

_KEPT = 1024  # numbers per image that F(x) may have to be kept for all training images


class RepresentationClassifier(Protocol):
    """The interface of a classifier that the loss needs; `components.classifiers.base.ImageClassifier` has it."""

    def __call__(self, images: Tensor) -> Tensor:
        """Images → logits."""
        ...

    def features(self, images: Tensor, layer: str) -> Tensor:
        """Images → the named layer's output."""
        ...

    def features_and_logits(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """Images → the named layer's output, and the logits, in one pass."""
        ...


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
        self._counts = config.images_of_epochs(len(labels))
        if self._counts[0] < len(labels):  # an epoch's images are the first so many, so each has those before it
            order = evenly_ordered(labels.cpu(), seed).to(labels.device)
            inputs, originals, labels = inputs[order], originals[order], labels[order]
        self.inputs, self.originals = inputs.to(device), originals.to(device)
        self.labels = labels.to(device)
        self.batch_size = min(config.batch_size, len(labels))
        with drawn_from(seed):
            self.unet = UNet(originals.shape[1], config.width, config.depth, config.input)
        self.unet.to(device)
        self.optimizer = Adam(self.unet.parameters(), config.learning_rate)
        self._wanted = self.features_of(self.originals)
        steps = sum(-(-count // self.batch_size) for count in self._counts)
        self._calls = sum(count // self.batch_size for count in self._counts)
        self.schedule = OneCycleLR(self.optimizer, config.learning_rate, total_steps=steps + 1)

    def parts(self) -> Mapping[str, Any]:
        return {"unet": self.unet, "optimizer": self.optimizer, "schedule": self.schedule}

    def run_epoch(self) -> dict[str, float]:
        self.unet.train()
        count = self._counts[self.epoch]
        loss = self.descend(self._batch_loss, self.optimizer, self.schedule, count, self.batch_size, self._calls)
        self.unet.eval()
        return {"loss": loss}

    def _batch_loss(self, index: Tensor) -> Tensor:
        with autocast(self.device, self.config.precision):
            wanted = None if self._wanted is None else self._wanted[index]
            return self.loss(self.inputs[index], self.originals[index], self.labels[index], wanted)

    @torch.no_grad()
    def features_of(self, originals: Tensor) -> Tensor | None:
        """F(x), which no step changes, once for all epochs; None where it is not needed or would fill the memory."""
        if not self.config.high_level_weight:
            return None
        parts: list[Tensor] = []
        for part in originals.split(250):
            parts.append(self.classifier.features(part.to(self.device), self.config.layer))
            if parts[0][0].numel() > _KEPT:
                return None
        return torch.cat(parts)

    def loss(
        self, inputs: Tensor, originals: Tensor, labels: Tensor, wanted: Tensor | None = None
    ) -> Tensor:
        """Eq. 3 on one batch: pixels, high-level representation, label. `wanted` is F(originals) where it is known."""
        return self._judged(self.unet(inputs), originals, labels, wanted)[0]

    def _judged(
        self, denoised: Tensor, originals: Tensor, labels: Tensor, wanted: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Eq. 3 of what U made, and its logits where the loss needs them."""
        config = self.config
        loss: Tensor = config.pixel_weight * (denoised - originals).abs().mean()
        if not (config.high_level_weight or config.label_weight):
            return loss, None
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
        return loss, logits

    @torch.no_grad()
    def validate(
        self,
        inputs: Tensor,
        originals: Tensor,
        labels: Tensor,
        wanted: Tensor | None = None,
        batch_size: int = 250,
    ) -> tuple[float, Tensor]:
        """Mean of Eq. 3 over images that were not trained on, in evaluation mode, and what the classifier calls them.

        Args:
            inputs, originals, labels: as those of the training.
            wanted: `features_of(originals)`, where it is kept.
            batch_size: images at once.

        Returns:
            The loss, and the labels int64 (N,) of the denoised images, on the processor.
        """
        self.unet.eval()
        total, predicted = torch.zeros((), dtype=torch.float64, device=self.device), list[Tensor]()
        for rows in torch.arange(len(labels)).split(batch_size):
            read, x, y = (tensor[rows].to(self.device) for tensor in (inputs, originals, labels))
            known = None if wanted is None else wanted[rows.to(self.device)]
            denoised = self.unet(read)
            loss, logits = self._judged(denoised, x, y, known)
            predicted.append((self.classifier(denoised) if logits is None else logits).argmax(1))
            total += loss.double() * len(y)
        return float(total) / len(labels), torch.cat(predicted).cpu()

    def validation_loss(
        self, inputs: Tensor, originals: Tensor, labels: Tensor, batch_size: int = 250
    ) -> float:
        """The loss of `validate` alone."""
        return self.validate(inputs, originals, labels, batch_size=batch_size)[0]


def evenly_ordered(labels: Tensor, seed: int) -> Tensor:
    """Indices of all images, int64 (N,), in a random order of which any first part has each class in its proportion."""
    with drawn_from(seed):
        order = torch.randperm(len(labels), device="cpu")
    return torch.from_numpy(spread(order.numpy(), labels.numpy()))
