"""An experiment: one gradient evaluation of the projector as one function without autograd, for a compiler to fuse.

Of the bytes that an evaluation in bfloat16 reads and writes one operation at a time, 375 kB with the shipped generator,
convolutions and matrix products take 135 kB (counted on the processor). The rest are passes over maps and images: an
H100's memory allows 8 million evaluations a second with them, and 22 without. torch's compiler joins such passes.
Whether that is faster, and how far the results differ, only a card says: `python -m benchmarks.gpu` has rows for it,
and nothing else uses it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from components.gan.folded import FrozenGenerator, _Generate
from components.projector.descent import Objective
from components.projector.projector import Projector

# as plain functions, since torch's compiler takes an autograd function's backward for one that autograd calls
_forward, _backward = (_Generate.__dict__[name].__func__ for name in ("forward", "backward"))


class Kept:
    """What an autograd function's backward finds in place of autograd's own context."""

    net: FrozenGenerator
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keeps the tensors."""
        self.saved_tensors = tensors


def evaluate(net: FrozenGenerator, latents: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (m, latent_dim), images (m, C, H, W) → mean squared errors (m,) and their gradients, like the latents."""
    kept = Kept()
    generated = _forward(kept, latents.to(net.dense.dtype), net)
    difference = generated.to(latents.dtype) - targets
    errors = difference.square().flatten(-3).mean(-1)
    slope = (2 / difference[0].numel()) * difference
    gradient, _ = _backward(kept, slope.to(generated.dtype))
    return errors, gradient.to(latents.dtype)


class Fused(Objective):
    """`evaluate` in the place of a projector's own objective; for distance l2 without further terms.

    Args:
        projector: whose generator it is; its steps use this from now on.
        compiled: whether torch's compiler fuses it, which takes a minute at the first call.
    """

    def __init__(self, projector: Projector, *, compiled: bool) -> None:
        config, own = projector.config, projector.objective
        if config.distance != "l2" or config.prior_weight or config.realism_weight:
            raise ValueError(f"projector: expected distance l2 and no further terms, found {config}")
        super().__init__(config, own.generator, None)
        self._run = torch.compile(evaluate, fullgraph=True, dynamic=False) if compiled else evaluate
        projector.objective = self

    @torch.no_grad()
    def slope(self, latents: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """As the objective's own."""
        net: Any = self.generator
        return self._run(net, latents.detach(), targets)
