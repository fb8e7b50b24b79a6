"""Reasons not to believe a figure of robustness (Carlini et al., On evaluating adversarial robustness, 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from components.robustness import Row

LEFT_AT_HALF = 0.15  # at ε 0.5 every image can be made all grey, which is one of ten classes
GAIN = 0.02  # of the images, which chance does not explain in some hundred


def flags_of(
    logits: Tensor,
    rows: Sequence[Row],
    *,
    broken: tuple[int, int],
    dead: float,
    unsteady: float,
    over_epsilon: Sequence[tuple[float, float]],
    over_steps: Sequence[tuple[int, float]],
) -> tuple[str, ...]:
    """Sentences, one a reason; none where there is none.

    Args:
        logits: (N, classes) of the clean images.
        rows: the attacks.
        broken: images broken by attacks with a gradient, and after these by queries alone.
        dead: share of images whose gradient is zero or not finite.
        unsteady: share of clean images with another label when asked again.
        over_epsilon, over_steps: as `Robustness`.
    """
    found = []
    by_gradient, by_queries = broken
    if by_queries > max(by_gradient, GAIN * len(logits)):
        found.append(
            f"queries alone broke {by_queries} images that gradients left, which broke {by_gradient}: "
            "the gradients may be masked"
        )
    half = [share for epsilon, share in over_epsilon if epsilon == 0.5]
    if half and half[0] > LEFT_AT_HALF:
        found.append(f"{half[0]:.0%} stay right at ε 0.5, where no classifier can: the attack is too weak")
    (*_, before), (*_, last) = ((0, 0.0), (0, 0.0)) if len(over_steps) < 2 else over_steps[-2:]
    if before - last > GAIN:
        found.append(f"the last doubling of the steps still gained {before - last:.1%}: more steps may gain more")
    if dead > 0.1:
        found.append(f"the gradient of {dead:.0%} of the images is zero, missing or not finite")
    for row in rows:
        if row.seeds and max(row.seeds) - min(row.seeds) > max(0.05, 3 * (0.25 / max(1, row.images)) ** 0.5):
            found.append(f"{row.name}: seeds leave {min(row.seeds):.0%} to {max(row.seeds):.0%}: more seeds are needed")
    if unsteady > 0:
        found.append(f"{unsteady:.1%} of the clean images get another label when asked again: the model is random")
    if _are_probabilities(logits):
        found.append("the model gives probabilities in place of logits: gradients vanish where it is sure")
    return tuple(found)


def _are_probabilities(logits: Tensor) -> bool:
    sums = logits.double().sum(1)
    return bool(((logits >= 0) & (logits <= 1)).all()) and bool(((sums - 1).abs() < 1e-3).all())
