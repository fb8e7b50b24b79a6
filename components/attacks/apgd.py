"""Auto-PGD: projected gradient ascent that chooses its own step sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from components.attacks.base import ATTACKS, KNOWS, Attack
from components.attacks.pgd import noise

if TYPE_CHECKING:
    from torch import Tensor, nn

    from components.attacks.losses import Loss


@ATTACKS.register("apgd")
class APGD(Attack):
    """Auto-PGD in the L∞ ball.

    Source: Croce, Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks (ICML 2020), algorithm 1 and section 4.
    """

    title: ClassVar[str] = "APGD"
    attacker: ClassVar[str] = (
        f"{KNOWS} raises a loss of its logits in steps along the sign of the gradient, whose size the attack chooses, "
        "by at most ε of the range from 0 to 1 in each pixel"
    )
    not_tried: ClassVar[str] = "query attacks"

    name: Literal["apgd"] = "apgd"  # the attack
    loss: Literal["ce", "dlr", "targeted"] = "ce"  # cross-entropy, difference of logits ratio, or that towards classes
    steps: int = Field(default=50, ge=1, le=10_000)  # gradient steps of each restart
    restarts: int = Field(default=1, ge=1, le=1000)  # random starts; for targeted: the most likely other classes

    def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        return self.through(classifier, images, labels, seed)

    def through(
        self, source: nn.Module, images: Tensor, labels: Tensor, seed: int, judge: nn.Module | None = None
    ) -> Tensor:
        """Attacks one batch by the gradients of `source`, and keeps of all its steps what `judge` reads worst.

        Args:
            source, images, labels, seed: as `perturb`.
            judge: images → logits of what the attack is for, where that is another model than the source: what fools
                the source most is seldom what carries over best. None: the source itself.
        """
        import torch

        images, best = images.detach(), images.detach()
        highest = torch.full_like(labels, -torch.inf, dtype=images.dtype)
        for restart in range(self.restarts):
            start = (images + self.epsilon * noise(images, seed, restart)).clamp(0, 1)
            loss = self._loss(source, images, labels, restart)
            attacked, reached = ascend(source, images, labels, self.epsilon, self.steps, loss, start, judge)
            better = reached > highest
            highest = torch.where(better, reached, highest)
            best = torch.where(better.view(-1, 1, 1, 1), attacked, best)
        return best

    def _loss(self, classifier: nn.Module, images: Tensor, labels: Tensor, restart: int) -> Loss:
        import torch

        from components.attacks.losses import TargetedDLR, dlr, log_odds, logits_of

        if self.loss != "targeted":
            return log_odds if self.loss == "ce" else dlr
        logits = logits_of(classifier, images).scatter(1, labels.unsqueeze(1), -torch.inf)
        others = max(1, logits.shape[1] - 1)
        return TargetedDLR(logits.argsort(1, descending=True)[:, restart % others])


def ascend(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
    loss: Loss,
    start: Tensor,
    judge: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    """One run of algorithm 1 from `start`, all images at once.

    Returns:
        Of each image's course the point with the largest margin (see `losses.margin`) by the judge, or by the model
        itself where there is none, and that margin.
    """
    import torch

    from components.attacks.losses import margin, uphill
    from components.attacks.remembered import answers_of, gradients_of

    rows = torch.arange(len(labels), device=labels.device)
    slope, read = gradients_of(model, labels, loss), None if judge is None else answers_of(judge)
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    x = previous = best = found = start
    gradient, logits = slope(x, rows)
    values = highest = loss(logits, labels)
    best_gradient, widest = gradient, margin(logits if read is None else read(x), labels)
    size = torch.full_like(values, 2 * epsilon, dtype=images.dtype)
    rises = torch.zeros_like(values)
    checked_best, shrunk = highest, torch.zeros_like(values, dtype=torch.bool)
    since = 0
    checkpoints = _checkpoints(steps)
    for step in range(1, steps + 1):
        share = 0.75 if step > 1 else 1.0
        ahead = torch.clamp(x + _wide(size) * uphill(gradient), low, high)
        x, previous = torch.clamp(x + share * (ahead - x) + (1 - share) * (x - previous), low, high), x
        gradient, logits = slope(x, rows)
        reached = loss(logits, labels)
        wide = margin(logits if read is None else read(x), labels)
        rises += reached > values
        values, since = reached, since + 1
        better, wider = reached > highest, wide > widest
        best, best_gradient = torch.where(_wide(better), x, best), torch.where(_wide(better), gradient, best_gradient)
        highest, widest = torch.maximum(reached, highest), torch.maximum(wide, widest)
        found = torch.where(_wide(wider), x, found)
        if step in checkpoints:
            stuck = (rises < 0.75 * since) | (~shrunk & (highest <= checked_best))
            size = torch.where(stuck, size / 2, size)
            x, gradient = torch.where(_wide(stuck), best, x), torch.where(_wide(stuck), best_gradient, gradient)
            values = torch.where(stuck, highest, values)
            checked_best, shrunk, since = highest, stuck, 0
            rises = torch.zeros_like(rises)
    return found, widest


def _checkpoints(steps: int) -> set[int]:
    """Steps after which the size may be halved (section 3.1, "Step size selection")."""
    places = [0.0, 0.22]
    while places[-1] < 1:
        places.append(places[-1] + max(places[-1] - places[-2] - 0.03, 0.06))
    return {-(-int(place * steps * 1000) // 1000) for _, place in pairwise(places) if place <= 1}


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
