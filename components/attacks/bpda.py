"""BPDA: forward through the real model, backward through a stand-in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BPDA(nn.Module):
    """A model with a gradient that it has not of its own.

    Source: Athalye, Carlini, Wagner, Obfuscated gradients give a false sense of security (ICML 2018), section 4.1.

    Args:
        model: images → logits; no gradient is asked of it.
        substitute: the same, differentiable; close to it, it need not be equal.
    """

    def __init__(self, model: nn.Module, substitute: nn.Module) -> None:
        super().__init__()
        self.model, self.substitute = model, substitute

    def forward(self, images: Tensor) -> Tensor:
        """The logits (N, classes) of `model`, with the gradient of `substitute`."""
        with torch.no_grad():
            real: Tensor = self.model(images.detach())
        stand_in: Tensor = self.substitute(images)
        return real + (stand_in - stand_in.detach())
