"""Steepest ascent over grey levels: every change of one pixel is judged by the real defense, and the best is made.

A gradient says which levels matter by a straight line through a stand-in; behind few levels so few pixels are free that
the real defense can be asked of each. What no single change improves, a pair of the best ones may.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.attacks.bits import Cells, Judge
from components.attacks.losses import input_gradient, margin

_PAIRED = 12  # of the best single changes, all pairs of which are tried where none helps alone
_TOGETHER = 100  # images that climb at once


def climb(
    judge: Judge, view: nn.Module, cells: Cells, labels: Tensor, start: Tensor, queries: int, width: int
) -> tuple[Tensor, Tensor]:
    """Makes the best change of one pixel, again and again, or of two where one does not help, until none does.

    Args:
        judge: the real defense.
        view: a differentiable one, by whose gradient changes are chosen where there are too many.
        cells: what may be changed.
        labels: int64 (N,).
        start: levels to begin at, like `cells.images`.
        queries: answers of the judge for each image, at most some `width` more.
        width: most changes of one pixel that are tried at once.

    Returns:
        Images in the ball, and their margins (N,).
    """
    parts = [
        _climbed(judge, view, cells.of(index), labels[index], start[index], queries, width)
        for index in torch.arange(len(labels), device=labels.device).split(_TOGETHER)
    ]
    return torch.cat([made for made, _ in parts]), torch.cat([widest for _, widest in parts])


def _climbed(
    judge: Judge, view: nn.Module, cells: Cells, labels: Tensor, start: Tensor, queries: int, width: int
) -> tuple[Tensor, Tensor]:
    levels = start.clone()
    widest = margin(judge(cells.realised(levels)), labels)
    left = torch.full_like(labels, queries)  # queries of each image; none where nothing helps any more
    while len(going := ((widest <= 0) & (left > 0)).nonzero().squeeze(1)):
        some = cells.of(going)
        singles = _single_changes(view, some, labels[going], levels[going], width)
        reached = _judged(judge, some, labels[going], singles)
        stuck = _moved(levels, widest, left, going, singles, reached)
        if stuck:
            pairs = [_pairs(levels[going[n]], singles[n], reached[n]) for n in stuck]
            places = going[stuck]
            of_pairs = _judged(judge, cells.of(places), labels[places], pairs)
            left[places[_moved(levels, widest, left, places, pairs, of_pairs)]] = 0
    return cells.realised(levels), widest


def _moved(
    levels: Tensor, widest: Tensor, left: Tensor, places: Tensor, attempts: Sequence[Tensor], reached: Sequence[Tensor]
) -> list[int]:
    """Makes each image's best attempt where it helps, in place; which of `places` have none."""
    stuck = []
    for n, (place, tried, own) in enumerate(zip(places.tolist(), attempts, reached, strict=True)):
        left[place] -= len(tried)
        if len(own) and own.max() > widest[place]:
            levels[place], widest[place] = tried[own.argmax()], own.max()
        else:
            stuck.append(n)
    return stuck


def _single_changes(view: nn.Module, cells: Cells, labels: Tensor, levels: Tensor, width: int) -> list[Tensor]:
    """For each image the levels (m, C, H, W) with one pixel at another level within reach."""
    reach = range(cells.levels)
    possible = torch.stack([(cells.low <= level) & (level <= cells.high) & (levels != level) for level in reach], 1)
    if int(possible.flatten(1).sum(1).amax()) > width:
        gradient, _ = input_gradient(view, cells.realised(levels), labels, margin)
        gains = torch.stack([gradient * (level - levels) for level in reach], 1)
        gains = gains.masked_fill(~possible, -torch.inf).flatten(1)
        best = gains.topk(width, 1)
        possible = torch.zeros_like(gains, dtype=torch.bool).scatter(1, best.indices, best.values > -torch.inf)
        possible = possible.view(len(levels), cells.levels, *levels.shape[1:])
    changes = []
    for own, at in zip(possible, levels, strict=True):
        level, *place = own.nonzero(as_tuple=True)
        tried = at.repeat(len(level), 1, 1, 1)
        tried[(torch.arange(len(level), device=at.device), *place)] = level.to(at)
        changes.append(tried)
    return changes


def _pairs(levels: Tensor, singles: Tensor, reached: Tensor) -> Tensor:
    """Levels (m, C, H, W) with two of the best single changes made."""
    best = singles[reached.topk(min(_PAIRED, len(reached))).indices]
    pairs = torch.combinations(torch.arange(len(best), device=best.device))
    one, other = best[pairs[:, 0]], best[pairs[:, 1]]
    return torch.where(one != levels, one, other)


def _judged(judge: Judge, cells: Cells, labels: Tensor, attempts: Sequence[Tensor]) -> list[Tensor]:
    """Margins of attempts (m, C, H, W) on each image."""
    counts = [len(tried) for tried in attempts]
    if not sum(counts):
        return [labels.new_empty(0, dtype=cells.images.dtype) for _ in attempts]
    device = labels.device
    index = torch.arange(len(counts), device=device).repeat_interleave(torch.tensor(counts, device=device))
    made = cells.of(index).realised(torch.cat(list(attempts)))
    return list(margin(judge(made), labels[index]).split(counts))
