"""The contract of a classifier to defend: logits of images, and the outputs of its layers by name."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from components.hardware import images_at_once

LOGITS = "logits"  # names the last layer, whatever a network calls it
PENULTIMATE = "penultimate"  # and the one before


class ClassifierError(ValueError):
    """A network that cannot be the classifier to defend; the message says what was expected and what was found."""


class ImageClassifier(nn.Module, ABC):
    """Images (N, C, H, W) in [0, 1] → logits (N, classes), with access to each layer by name.

    Attributes:
        architecture: its name, by which a saved defense finds what builds it.
        image_shape: (C, H, W) of the images.
        classes: number of classes.
        fixed: names of the weights that its author froze while others learn.
    """

    architecture: str
    image_shape: tuple[int, ...]
    classes: int
    fixed: frozenset[str] = frozenset()

    @property
    def network(self) -> nn.Module:
        """The module whose weights are kept."""
        return self

    @property
    @abstractmethod
    def layer_names(self) -> list[str]:
        """Names that `features` takes, from first to `logits`, beside `penultimate`."""

    @abstractmethod
    def features_and_logits(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """The named layer's output (N, …) and the logits (N, classes) of `images`, in one pass.

        Raises:
            ValueError: no layer has that name.
        """

    def features(self, images: Tensor, layer: str = PENULTIMATE) -> Tensor:
        """The high-level representation of `images` (N, C, H, W) in [0, 1]: the named layer's output, (N, …).

        Raises:
            ValueError: no layer has that name.
        """
        return self.features_and_logits(images, layer)[0]

    @torch.no_grad()
    def predict(self, images: Tensor, batch_size: int | None = None) -> Tensor:
        """Labels int64 (N,) of `images` (N, C, H, W), on the images' own device."""
        device = next(self.parameters()).device
        batch_size = batch_size or images_at_once(images, device)
        labels = [self(batch.to(device)).argmax(1) for batch in images.split(batch_size)]
        return torch.cat(labels).to(images.device)

    def _known(self, layer: str) -> str:
        """`layer`, where it is one."""
        if layer not in (*self.layer_names, PENULTIMATE):
            known = ", ".join(self.layer_names)
            raise ClassifierError(f"layer: expected one of {known} or {PENULTIMATE}, found {layer!r}")
        return layer
