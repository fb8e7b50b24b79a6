"""The latent projector: for each image, the nearest image that the generator can make.

    z* = argmin_z distance(G(z), x),   x_g = G(z*)        (Defense-GAN, Samangouei et al. 2018, section 3)

R restarts take L gradient steps each and the best restart *of each image* wins. Three properties carry the whole system:

* the loss is summed over images and the starts are one seeded draw shared by all, so an image's result depends neither
  on its neighbours nor on its batch nor on its place;
* restarts do not see each other, so the first r of R restarts are what r restarts would have been;
* step sizes are constant, so the first l of L steps are what l steps would have been.

Hence one run with the largest R and L, a `ProjectionTrace`, holds the result of every smaller (R, L).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from components.config import Config
from components.training import mix


class ProjectorConfig(Config):
    """The search for the latent of each image."""

    restarts: int = Field(default=4, ge=1, le=1000)  # R, independent starts per image
    steps: int = Field(default=60, ge=1, le=100_000)  # L, gradient steps per start
    distance: Literal["l2", "huber", "insensitive"] = "insensitive"  # l2 as published; insensitive ignores |d| ≤ tolerance
    tolerance: float = Field(default=0.3, ge=0, le=1)  # half-width of the quadratic (huber) or the free (insensitive) zone
    init: Literal["random", "bank"] = "bank"  # random as published; bank starts from the nearest of many drawn images
    bank_size: int = Field(default=8192, ge=1, le=1_000_000)  # images drawn for init: bank
    optimizer: Literal["sgd", "adam"] = "adam"  # sgd (with momentum) as published
    learning_rate: float = Field(default=0.1, gt=0, le=1000)  # published for sgd: 10
    momentum: float = Field(default=0.7, ge=0, lt=1)  # of sgd; published: 0.7
    prior_weight: float = Field(default=0.0, ge=0)  # λ of λ · ‖z‖² / latent_dim, which keeps z where G was trained
    realism_weight: float = Field(default=0.0, ge=0)  # λ of λ · softplus(−D(G(z))), which keeps x_g like an image
    precision: Literal["float32", "bfloat16"] = "float32"  # of the generator's arithmetic; z stays in float32
    chunk: int | None = Field(default=None, ge=1)  # latents evaluated at once; none = what suits the device

    @model_validator(mode="after")
    def _bank_holds_restarts(self) -> ProjectorConfig:
        if self.init == "bank" and self.bank_size < self.restarts:
            raise ValueError(f"bank_size: expected at least restarts ({self.restarts}), found {self.bank_size}")
        return self


_CANDIDATES = 64  # of the bank, by plain distance, among which the configured distance chooses the starts


class LatentGenerator(Protocol):
    """What the projector needs of a generator; `components.gan.Generator` is one."""

    latent_dim: int

    def folded(self) -> nn.Module:
        """A frozen copy in evaluation mode, as fast as it can be."""
        ...


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


@dataclass(frozen=True)
class ProjectionTrace:
    """The course of one projection, from which any smaller one is read.

    Only restarts that lead are kept: at a given step, restart r can win among the first R only if its error is below
    that of every restart before it, which on average log(R) of R are.

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
            raise ValueError(f"restarts: expected 1 … {self.restarts} (what the trace holds), found {restarts}")
        found = (self.steps == steps).nonzero()
        if not len(found):
            raise ValueError(f"steps: expected one of {self.steps.tolist()} (what the trace holds), found {steps}")
        # The winner among the first R is the last that leads among them: count the leads up to there.
        counts = self.leads.flatten().cumsum(0).view(self.leads.shape)
        return counts[:, int(found), restarts - 1] - 1

    def select(self, restarts: int, steps: int) -> Projection:
        """What `Projector.project` with that many restarts and steps gives. Raises ValueError as `winners` does."""
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


class Projector:
    """Image (N, C, H, W) in [0, 1] → nearest image of the generator.

    Args:
        generator: trained; a frozen copy with folded normalisation is used.
        config: how to search.
        discriminator: scores realism; needed where `config.realism_weight` is positive.
        seed: of the starts.
        device: where to compute.
    """

    def __init__(
        self,
        generator: LatentGenerator,
        config: ProjectorConfig | None = None,
        *,
        discriminator: nn.Module | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config or ProjectorConfig()
        if self.config.realism_weight and discriminator is None:
            raise ValueError("realism_weight: expected 0 or a discriminator to score realism, found none")
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
        """The nearest generated image of each of `images` (N, C, H, W) in [0, 1]."""
        return self.trace(images, [self.config.steps]).select(self.config.restarts, self.config.steps)

    def trace(
        self, images: Tensor, record: Sequence[int] | None = None, progress: Callable[[int], None] | None = None
    ) -> ProjectionTrace:
        """Projects and keeps the course.

        Args:
            images: (N, C, H, W) in [0, 1].
            record: the step counts to keep; by default 1 … `config.steps`.
            progress: called with the number of images done after each chunk.
        """
        record = sorted(set(range(1, self.config.steps + 1) if record is None else record))
        size = max(1, self.chunk // self.config.restarts)
        parts = []
        for start in range(0, len(images), size):
            parts.append(self._trace_chunk(images[start : start + size].to(self.device), record))
            if progress:
                progress(min(start + size, len(images)))
        return ProjectionTrace.concatenate(parts)

    @torch.no_grad()
    def render(self, latents: Tensor) -> Tensor:
        """G(z): latents (N, latent_dim) → images (N, C, H, W) in [0, 1], on the latents' device."""
        size = max(self.chunk, 512)
        return torch.cat([self._generate(part.to(self.device)).to(latents.device) for part in latents.split(size)])

    def _generate(self, latents: Tensor) -> Tensor:
        return self._folded(latents.to(self._weight_dtype)).to(latents.dtype)

    def _trace_chunk(self, images: Tensor, record: Sequence[int]) -> ProjectionTrace:
        leads, latents, errors = [], [], []
        for step, z, error in self._descend(images, record[-1]):
            if step in record:
                lead = _leads(error)
                leads.append(lead)
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
        move = _MOVES[self.config.optimizer](self.config)
        for step in range(steps + 1):
            errors, gradient = self._evaluate(z, images, with_gradient=step < steps)
            yield step, z, errors
            if gradient is not None:
                z = move(z, gradient)

    def _evaluate(self, z: Tensor, images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        rows = z.flatten(0, 1)
        with torch.set_grad_enabled(with_gradient):
            rows.requires_grad_(with_gradient)
            generated = self._generate(rows)
            errors = self._distance(generated.unflatten(0, z.shape[:2]) - images.unsqueeze(1), self.config.tolerance)
            if not with_gradient:
                return errors, None
            loss = errors.sum()
            if self.config.prior_weight:
                loss = loss + self.config.prior_weight * rows.square().mean(1).sum()
            if self.config.realism_weight and self.discriminator is not None:
                loss = loss + self.config.realism_weight * functional.softplus(-self.discriminator(generated)).sum()
            (gradient,) = torch.autograd.grad(loss, rows)
        return errors.detach(), gradient.view_as(z)

    def _starts(self, images: Tensor) -> Tensor:
        """Starting latents (n, R, latent_dim) in the images' dtype."""
        if self.config.init == "random":
            # each restart from a seed of its own: a draw of r would not be the beginning of a draw of R
            draws = [_draw(1, self.generator.latent_dim, mix(self.seed, r)) for r in range(self.config.restarts)]
            return torch.cat(draws).to(images).expand(len(images), -1, -1).contiguous()
        latents, drawn = self._bank_on(images)
        flat = images.flatten(1)
        # ‖x − b‖² without ‖x‖², which is the same for every b: one matrix product finds candidates …
        squared = drawn.square().sum(1) - 2 * flat @ drawn.T
        count = min(max(_CANDIDATES, self.config.restarts), len(drawn))
        candidates = squared.topk(count, largest=False).indices
        # … and the distance itself chooses among them, in an order that does not depend on how many are wanted
        shape = (*candidates.shape, *images.shape[1:])
        differences = drawn[candidates].view(shape) - images.unsqueeze(1)
        order = self._distance(differences, self.config.tolerance).argsort(dim=1, stable=True)
        return latents[candidates.gather(1, order[:, : self.config.restarts])]

    def _bank_on(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self._bank is None:
            latents = _draw(self.config.bank_size, self.generator.latent_dim, mix(self.seed)).to(images)
            self._bank = latents, self.render(latents).flatten(1)
        return self._bank


def _draw(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def _leads(errors: Tensor) -> Tensor:
    """bool (n, R): the restart is better than all before it. The first always leads, even where it is NaN."""
    errors = errors.nan_to_num(nan=math.inf)
    before = errors.cummin(1).values.roll(1, 1)
    leads = errors < before
    leads[:, 0] = True
    return leads


def l2(difference: Tensor, tolerance: float) -> Tensor:
    """Mean square over each image: (…, C, H, W) → (…)."""
    return difference.square().flatten(-3).mean(-1)


def huber(difference: Tensor, tolerance: float) -> Tensor:
    """Huber's loss, quadratic up to `tolerance` and linear beyond (Huber 1964), scaled to agree with `l2` near zero."""
    size = difference.abs()
    inner = size.clamp(max=tolerance)
    return (inner * (2 * size - inner)).flatten(-3).mean(-1)


def insensitive(difference: Tensor, tolerance: float) -> Tensor:
    """Mean of max(|d| − tolerance, 0)² (Vapnik's ε-insensitive loss, squared): what an attack of radius ≤ tolerance
    can have added costs nothing, so it is not fitted."""
    return functional.softshrink(difference, tolerance).square().flatten(-3).mean(-1)


class _Momentum:
    """SGD with momentum, v ← μv + g, z ← z − ηv."""

    def __init__(self, config: ProjectorConfig) -> None:
        self.rate, self.momentum = config.learning_rate, config.momentum
        self.velocity: Tensor | None = None

    def __call__(self, z: Tensor, gradient: Tensor) -> Tensor:
        self.velocity = gradient if self.velocity is None else self.momentum * self.velocity + gradient
        return z - self.rate * self.velocity


class _Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) with its published decays."""

    def __init__(self, config: ProjectorConfig) -> None:
        self.rate, self.step = config.learning_rate, 0
        self.mean: Tensor | None = None
        self.square: Tensor | None = None

    def __call__(self, z: Tensor, gradient: Tensor) -> Tensor:
        self.step += 1
        if self.mean is None or self.square is None:
            self.mean, self.square = torch.zeros_like(z), torch.zeros_like(z)
        self.mean = self.mean.lerp(gradient, 0.1)
        self.square = self.square.lerp(gradient.square(), 0.001)
        mean, square = self.mean / (1 - 0.9**self.step), self.square / (1 - 0.999**self.step)
        return z - self.rate * mean / (square.sqrt() + 1e-8)


DISTANCES = {"l2": l2, "huber": huber, "insensitive": insensitive}
_MOVES: dict[str, type[_Momentum] | type[_Adam]] = {"sgd": _Momentum, "adam": _Adam}
_DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
