"""Search over the grey levels that a squeezed image can be given: with two of them, over bits.

Behind few grey levels most pixels cannot be changed at all: with two, ε 0.3 moves only those between 0.2 and 0.8, 47 of
784 in a digit of MNIST on average. The search works on these alone, and every change is checked by the real defense.
(Greedy choice by gradient as in HotFlip: Ebrahimi et al. 2018; blocks as in Square: Andriushchenko et al. 2020.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components.attacks.losses import margin
from components.attacks.remembered import answers_of, gradients_of
from components.draws import chance_of, integers, uniform
from components.squeezing import squeezed, thresholds
from components.training import mix

Judge = Callable[[Tensor], Tensor]  # images → logits of the real defense
_TOGETHER = (1, 2, 4, 8, 16)  # of the most promising changes, how many are tried at once
_FEWER = (1, 4, 16)  # where a stand-in chooses among them


@dataclass(frozen=True)
class Cells:
    """The levels that each pixel of some images can be given.

    Attributes:
        images: x, (N, C, H, W) in [0, 1].
        epsilon: radius of the L∞ ball.
        levels, threshold: as `squeezing.squeezed`.
    """

    images: Tensor
    epsilon: float
    levels: int
    threshold: float | None

    @property
    def low(self) -> Tensor:
        """The lowest level of each pixel, a number in 0 … levels − 1, like `images`."""
        return self.levels_of((self.images - self.epsilon).clamp(min=0))

    @property
    def high(self) -> Tensor:
        """The highest, likewise."""
        return self.levels_of((self.images + self.epsilon).clamp(max=1))

    def levels_of(self, images: Tensor) -> Tensor:
        """The level of each pixel of images in the ball."""
        return (squeezed(images, self.levels, self.threshold) * (self.levels - 1)).round()

    def realised(self, levels: Tensor) -> Tensor:
        """Images in the ball that are squeezed to these levels; a pixel at its own level is left alone."""
        places, like = [0.0, *thresholds(self.levels, self.threshold), 1.0], self.images
        edges = torch.tensor(places, dtype=like.dtype, device=like.device)
        middles = ((edges[1:] + edges[:-1]) / 2)[levels.long()]
        moved = torch.minimum(torch.maximum(middles, self.images - self.epsilon), self.images + self.epsilon)
        return torch.where(levels == self.levels_of(self.images), self.images, moved.clamp(0, 1))

    def of(self, index: Tensor) -> Cells:
        """Those of some of the images."""
        return Cells(self.images[index], self.epsilon, self.levels, self.threshold)


def greedy(
    judge: Judge,
    view: nn.Module,
    cells: Cells,
    labels: Tensor,
    start: Tensor,
    rounds: int,
    screened: bool = False,
) -> tuple[Tensor, Tensor]:
    """Changes the pixels that the gradient says matter most, and keeps what the real defense confirms.

    Args:
        judge: the real defense.
        view: a differentiable one.
        cells: what may be changed.
        labels: int64 (N,).
        start: levels to begin at, like `cells.images`.
        rounds: gradients of each image, and for each a check of every count in `_TOGETHER`; twice as many with more
            than two levels.
        screened: let the view choose among these changes, so that the real defense checks one a round.

    Returns:
        Images in the ball, and their margins (N,).
    """
    slope, likely, levels = gradients_of(view, labels, margin), answers_of(view), start.clone()
    widest = margin(judge(cells.realised(levels)), labels)
    tried = torch.zeros_like(levels, dtype=torch.bool).flatten(1)
    low, high, counts = cells.low, cells.high, _FEWER if screened else _TOGETHER
    open_ = torch.ones_like(labels, dtype=torch.bool)  # something that may help is left to try
    for _ in range(rounds):
        going = ((widest <= 0) & open_).nonzero().squeeze(1)
        if not len(going):
            break
        some, own = cells.of(going), levels[going]
        gradient, _ = slope(some.realised(own), going)
        furthest = torch.where(gradient > 0, high[going], low[going])
        # the gradient is that of a straight line: with more than two levels the next one may serve better than the last
        goals = [furthest] if cells.levels == 2 else [furthest, own + (furthest - own).sign()]
        attempts, changes, useful = [], [], torch.zeros_like(going, dtype=torch.bool)
        for goal in goals:
            gains = (gradient * (goal - own)).flatten(1).masked_fill(tried[going], 0)
            order = gains.topk(min(counts[-1], gains.shape[1]), 1)
            attempts += _together(own, goal, order.indices, order.values > 0, counts)
            changes.append(order.indices[:, :1])  # the others were tried beside this one, not alone
            useful |= order.values[:, 0] > 0
        open_[going[~useful]] = False
        if screened:
            attempts = [_best_of(likely, some, labels[going], attempts)[1]]
        reached, changed = _best_of(judge, some, labels[going], attempts)
        better = reached > widest[going]
        levels[going[better]], widest[going[better]] = changed[better], reached[better]
        # what was not confirmed alone is not tried again until something else has changed
        tried[going[better]] = False
        fruitless = going[~better]
        tried[fruitless.unsqueeze(1), torch.cat(changes, 1)[~better]] = True
    return cells.realised(levels), widest


def passes(levels: int, screened: bool) -> int:
    """Passes of a model that a round of `greedy` takes at most, a gradient counted as three."""
    attempts = len(_FEWER if screened else _TOGETHER) * (1 if levels == 2 else 2)
    return 3 + attempts + screened


def _together(
    levels: Tensor, goal: Tensor, order: Tensor, useful: Tensor, counts: Sequence[int]
) -> list[Tensor]:
    """Levels with the first pixels of `order` (n, k) at their goal, for each count of pixels."""
    attempts = []
    for count in counts:
        chosen = torch.zeros_like(levels, dtype=torch.bool).flatten(1)
        chosen.scatter_(1, order[:, :count], useful[:, :count])
        attempts.append(torch.where(chosen.view_as(levels), goal, levels))
    return attempts


def _best_of(judge: Judge, cells: Cells, labels: Tensor, attempts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The best margin (n,) that the attempts reach on each image, and the levels there."""
    images = torch.cat([cells.realised(attempt) for attempt in attempts])
    reached = margin(judge(images), labels.repeat(len(attempts))).unflatten(0, (len(attempts), -1))
    widest, which = reached.max(0)
    return widest, torch.stack(list(attempts))[which, torch.arange(len(labels), device=which.device)]


def blocks(
    judge: Judge, cells: Cells, labels: Tensor, start: Tensor, queries: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Sets random blocks of pixels to their lowest, highest or random levels where the real defense likes it less.

    All images have the same blocks, so that what becomes of one does not depend on the others.

    Returns:
        Images in the ball, and their margins (N,).
    """
    chance = chance_of(mix(seed))
    levels = start.clone()
    widest = margin(judge(cells.realised(levels)), labels)
    low, high = cells.low, cells.high
    for query in range(queries):
        going = (widest <= 0).nonzero().squeeze(1)
        if not len(going):
            break
        inside = _block(tuple(levels.shape[2:]), query / queries, chance).to(levels.device)
        changed = torch.where(inside, _drawn(low[going], high[going], chance), levels[going])
        reached = margin(judge(cells.of(going).realised(changed)), labels[going])
        better = reached > widest[going]
        levels[going[better]], widest[going[better]] = changed[better], reached[better]
    return cells.realised(levels), widest


def random_levels(cells: Cells, seed: int) -> Tensor:
    """A random level within reach for each pixel; one draw for all images, as `pgd.noise`."""
    return _between(cells.low, cells.high, chance_of(mix(seed)))


def _drawn(low: Tensor, high: Tensor, chance: torch.Generator) -> Tensor:
    """All low, all high, or (twice as often) random."""
    kind, random = int(integers(4, (), chance)), _between(low, high, chance)
    return low if kind == 0 else high if kind == 1 else random


def _between(low: Tensor, high: Tensor, chance: torch.Generator) -> Tensor:
    """A random level for each pixel, from `low` to `high`."""
    drawn = low + ((high - low + 1) * uniform((1, *low.shape[1:]), chance).to(low)).floor()
    return torch.minimum(drawn, high)  # bfloat16 rounds what is just below 1 to it


def _block(size: tuple[int, ...], progress: float, chance: torch.Generator) -> Tensor:
    """A square, bool (1, 1, H, W), from a third of the image's side down to one pixel."""
    side = min(*size, max(1, round(max(size) / 3 * (1 - progress) ** 2)))
    rows, columns = (int(integers(extent - side + 1, (), chance)) for extent in size)
    inside = torch.zeros(1, 1, *size, dtype=torch.bool, device="cpu")
    inside[..., rows : rows + side, columns : columns + side] = True
    return inside
