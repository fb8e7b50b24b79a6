"""EOT: the expectation of a random model over its own chance."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EOT(nn.Module):
    """The mean logits of several passes through a random model; `losses.input_gradient` takes that of the mean loss.

    Source: Athalye, Engstrom, Ilyas, Kwok, Synthesizing robust adversarial examples (ICML 2018), section 2.2: the
    expectation is that of the loss, log P(y | t(x)), not the loss of an expected answer.

    Args:
        model: images → logits, another draw at each call.
        draws: passes.
    """

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws

    def forward(self, images: Tensor) -> Tensor:
        """Mean logits (N, classes) of images (N, C, H, W)."""
        return torch.stack([self.model(images) for _ in range(self.draws)]).mean(0)


def draws_of(model: nn.Module) -> int:
    """Passes of which a model's mean is taken; 1 where it is asked once."""
    return model.draws if isinstance(model, EOT) else 1
