"""FGSM, one step along the sign of the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from components.attacks.base import ATTACKS, KNOWS, Attack

if TYPE_CHECKING:
    from torch import Tensor, nn


@ATTACKS.register("fgsm")
class FGSM(Attack):
    """Fast gradient sign method."""

    title: ClassVar[str] = "FGSM"
    attacker: ClassVar[str] = (
        f"{KNOWS} moves every pixel once, by at most ε of the range from 0 to 1, in the direction that raises the "
        "classifier's loss"
    )
    not_tried: ClassVar[str] = "attacks of many steps (PGD), query attacks"

    name: Literal["fgsm"] = "fgsm"  # the attack

    def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        return fgsm(classifier, images, labels, self.epsilon)


AttackConfig = FGSM


def fgsm(classifier: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Fast gradient sign method: clip(x + ε · sign(∇ₓ loss), 0, 1).

    Source: Goodfellow, Shlens, Szegedy, Explaining and harnessing adversarial examples (ICLR 2015), section 4.

    Args:
        classifier: images → logits; it is attacked as it predicts, in evaluation mode, and left as it was.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,), the labels whose cross-entropy the attack raises.
        epsilon: radius of the L∞ ball.

    Returns:
        The attacked images, (N, C, H, W) in [0, 1], each pixel within ε of the original.

    Raises:
        ValueError: ε outside [0, 1], as a negative one would help the classifier; or images that are, by more than
            rounding.
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon: expected a number in 0 … 1, found {epsilon}")
    from components.attacks.losses import input_gradient, log_odds, uphill
    from components.defense import check_range

    check_range(images)
    images = images.detach()
    gradient = input_gradient(classifier, images, labels, log_odds)[0]
    return (images + epsilon * uphill(gradient)).clamp(0, 1)
