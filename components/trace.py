"""What a projection found, and the course by which it found it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Projection:
    """The winner of each image.

    Attributes:
        images: x_g = G(z*), (N, C, H, W) in [0, 1].
        latents: z*, (N, latent_dim).
        errors: distance between x_g and the image, (N,).
    """

    images: Tensor
    latents: Tensor
    errors: Tensor

    def to(self, device: torch.device | str) -> Projection:
        """The same on another device."""
        return Projection(self.images.to(device), self.latents.to(device), self.errors.to(device))

    @staticmethod
    def concatenate(parts: Sequence[Projection]) -> Projection:
        """The projection of all images from those of parts of them, in order."""
        images, latents, errors = (
            [getattr(part, name) for part in parts] for name in ("images", "latents", "errors")
        )
        return Projection(torch.cat(images), torch.cat(latents), torch.cat(errors))


@dataclass(frozen=True)
class ProjectionTrace:
    """The course of one projection, from which any smaller one is read.

    Only restarts that lead are kept: at a given step, restart r can win among the first R only if its error is
    below that of every restart before it, which on average log(R) of R are.

    Attributes:
        steps: recorded step counts, int64 (S,), ascending.
        leads: bool (N, S, R): whether restart r is better than all before it at that step.
        latents: (M, latent_dim), one for each true `leads`, in their order.
        errors: (M,), likewise.
        render: latents → images.
    """

    steps: Tensor
    leads: Tensor
    latents: Tensor
    errors: Tensor
    render: Callable[[Tensor], Tensor]

    @property
    def restarts(self) -> int:
        """The largest R that can be selected."""
        return self.leads.shape[2]

    def __len__(self) -> int:
        return self.leads.shape[0]

    def winners(self, restarts: int, steps: int) -> Tensor:
        """Index into `latents` and `errors` of each image's winner, int64 (N,).

        Raises:
            ValueError: the trace does not hold that many restarts or that step.
        """
        if not 1 <= restarts <= self.restarts:
            held = f"1 … {self.restarts} (what the trace holds)"
            raise ValueError(f"restarts: expected {held}, found {restarts}")
        found = (self.steps == steps).nonzero()
        if not len(found):
            held = f"one of {self.steps.tolist()} (what the trace holds)"
            raise ValueError(f"steps: expected {held}, found {steps}")
        # The winner among the first R is the last that leads among them: count the leads up to there.
        return self._first[:, int(found)] + self.leads[:, int(found), :restarts].sum(1) - 1

    @cached_property
    def _first(self) -> Tensor:
        """Index into `latents` and `errors` of the first lead of each image at each step, int64 (N, S)."""
        counts = self.leads.sum(2)
        return counts.flatten().cumsum(0).view(counts.shape) - counts

    def select(self, restarts: int, steps: int) -> Projection:
        """What `Projector.project` with that many restarts and steps gives.

        Raises:
            ValueError: as `winners`.
        """
        winners = self.winners(restarts, steps)
        latents = self.latents[winners]
        return Projection(self.render(latents), latents, self.errors[winners])

    @staticmethod
    def concatenate(traces: Sequence[ProjectionTrace]) -> ProjectionTrace:
        """The trace of all images from the traces of parts of them, in order."""
        first = traces[0]
        return ProjectionTrace(
            first.steps,
            torch.cat([trace.leads for trace in traces]),
            torch.cat([trace.latents for trace in traces]),
            torch.cat([trace.errors for trace in traces]),
            first.render,
        )


def leads_of(errors: Tensor) -> Tensor:
    """bool (n, R): the restart is better than all before it. The first always leads, even where it is NaN."""
    errors = errors.nan_to_num(nan=math.inf)
    before = errors.cummin(1).values.roll(1, 1)
    leads = errors < before
    leads[:, 0] = True
    return leads
