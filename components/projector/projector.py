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

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from components.hardware import in_threads
from components.precision import resolved
from components.projector.chunks import bytes_for_gradient, chunk_on
from components.projector.descent import DescentLoop, Objective, descent_of
from components.projector.settings import ProjectorSettings
from components.projector.starts import Starts
from components.projector.surrogates import reconstruct
from components.projector.trace import DescentState, Projection, ProjectionTrace, leads_of
from components.purifiers import Surrogates
from components.squeezing import squeezed
from components.training import uncast

__all__ = ["LatentGenerator", "Projection", "ProjectionTrace", "Projector"]


class LatentGenerator(Protocol):
    """The interface of a generator that the projector needs; `components.gan.networks.Generator` has it."""

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

    Attributes:
        chunk: latents evaluated at once; where the configuration does not say, what suits the device.
    """

    def __init__(
        self,
        generator: LatentGenerator,
        config: ProjectorSettings,
        *,
        discriminator: nn.Module | None = None,
        encoder: nn.Module | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        if self.config.realism_weight and discriminator is None:
            raise ValueError("realism_weight: expected 0 or a discriminator to score realism, found none")
        if self.config.init == "encoder" and encoder is None:
            raise ValueError("init: expected random or bank, or an encoder to start from, found none")
        self.encoder = None if encoder is None else encoder.eval().to(device)
        self.generator, self.discriminator, self.seed = generator, discriminator, seed
        self.device = torch.device(device)
        folded = generator.folded().to(self.device, _DTYPES[resolved(self.config.precision, self.device)])
        self.objective = Objective(config, folded, discriminator)
        self._descent = descent_of(self.config)
        self._unfrozen: nn.Module | None = None  # the folded generator in the images' precision, once it is asked for
        self.chunk = config.chunk or chunk_on(self.device, self._bytes_per_latent)
        latent_dim = generator.latent_dim
        self._starts = Starts(self.objective, latent_dim, self.render, self.encoder, seed, self.chunk)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Generator and, where it starts from one, encoder; discriminator, where realism counts."""
        networks = {name: getattr(self, name) for name in self.config.needs}
        return {name: network for name, network in networks.items() if isinstance(network, nn.Module)}

    def through(self, images: Tensor, surrogates: Surrogates) -> Tensor:
        """x_g of `images` (N, C, H, W), on this device, with the gradient of `surrogates` to them.

        Raises:
            NoGradient: the projector has not what the surrogate needs.
        """
        unfrozen = self._unfrozen = self._unfrozen or self.generator.folded().to(images)

        def generate(latents: Tensor) -> Tensor:  # as `Objective.images`: a generator's last map may be wider
            generated: Tensor = unfrozen(latents)
            return generated.to(latents.dtype)

        with uncast(self.device):
            return reconstruct(self, generate, images, surrogates)

    def warm_up(self) -> None:
        """Draws the bank now, so that a measurement of what follows does not count it."""
        if self.config.init == "bank":
            self._starts.bank(torch.empty(0, device=self.device))

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
        """Projects and keeps latents and errors of the recorded steps, in main memory.

        Args:
            images: (N, C, H, W) in [0, 1].
            record: the step counts to keep, 0 for the starts; by default 1 … `config.steps`.
            progress: called with the number of images done after each chunk.

        Raises:
            ValueError: nothing to record, or a negative step.
        """
        return self._run(images, self._recorded(record), slice(None), None, progress)

    def extend(
        self,
        trace: ProjectionTrace,
        images: Tensor,
        record: Sequence[int] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> ProjectionTrace:
        """Continues a trace of the same images that has fewer restarts, fewer steps or both; equals a new `trace`.

        Only the difference is computed: the further restarts from their starts, the others from where they stood.

        Raises:
            ValueError: the trace cannot go on, has more restarts or steps, or lacks a step that is to be kept.
        """
        record, standing = self._recorded(record), trace.standing
        if standing is None:
            raise ValueError("trace: expected one that holds where its restarts stand, found one of results alone")
        if trace.restarts > self.config.restarts or standing.step > record[-1]:
            most = f"{self.config.restarts} restarts and {record[-1]} steps"
            raise ValueError(f"trace: expected at most {most}, found {trace.restarts} and {standing.step}")
        later = [step for step in record if step > standing.step]
        extended = trace.at([step for step in record if step <= standing.step])
        extended = replace(extended, standing=standing)
        if later:
            extended = extended.then(self._run(images, later, slice(0, trace.restarts), standing, progress))
        if trace.restarts < self.config.restarts:
            extended = extended.beside(self._run(images, record, slice(trace.restarts, None), None, progress))
        return extended

    def _recorded(self, record: Sequence[int] | None) -> list[int]:
        record = sorted(set(range(1, self.config.steps + 1) if record is None else record))
        if not record or record[0] < 0:
            raise ValueError(f"record: expected step counts ≥ 0, found {record}")
        return record

    def _run(
        self,
        images: Tensor,
        record: Sequence[int],
        restarts: slice,
        standing: DescentState | None,
        progress: Callable[[int], None] | None,
    ) -> ProjectionTrace:
        """The trace of some of the restarts, from their starts or from where they stand."""
        size = max(1, self.chunk // self.config.restarts)

        starts = range(0, max(1, len(images)), size)  # no images give a trace of none
        beside = self.device.type == "cpu"  # chunks run in threads, each with a loop of its own
        loops: dict[int, DescentLoop] = {}

        def loop(part: Tensor, begin: DescentState) -> DescentLoop:
            calls = (record[-1] - begin.step) * len(starts)
            if beside or len(part) not in loops:
                loops[len(part)] = DescentLoop(self.objective, self._descent, part, begin, calls)
            return loops[len(part)]

        def traced(start: int) -> ProjectionTrace:
            part = squeezed(images[start : start + size].to(self.device), self.config.levels, self.config.threshold)
            if standing is None:
                z = self._starts(part)[:, restarts]
                begin = DescentState(0, z, {name: torch.zeros_like(z) for name in self._descent.remembers})
            else:
                begin = standing.rows(start, start + size).to(self.device)
            return self._trace_chunk(loop(part, begin), part, record, begin)

        if self.config.init == "bank" and standing is None:
            self._starts.bank(images[:0].to(self.device))  # once, before threads ask for it
        parts = []
        with uncast(self.device):  # as threads are: one chunk alone runs in the caller's
            for part in in_threads(traced, starts) if beside else map(traced, starts):
                parts.append(part)
                if progress:
                    progress(min(len(parts) * size, len(images)))
        return ProjectionTrace.concatenate(parts)

    @torch.no_grad()
    def render(self, latents: Tensor) -> Tensor:
        """G(z): latents (N, latent_dim) → images (N, C, H, W) in [0, 1], on the latents' device."""
        size = max(self.chunk, 512)
        with uncast(self.device):
            parts = [self.objective.images(part.to(self.device)).to(latents.device) for part in latents.split(size)]
        return torch.cat(parts)

    def _trace_chunk(
        self, loop: DescentLoop, images: Tensor, record: Sequence[int], begin: DescentState
    ) -> ProjectionTrace:
        latents, errors, standing = loop.run(images, begin, record)
        leads = leads_of(errors)
        return ProjectionTrace(
            torch.tensor(record, device="cpu"),
            leads.cpu(),
            latents[leads].cpu(),
            errors[leads].cpu(),
            self.render,
            standing.to("cpu"),
        )

    def _bytes_per_latent(self) -> int:
        """Bytes that one more latent takes: its gradient, and where it and its error stand after each step."""
        some = torch.zeros(8, self.generator.latent_dim, device=self.device)
        with torch.no_grad():
            targets = self.objective.images(some)
        gradient = bytes_for_gradient(lambda: self.objective.slope(some, targets)) // len(some)
        return gradient + 2 * 4 * self.config.steps * (self.generator.latent_dim + 1)


_DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
