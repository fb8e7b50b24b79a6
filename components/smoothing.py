"""Feature squeezing by median smoothing: a purifier without networks, to hold the GAN against.

Source: Xu, Evans, Qi, Feature squeezing: detecting adversarial examples in deep neural networks (NDSS 2018), section
II-B. Each pixel becomes the median of its neighbourhood, by which single changed pixels vanish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from components.purifiers import PURIFIERS, PurifierConfig, Surrogates

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from components.projector.trace import Projection


@PURIFIERS.register("smoothing")
class SmoothingConfig(PurifierConfig):
    """Median smoothing, after a reduction of grey levels where one is wished for."""

    title = "median smoothing"

    window: int = Field(default=3, ge=1, le=15)  # pixels of the square neighbourhood's side; 1 = no smoothing

    def component(self, networks: Mapping[str, nn.Module], seed: int, device: torch.device | str) -> Smoothing:
        return Smoothing(self, device)


class Smoothing:
    """Image (N, C, H, W) in [0, 1] → the image of its neighbourhoods' medians.

    Args:
        config: window and grey levels.
        device: where to compute.
    """

    seed = 0  # nothing is drawn

    def __init__(self, config: SmoothingConfig, device: torch.device | str = "cpu") -> None:
        import torch

        self.config, self.device = config, torch.device(device)
        self.networks: dict[str, nn.Module] = {}

    def project(self, images: Tensor) -> Projection:
        """The smoothed images, and their mean squared distance from the squeezed ones; there are no latents."""
        import torch

        from components.hardware import images_at_once
        from components.projector.trace import Projection

        size = max(1, 2 * images_at_once(images, self.device) // self.config.window**2)  # each pixel's neighbourhood
        with torch.no_grad():
            parts = [self._smoothed(part.to(self.device)).to(images.device) for part in images.split(size)]
        return Projection.concatenate(parts)

    def _smoothed(self, images: Tensor) -> Projection:
        from components.projector.trace import Projection
        from components.squeezing import squeezed

        seen = squeezed(images, self.config.levels, self.config.threshold)
        smoothed = medians(seen, self.config.window)
        errors = (smoothed - seen).square().flatten(1).mean(1)
        return Projection(smoothed, images.new_empty(len(images), 0), errors)

    def through(self, images: Tensor, surrogates: Surrogates) -> Tensor:
        """The smoothed images with a gradient: of a median, that of the pixel that it is."""
        from components.squeezing import squeezed_with_gradient

        config = self.config
        seen = squeezed_with_gradient(images, config.levels, config.threshold, surrogates.squeezing)
        return medians(seen, config.window)


def medians(images: Tensor, window: int) -> Tensor:
    """Medians of all `window` × `window` neighbourhoods, (N, C, H, W); images are mirrored at their border.

    Of an even number of pixels it is the lower of the two in the middle.
    """
    from torch.nn import functional

    before, after = (window - 1) // 2, window // 2
    mirrored = functional.pad(images, (before, after, before, after), mode="reflect")
    neighbourhoods = mirrored.unfold(2, window, 1).unfold(3, window, 1).flatten(-2)
    smoothed: Tensor = neighbourhoods.median(-1).values
    return smoothed
