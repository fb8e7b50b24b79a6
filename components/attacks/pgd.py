"""PGD, projected gradient ascent in the ball."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from components.attacks.base import ATTACKS, KNOWS, Attack

if TYPE_CHECKING:
    from torch import Tensor, nn


@ATTACKS.register("pgd")
class PGD(Attack):
    """Projected gradient ascent on the cross-entropy, by signs, in the L∞ ball.

    Source: Madry et al., Towards deep learning models resistant to adversarial attacks (ICLR 2018), section 2.1.
    """

    title: ClassVar[str] = "PGD"
    attacker: ClassVar[str] = (
        f"{KNOWS} raises the classifier's loss in steps along the sign of its gradient, by at most ε of the range "
        "from 0 to 1 in each pixel"
    )
    not_tried: ClassVar[str] = "query attacks"

    name: Literal["pgd"] = "pgd"  # the attack
    steps: int = Field(default=40, ge=1, le=10_000)  # gradient steps of each restart
    step_size: float = Field(default=0.01, gt=0, le=1)  # of each pixel, each step
    restarts: int = Field(default=1, ge=1, le=1000)  # the one with the highest loss is kept, image by image
    random_start: bool = True  # begin at a uniform draw from the ball, in place of the image

    def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        import torch

        from components.attacks.losses import log_odds
        from components.training import evaluating

        images = images.detach()
        best, highest = images, torch.full_like(labels, -torch.inf, dtype=images.dtype)
        for restart in range(self.restarts):
            attacked = self._ascended(classifier, images, labels, seed, restart)
            with evaluating(classifier), torch.no_grad():
                reached = log_odds(classifier(attacked), labels)
            better = reached > highest
            highest = torch.where(better, reached, highest)
            best = torch.where(better.view(-1, 1, 1, 1), attacked, best)
        return best

    def _ascended(self, classifier: nn.Module, images: Tensor, labels: Tensor, seed: int, restart: int) -> Tensor:
        from components.attacks.losses import input_gradient, log_odds, uphill

        low, high = (images - self.epsilon).clamp(min=0), (images + self.epsilon).clamp(max=1)
        attacked = images
        if self.random_start:
            attacked = (images + self.epsilon * noise(images, seed, restart)).clamp(0, 1)
        for _ in range(self.steps):
            gradient, _ = input_gradient(classifier, attacked, labels, log_odds)
            attacked = (attacked + self.step_size * uphill(gradient)).clamp(low, high)
        return attacked


def noise(images: Tensor, *seeds: int) -> Tensor:
    """Uniform noise in [−1, 1], (1, C, H, W) like `images`.

    One draw for all images: an image's result then depends neither on its neighbours nor on its batch.
    """
    from components.draws import chance_of, uniform
    from components.training import mix

    return (2 * uniform((1, *images.shape[1:]), chance_of(mix(*seeds))) - 1).to(images)
