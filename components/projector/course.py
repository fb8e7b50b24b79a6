"""The course of many restarts at once: evaluate, drop or keep, step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from components.projector.descent import Descent
from components.projector.racing import Race
from components.projector.trace import Standing


class Evaluate(Protocol):
    """How far latents are from their targets."""

    def __call__(self, rows: Tensor, targets: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        """Latents (m, latent_dim), images (m, C, H, W) → errors (m,) and, where wanted, gradients like the latents."""
        ...


def course(
    evaluate: Evaluate, descent: Descent, race: Race, images: Tensor, begin: Standing, last: int
) -> Iterator[tuple[Standing, Tensor]]:
    """Yields where the restarts stand and their errors (n, R), at the beginning and after every step up to `last`.

    Args:
        evaluate: error and gradient.
        descent: gradient → step.
        race: which restarts go on; those that do not are no longer computed. The error of a dropped one is infinite.
        images: (n, C, H, W).
        begin: where they stand, (n, R, latent_dim).
        last: the last step.
    """
    shape = begin.latents.shape[:2]
    z = begin.latents.flatten(0, 1)
    memory = {name: tensor.flatten(0, 1) for name, tensor in begin.memory.items()}
    targets = images.repeat_interleave(shape[1], 0)
    errors = z.new_full((len(z),), math.inf)
    going: Tensor | slice = slice(None)  # rows that are computed: all, until the race has ended for some
    for step in range(begin.step, last + 1):
        error, gradient = evaluate(z[going], targets[going], with_gradient=step < last)
        errors = _put(errors, going, error)
        if race.is_on:
            errors, running = _raced(race, step, errors.view(shape))
            gradient = gradient[running[going]]
            going = running.nonzero().squeeze(1)
        standing = {name: tensor.unflatten(0, shape) for name, tensor in memory.items()}
        yield Standing(step, z.unflatten(0, shape), standing), errors.unflatten(0, shape)
        if step < last:
            recalled = {name: tensor[going] for name, tensor in memory.items()}
            moved, recalled = descent(step + 1, z[going], gradient, recalled)
            z = _put(z, going, moved)
            memory = {name: _put(tensor, going, recalled[name]) for name, tensor in memory.items()}


def _raced(race: Race, step: int, errors: Tensor) -> tuple[Tensor, Tensor]:
    """Errors (n, R) → errors (n·R,), infinite where dropped, and whether each goes on, bool (n·R,)."""
    dropped = race.dropped(step, errors)
    errors = errors.masked_fill(dropped, math.inf)
    return errors.flatten(), ~(dropped | race.arrived(errors)).flatten()


def _put(old: Tensor, rows: Tensor | slice, new: Tensor) -> Tensor:
    """`old` with `new` in some of its rows; `old` itself stays, as others may still hold it."""
    return new if isinstance(rows, slice) else torch.index_put(old, (rows,), new)
