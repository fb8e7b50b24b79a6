"""Which restarts go on: those that may still win, until they are near enough.

Both rules look only at what came before, in restarts and in steps. So the first r of R restarts, and the first l of L
steps, go as they would have gone alone, and a `ProjectionTrace` of a race still holds every smaller projection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Race:
    """When a restart of an image ends before the last step.

    Attributes:
        start: the first step at which restarts are dropped; None = never.
        factor: a restart is dropped when its error exceeds `factor` times the best error of the restarts before it.
            The first is never dropped.
        enough: a restart whose error is at most this stays where it is; None = never.
    """

    start: int | None
    factor: float
    enough: float | None

    @property
    def is_on(self) -> bool:
        """Whether anything can end before the last step."""
        return self.start is not None or self.enough is not None

    def dropped(self, step: int, errors: Tensor) -> Tensor:
        """Restarts out of the race: errors (n, R) after `step` steps → bool (n, R)."""
        if self.start is None or step < self.start:
            return torch.zeros_like(errors, dtype=torch.bool)
        errors = errors.nan_to_num(nan=math.inf)
        before = errors.cummin(1).values.roll(1, 1)
        before[:, 0] = math.inf
        return (errors > self.factor * before) | (errors == math.inf) & before.isfinite()

    def arrived(self, errors: Tensor) -> Tensor:
        """Restarts that are near enough: errors (n, R) → bool (n, R)."""
        return errors <= (-math.inf if self.enough is None else self.enough)
