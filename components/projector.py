"""The latent projector: for each image, the nearest image that the generator can make.

    z* = argmin_z distance(G(z), x),   x_g = G(z*)        (Defense-GAN, Samangouei et al. 2018, section 3)

R restarts take L gradient steps each and the best restart *of each image* wins. Three properties carry the whole
system:

* the loss is summed over images and the starts are one seeded draw shared by all, so an image's result depends
  neither on its neighbours nor on its batch nor on its place;
* restarts do not see each other, so the first r of R restarts are what r restarts would have been;
* step sizes are constant, so the first l of L steps are what l steps would have been.

Hence one run with the largest R and L, a `ProjectionTrace`, holds the result of every smaller (R, L).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from components.config import Config
from components.descent import Adam, Descent, Momentum
from components.distances import DISTANCES
from components.squeezing import squeezed
from components.trace import Projection, ProjectionTrace, leads_of
from components.training import Precision, mix

__all__ = ["LatentGenerator", "Projection", "ProjectionTrace", "Projector", "ProjectorConfig"]


class ProjectorConfig(Config):
    """The search for the latent of each image."""

    restarts: int = Field(default=4, ge=1, le=1000)  # R, independent starts per image
    steps: int = Field(default=60, ge=1, le=100_000)  # L, gradient steps per start
    distance: Literal["l2", "huber", "insensitive"] = "insensitive"  # l2 as published; insensitive: free to tolerance
    tolerance: float = Field(default=0.3, ge=0, le=1)  # where huber turns linear, or insensitive begins
    levels: int | None = Field(default=None, ge=2, le=256)  # grey levels that images are reduced to first; null = all
    init: Literal["random", "bank", "encoder"] = "bank"  # random as published; bank: nearest drawn; encoder: a guess
    spread: float = Field(default=0.5, ge=0)  # of the further restarts around the encoder's guess, per latent
    bank_size: int = Field(default=8192, ge=1, le=1_000_000)  # images drawn for init: bank
    optimizer: Literal["sgd", "adam"] = "adam"  # sgd (with momentum) as published
    learning_rate: float = Field(default=0.1, gt=0, le=1000)  # published for sgd: 10
    momentum: float = Field(default=0.7, ge=0, lt=1)  # of sgd; published: 0.7
    prior_weight: float = Field(default=0.0, ge=0)  # of ‖z‖² / latent_dim, which keeps z where G was trained
    realism_weight: float = Field(default=0.0, ge=0)  # of softplus(−D(G(z))), which keeps x_g like an image
    precision: Precision = "float32"  # of the generator's arithmetic; z stays in float32
    chunk: int | None = Field(default=None, ge=1)  # latents evaluated at once; none = what suits the device

    @model_validator(mode="after")
    def _bank_holds_restarts(self) -> ProjectorConfig:
        if self.init == "bank" and self.bank_size < self.restarts:
            found = f"found {self.bank_size}"
            raise ValueError(f"bank_size: expected at least restarts ({self.restarts}), {found}")
        return self


_CANDIDATES = 64  # of the bank, by plain distance, among which the configured distance chooses the starts


class LatentGenerator(Protocol):
    """What the projector needs of a generator; `components.gan.Generator` is one."""

    latent_dim: int

    def folded(self) -> nn.Module:
        """A frozen copy in evaluation mode, as fast as it can be."""
        ...


class Projector:
    """Image (N, C, H, W) in [0, 1] → nearest image of the generator.

    Args:
        generator: trained; a frozen copy with folded normalisation is used.
        config: how to search.
        discriminator: scores realism; needed where `config.realism_weight` is positive.
        encoder: images → latents; needed for `init: encoder`.
        seed: of the starts.
        device: where to compute.
    """

    def __init__(
        self,
        generator: LatentGenerator,
        config: ProjectorConfig | None = None,
        *,
        discriminator: nn.Module | None = None,
        encoder: nn.Module | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config or ProjectorConfig()
        if self.config.realism_weight and discriminator is None:
            raise ValueError("realism_weight: expected 0 or a discriminator to score realism, found none")
        if self.config.init == "encoder" and encoder is None:
            raise ValueError("init: expected random or bank, or an encoder to start from, found none")
        self.encoder = None if encoder is None else encoder.eval().to(device)
        self.generator, self.discriminator, self.seed = generator, discriminator, seed
        self.device = torch.device(device)
        self._folded = generator.folded().to(self.device, _DTYPES[self.config.precision])
        self._weight_dtype = next(self._folded.parameters()).dtype
        self._distance = DISTANCES[self.config.distance]
        self._bank: tuple[Tensor, Tensor] | None = None

    @property
    def chunk(self) -> int:
        """Latents evaluated at once. On a CPU, what stays in its cache; on a GPU, what fills it."""
        return self.config.chunk or (128 if self.device.type == "cpu" else 8192)

    def warm_up(self) -> None:
        """Draws the bank now, so that a measurement of what follows does not count it."""
        if self.config.init == "bank":
            self._bank_on(torch.empty(0, device=self.device))

    def project(self, images: Tensor) -> Projection:
        """The nearest generated image of each of `images` (N, C, H, W) in [0, 1], on the images' device."""
        trace = self.trace(images, [self.config.steps])
        return trace.select(self.config.restarts, self.config.steps).to(images.device)

    def trace(
        self,
        images: Tensor,
        record: Sequence[int] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> ProjectionTrace:
        """Projects and keeps the course, in main memory.

        Args:
            images: (N, C, H, W) in [0, 1].
            record: the step counts to keep, 0 for the starts; by default 1 … `config.steps`.
            progress: called with the number of images done after each chunk.

        Raises:
            ValueError: nothing to record, or a negative step.
        """
        record = sorted(set(range(1, self.config.steps + 1) if record is None else record))
        if not record or record[0] < 0:
            raise ValueError(f"record: expected step counts ≥ 0, found {record}")
        size = max(1, self.chunk // self.config.restarts)
        parts = []
        for start in range(0, max(1, len(images)), size):  # no images give a trace of none
            part = squeezed(images[start : start + size].to(self.device), self.config.levels)
            parts.append(self._trace_chunk(part, record))
            if progress:
                progress(min(start + size, len(images)))
        return ProjectionTrace.concatenate(parts)

    @torch.no_grad()
    def render(self, latents: Tensor) -> Tensor:
        """G(z): latents (N, latent_dim) → images (N, C, H, W) in [0, 1], on the latents' device."""
        size = max(self.chunk, 512)
        parts = [self._generate(part.to(self.device)).to(latents.device) for part in latents.split(size)]
        return torch.cat(parts)

    def _generate(self, latents: Tensor) -> Tensor:
        images: Tensor = self._folded(latents.to(self._weight_dtype))
        return images.to(latents.dtype)

    def _trace_chunk(self, images: Tensor, record: Sequence[int]) -> ProjectionTrace:
        leads, latents, errors = [], [], []
        for step, z, error in self._descend(images, record[-1]):
            if step in record:
                leads.append(leads_of(error))
                latents.append(z)
                errors.append(error)
        mask = torch.stack(leads, 1)
        return ProjectionTrace(
            torch.tensor(record),
            mask.cpu(),
            torch.stack(latents, 1)[mask].cpu(),
            torch.stack(errors, 1)[mask].cpu(),
            self.render,
        )

    def _descend(self, images: Tensor, steps: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yields (step, latents (n, R, latent_dim), errors (n, R)) for the start and after every step."""
        z = self._starts(images)
        descend = _DESCENTS[self.config.optimizer](self.config)
        for step in range(steps + 1):
            errors, gradient = self._evaluate(z, images, with_gradient=step < steps)
            yield step, z, errors
            if gradient is not None:
                z = descend(z, gradient)

    def _evaluate(self, z: Tensor, images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        rows = z.flatten(0, 1)
        with torch.set_grad_enabled(with_gradient):
            rows.requires_grad_(with_gradient)
            generated = self._generate(rows)
            errors = self._distances(generated.unflatten(0, z.shape[:2]), images)
            if not with_gradient:
                return errors, None
            # a sum, so that the step of an image does not depend on how many others are in the batch
            loss = errors.sum() + self._regularisation(rows, generated)
            (gradient,) = torch.autograd.grad(loss, rows)
        return errors.detach(), gradient.view_as(z)

    def _distances(self, generated: Tensor, images: Tensor) -> Tensor:
        """(n, K, C, H, W) and (n, C, H, W) → (n, K)."""
        return self._distance(generated - images.unsqueeze(1), self.config.tolerance)

    def _regularisation(self, rows: Tensor, generated: Tensor) -> Tensor | float:
        terms: Tensor | float = 0.0
        if self.config.prior_weight:
            terms = terms + self.config.prior_weight * rows.square().mean(1).sum()
        if self.config.realism_weight and self.discriminator is not None:
            unreal = functional.softplus(-self.discriminator(generated)).sum()
            terms = terms + self.config.realism_weight * unreal
        return terms

    def _starts(self, images: Tensor) -> Tensor:
        """Starting latents (n, R, latent_dim) in the images' dtype."""
        if self.config.init == "random":
            # each restart from a seed of its own: a draw of r would not be the beginning of a draw of R
            dim, restarts = self.generator.latent_dim, range(self.config.restarts)
            draws = torch.cat([_draw(1, dim, mix(self.seed, restart)) for restart in restarts])
            return draws.to(images).expand(len(images), -1, -1).contiguous()
        if self.config.init == "encoder":
            return self._guesses(images)
        latents, drawn = self._bank_on(images)
        flat = images.flatten(1)
        # ‖x − b‖² without ‖x‖², which is the same for every b: one matrix product finds candidates …
        squared = drawn.square().sum(1) - 2 * flat @ drawn.T
        groups = -(-self.config.restarts // _CANDIDATES)
        candidates = squared.topk(min(groups * _CANDIDATES, len(drawn)), largest=False).indices
        # … and the distance itself orders them. It does so within groups of a fixed size: the first r of R starts
        # must be those of r, and the candidates for R are more than those for r where R is above that size.
        ordered = [self._ordered(group, drawn, images) for group in candidates.split(_CANDIDATES, 1)]
        return latents[torch.cat(ordered, 1)[:, : self.config.restarts]]

    @torch.no_grad()
    def _guesses(self, images: Tensor) -> Tensor:
        """The encoder's guess, and others around it that are shared by all images, each from a seed of its own."""
        assert self.encoder is not None
        dim, others = self.generator.latent_dim, range(1, self.config.restarts)
        offsets = [torch.zeros(1, dim), *(_draw(1, dim, mix(self.seed, restart)) for restart in others)]
        guess: Tensor = self.encoder(images)
        return guess.unsqueeze(1) + self.config.spread * torch.cat(offsets).to(images)

    def _ordered(self, candidates: Tensor, drawn: Tensor, images: Tensor) -> Tensor:
        """Rows of the bank, int64 (n, K), from the nearest to the farthest by the configured distance."""
        rows = max(1, self.chunk // candidates.shape[1])  # images at once: a chunk is what suits the memory
        distances = [
            self._distances(drawn[some].unflatten(2, images.shape[1:]), targets)
            for some, targets in zip(candidates.split(rows), images.split(rows), strict=True)
        ]
        return candidates.gather(1, torch.cat(distances).argsort(dim=1, stable=True))

    def _bank_on(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (bank_size, latent_dim) and their images (bank_size, C·H·W), in the dtype of `images`."""
        if self._bank is None or self._bank[0].dtype != images.dtype:
            latents = _draw(self.config.bank_size, self.generator.latent_dim, mix(self.seed)).to(images)
            self._bank = latents, self.render(latents).flatten(1)
        return self._bank


def _draw(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


_DESCENTS: Mapping[str, Callable[[ProjectorConfig], Descent]] = {
    "sgd": lambda config: Momentum(config.learning_rate, config.momentum),
    "adam": lambda config: Adam(config.learning_rate),
}
_DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
