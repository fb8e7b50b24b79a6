"""The result of a projection, and the latents and errors of its steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
        errors: distance between x_g and the image, after its grey levels were reduced where they are, (N,).
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
        images, latents, errors = ([getattr(part, name) for part in parts] for name in ("images", "latents", "errors"))
        return Projection(torch.cat(images), torch.cat(latents), torch.cat(errors))


@dataclass(frozen=True)
class DescentState:
    """The state of all restarts after a number of steps: latents and the optimizer's memory.

    Attributes:
        step: how many steps they took.
        latents: (N, R, latent_dim).
        memory: the optimizer's tensors, each (N, R, latent_dim).
    """

    step: int
    latents: Tensor
    memory: Mapping[str, Tensor]

    def rows(self, start: int, stop: int) -> DescentState:
        """Of some of the images."""
        memory = {name: tensor[start:stop] for name, tensor in self.memory.items()}
        return DescentState(self.step, self.latents[start:stop], memory)

    def to(self, device: torch.device | str) -> DescentState:
        """The same on another device."""
        memory = {name: tensor.to(device) for name, tensor in self.memory.items()}
        return DescentState(self.step, self.latents.to(device), memory)

    @staticmethod
    def joined(standings: Sequence[DescentState], dim: int) -> DescentState:
        """Those of several parts of the images (`dim` 0), or of the restarts (1)."""
        names = standings[0].memory
        memory = {name: torch.cat([standing.memory[name] for standing in standings], dim) for name in names}
        return DescentState(standings[0].step, torch.cat([standing.latents for standing in standings], dim), memory)


@dataclass(frozen=True)
class ProjectionTrace:
    """The steps of one projection, from which the result of any smaller one is read.

    Latents stay in float32. A selection now equals a fresh projection to the last bit; with latents in half precision
    pixels were off by up to 0.003 (bfloat16: 0.02) and errors by up to 0.3 % (1.3 %), measured on 60 MNIST images with
    four restarts of 30 steps, for half of the space on disk.

    Only restarts that lead are kept: at a given step, restart r can win among the first R only if its error is
    below that of every restart before it, which on average log(R) of R are.

    Attributes:
        steps: recorded step counts, int64 (S,), ascending.
        leads: bool (N, S, R): whether restart r is better than all before it at that step.
        latents: (M, latent_dim), one for each true `leads`, in their order.
        errors: (M,), likewise.
        render: latents → images.
        standing: where all restarts stand after the last step; None where the trace cannot go on.
    """

    steps: Tensor
    leads: Tensor
    latents: Tensor
    errors: Tensor
    render: Callable[[Tensor], Tensor]
    standing: DescentState | None = None

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
        """The projection by `restarts` and `steps`; equals `Projector.project` with these values.

        Raises:
            ValueError: as `winners`.
        """
        winners = self.winners(restarts, steps)
        latents = self.latents[winners]
        return Projection(self.render(latents), latents, self.errors[winners])

    def at(self, steps: Sequence[int]) -> ProjectionTrace:
        """The trace of some of its steps, and no standing.

        Raises:
            ValueError: the trace does not hold one of them.
        """
        missing = sorted(set(steps) - set(self.steps.tolist()))
        if missing:
            raise ValueError(f"steps: expected some of {self.steps.tolist()} (what the trace holds), found {missing}")
        kept = torch.isin(self.steps, self.steps.new_tensor(steps))
        mask = (self.leads & kept.view(1, -1, 1))[self.leads]
        return ProjectionTrace(
            self.steps[kept], self.leads[:, kept], self.latents[mask], self.errors[mask], self.render
        )

    def then(self, later: ProjectionTrace) -> ProjectionTrace:
        """The same restarts in this trace's steps and the later ones."""
        steps = torch.cat([self.steps, later.steps])
        return self._joined(later, 1, steps, later.leads, later.standing)

    def beside(self, others: ProjectionTrace) -> ProjectionTrace:
        """The same steps with further restarts, which lead where they are better than all of this trace's."""
        last = self._first + self.leads.sum(2) - 1
        candidates = others.errors.new_full(others.leads.shape, math.inf)
        candidates[others.leads] = others.errors
        best = self.errors[last].nan_to_num(nan=math.inf).unsqueeze(2)
        standing = None
        if self.standing and others.standing:
            standing = DescentState.joined([self.standing, others.standing], 1)
        return self._joined(others, 2, self.steps, candidates < best, standing)

    def _joined(
        self, other: ProjectionTrace, dim: int, steps: Tensor, leads: Tensor, standing: DescentState | None
    ) -> ProjectionTrace:
        """Both along a dimension of `leads`; of the other's only `leads`."""
        places = torch.cat([self._places(0), other._places(len(self.latents))], dim)
        mask = torch.cat([self.leads, leads], dim)
        source = places[mask]
        latents, errors = (
            torch.cat([getattr(self, name), getattr(other, name)])[source] for name in ("latents", "errors")
        )
        return ProjectionTrace(steps, mask, latents, errors, self.render, standing)

    def _places(self, offset: int) -> Tensor:
        """Index into `latents` of each true entry of `leads`, plus `offset`: int64 (N, S, R)."""
        places = torch.zeros_like(self.leads, dtype=torch.int64)
        places[self.leads] = torch.arange(len(self.latents), device=places.device) + offset
        return places

    @staticmethod
    def concatenate(traces: Sequence[ProjectionTrace]) -> ProjectionTrace:
        """The trace of all images from the traces of parts of them, in order."""
        first = traces[0]
        standings = [trace.standing for trace in traces if trace.standing]
        return ProjectionTrace(
            first.steps,
            torch.cat([trace.leads for trace in traces]),
            torch.cat([trace.latents for trace in traces]),
            torch.cat([trace.errors for trace in traces]),
            first.render,
            DescentState.joined(standings, 0) if len(standings) == len(traces) else None,
        )


def leads_of(errors: Tensor) -> Tensor:
    """Errors (…, R) → bool (…, R): the restart is better than all before it. The first leads, even where it is NaN."""
    errors = errors.nan_to_num(nan=math.inf)
    before = errors.cummin(-1).values.roll(1, -1)
    leads = errors < before
    leads[..., 0] = True
    return leads
