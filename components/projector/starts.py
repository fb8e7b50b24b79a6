"""The latents at which the restarts of each image begin."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from components.draws import chance_of, normal
from components.projector.descent import Objective
from components.training import mix

_CANDIDATES = 64  # of the bank, by plain distance, among which the configured distance chooses the starts
_COMPARED = 1 << 28  # images times those of the bank, at once: 1 GB in float32, and as much for the product


class Starts:
    """Images → starting latents, the first r of R restarts being those of r.

    Args:
        objective: of the descent.
        latent_dim: length of z.
        render: latents (N, latent_dim), as many as there are → images (N, C, H, W).
        encoder: images → latents; needed for `init: encoder`.
        seed: of all draws.
        chunk: images compared at once.
    """

    def __init__(
        self,
        objective: Objective,
        latent_dim: int,
        render: Callable[[Tensor], Tensor],
        encoder: nn.Module | None,
        seed: int,
        chunk: int,
    ) -> None:
        self.config, self.objective, self.latent_dim, self.render = objective.config, objective, latent_dim, render
        self.encoder, self.seed, self.chunk = encoder, seed, chunk
        self._bank: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(n, C, H, W) in [0, 1] → (n, R, latent_dim) in the images' dtype, on their device."""
        latents: Tensor = _INITS[self.config.init](self, images)
        return latents

    def random(self, images: Tensor) -> Tensor:
        """The same draws for all images, each restart from a seed of its own."""
        draws = self._drawn(range(self.config.restarts))
        return torch.cat(draws).to(images).expand(len(images), -1, -1)

    def guessed(self, images: Tensor) -> Tensor:
        """The encoder's guess, and others around it that are shared by all images, each from a seed of its own."""
        assert self.encoder is not None
        draws = self._drawn(range(1, self.config.restarts))
        offsets = torch.cat([torch.zeros(1, self.latent_dim, dtype=torch.float32, device="cpu"), *draws])
        guess: Tensor = self.encoder(images)
        return guess.unsqueeze(1) + self.config.spread * offsets.to(images)

    def _drawn(self, restarts: Iterable[int]) -> list[Tensor]:
        """A latent (1, latent_dim) for each restart from its own seed: a draw of r would not begin a draw of R."""
        return [normal((1, self.latent_dim), chance_of(mix(self.seed, restart))) for restart in restarts]

    def nearest(self, images: Tensor) -> Tensor:
        """The nearest of the bank."""
        rows = max(1, _COMPARED // self.config.bank_size)
        return torch.cat([self._nearest(some) for some in images.split(rows)])

    def _nearest(self, images: Tensor) -> Tensor:
        latents, drawn = self.bank(images)
        flat = images.flatten(1)
        # ‖x − b‖² without ‖x‖², which is the same for every b: one matrix product finds candidates …
        squared = drawn.square().sum(1) - 2 * flat @ drawn.T
        groups = -(-self.config.restarts // _CANDIDATES)
        candidates = squared.topk(min(groups * _CANDIDATES, len(drawn)), largest=False).indices
        # … and the distance itself orders them. It does so within groups of a fixed size: the first r of R starts
        # must be those of r, and the candidates for R are more than those for r where R is above that size.
        ordered = [self._ordered(group, drawn, images) for group in candidates.split(_CANDIDATES, 1)]
        return latents[torch.cat(ordered, 1)[:, : self.config.restarts]]

    def bank(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (bank_size, latent_dim) and their images (bank_size, C·H·W), of the dtype and device of `like`."""
        if self._bank is None or self._bank[0].dtype != like.dtype:
            latents = normal((self.config.bank_size, self.latent_dim), chance_of(mix(self.seed))).to(like)
            self._bank = latents, self.render(latents).flatten(1)
        return self._bank

    def _ordered(self, candidates: Tensor, drawn: Tensor, images: Tensor) -> Tensor:
        """Rows of the bank, int64 (n, K), from the nearest to the farthest by the configured distance."""
        rows = max(1, self.chunk // candidates.shape[1])  # images at once: a chunk is what suits the memory
        distances = [
            self.objective.distances(drawn[some].unflatten(2, images.shape[1:]), targets.unsqueeze(1))
            for some, targets in zip(candidates.split(rows), images.split(rows), strict=True)
        ]
        return candidates.gather(1, torch.cat(distances).argsort(dim=1, stable=True))


_INITS: dict[str, Any] = {"random": Starts.random, "encoder": Starts.guessed, "bank": Starts.nearest}
