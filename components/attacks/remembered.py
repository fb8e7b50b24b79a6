"""Answers that are kept: behind few grey levels an attack asks about most of what it tries more than once.

What a model makes of an image then follows from its grey levels alone, and so does the gradient behind them. Behind two
levels 24 to 36 of the 41 passes of an image in 40 steps of APGD are left, of 150 random blocks 37, of 2,000 411.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import torch
from torch import Tensor, nn

from components.attacks.losses import Loss, input_gradient, logits_of, loss_of_rows
from components.squeezing import Surrogate, squeezed, squeezed_with_gradient

Ask = Callable[[Tensor, Tensor], tuple[Tensor, ...]]  # images (n, C, H, W) and their rows (n,) → n answers of each kind
_MOST = 1 << 28  # bytes of answers that are kept; then all are forgotten, as most repeat what was asked lately


@dataclass(frozen=True)
class Grey:
    """The grey levels of images, of which a model sees nothing else.

    Attributes:
        levels, threshold: as `squeezing.squeezed`.
        surrogate: of their gradient.
        straight: the model with the straight-through surrogate, whose gradient is that behind the levels.
    """

    levels: int
    threshold: float | None
    surrogate: Surrogate
    straight: nn.Module

    def keys(self, images: Tensor) -> list[bytes]:
        """Keys of images, which differ where their levels do."""
        seen = squeezed(images.detach(), self.levels, self.threshold).flatten(1).contiguous()
        return [blake2b(row, digest_size=16).digest() for row in seen.view(torch.uint8).numpy()]

    def gradient(self, images: Tensor, behind: Tensor) -> Tensor:
        """The gradient at the images that follows from the one behind their levels."""
        if self.surrogate == "straight_through":
            return behind
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            seen = squeezed_with_gradient(images, self.levels, self.threshold, self.surrogate)
        (gradient,) = torch.autograd.grad(seen, images, behind)
        return gradient


class Remembered:
    """Asks about images whose grey levels it has not been asked about before, and else answers as it did then.

    On a card, which answers sooner than can be looked up, it asks about all.

    Args:
        ask: gives the answers.
        grey: what they follow from, beside the row; None: from more than that, so nothing is remembered.
        by_row: whether they follow from the row, too.
    """

    def __init__(self, ask: Ask, grey: Grey | None, by_row: bool) -> None:
        self._ask, self._grey, self._by_row = ask, grey, by_row
        self._answers: dict[tuple[int, bytes], tuple[Tensor, ...]] = {}
        self._bytes = 0

    def __call__(self, images: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        if self._grey is None or images.device.type != "cpu" or not len(images):
            return self._ask(images, rows)
        keys = list(zip(rows.tolist() if self._by_row else [0] * len(rows), self._grey.keys(images), strict=True))
        if self._bytes > _MOST:
            self._answers, self._bytes = {}, 0
        fresh = {key: place for place, key in enumerate(keys) if key not in self._answers}
        if fresh:
            index = torch.tensor(list(fresh.values()), device=images.device)
            answers = self._ask(images[index], rows[index])
            self._answers.update(zip(fresh, zip(*answers, strict=True), strict=True))
            self._bytes += sum(answer.nbytes for answer in answers)
        return tuple(torch.stack(kind) for kind in zip(*(self._answers[key] for key in keys), strict=True))


class Answers(nn.Module):
    """A model's logits, of which those of the same grey levels are asked for once.

    Args:
        judge: images → logits.
        grey: as `Remembered`.
    """

    def __init__(self, judge: Callable[[Tensor], Tensor], grey: Grey | None) -> None:
        super().__init__()
        self._remembered = Remembered(lambda images, _: (judge(images),), grey, by_row=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) → logits (N, classes), without a gradient."""
        (logits,) = self._remembered(images, torch.arange(len(images), device=images.device))
        return logits


def grey_of(model: nn.Module) -> Grey | None:
    """The grey levels that are all a model says to see of images, by an attribute `grey`; None: it says nothing."""
    grey = getattr(model, "grey", None)
    return grey if isinstance(grey, Grey) else None


def answers_of(model: nn.Module) -> Answers:
    """The logits of a model in evaluation mode, as `losses.logits_of`, remembered for as long as this object lives."""
    return Answers(partial(logits_of, model), grey_of(model))


def gradients_of(model: nn.Module, labels: Tensor, loss: Loss) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The function from images and their rows among `labels` (N,) to `losses.input_gradient`, likewise remembered."""
    grey = grey_of(model)

    def ask(images: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        asked = model if grey is None else grey.straight
        return input_gradient(asked, images, labels[rows], loss_of_rows(loss, rows))

    remembered = Remembered(ask, grey, by_row=True)

    def gradients(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        behind, logits = remembered(images, rows)
        return (behind if grey is None else grey.gradient(images, behind)), logits

    return gradients
