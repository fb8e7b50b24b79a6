"""Feature squeezing: fewer grey levels, so that small changes of a pixel vanish."""

from __future__ import annotations

from torch import Tensor


def squeezed(images: Tensor, levels: int | None) -> Tensor:
    """Images in [0, 1] reduced to `levels` grey levels (feature squeezing: Xu, Evans, Qi 2018, section II-A).

    With two levels, pixels above 0.5 become 1 and all others 0: what an attack changed by less than half is undone
    where the original was black or white.
    """
    if levels is None:
        return images
    # just below the half, as `metrics.threshold` leaves a pixel of 0.5 black
    return (images * (levels - 1) - 1e-6).round().clamp(min=0) / (levels - 1)
