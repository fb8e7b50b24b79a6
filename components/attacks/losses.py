"""Losses that attacks raise, one value an image: logits (N, classes), labels (N,) → (N,)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.attacks.eot import EOT
from components.purifiers import NoGradient
from components.training import evaluating

Loss = Callable[[Tensor, Tensor], Tensor]


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log((1 − p) / p) of the label's probability p, which rises as the cross-entropy does: −log p is its softplus.

    Attacks by signs and by order are the same with both, but for one thing: where a network is sure, by a margin of 17
    and more in float32, the gradient of the cross-entropy is rounded to that of other classes alone, and then to zero.
    """
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    return logits.scatter(1, labels.unsqueeze(1), -torch.inf).logsumexp(1) - own


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """−log p of the label's probability p, by its log-odds: in float32 with a gradient up to margins of 87."""
    return functional.softplus(log_odds(logits, labels))


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The best other logit above the label's (Carlini and Wagner 2017, f6); positive where the image is misread."""
    own = logits.gather(1, labels.unsqueeze(1))
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return others.amax(1) - own.squeeze(1)


def misread(logits: Tensor, labels: Tensor) -> Tensor:
    """Tells which images get another label, bool (N,); where two logits are equal the first counts, NaN is no label."""
    return (logits.argmax(1) != labels) | logits.isnan().any(1)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio: the margin over the spread of the first and third logit (Croce and Hein 2020, eq. 6).

    It does not change where the logits are scaled. With two classes it is the margin: their ratio would be 1 or −1.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    ordered = logits.sort(dim=1, descending=True).values
    return margin(logits, labels) / (ordered[:, 0] - ordered[:, 2]).clamp(min=1e-12)


@dataclass(frozen=True)
class TargetedDLR:
    """The ratio towards `targets` (N,) (Croce and Hein 2020, equation 7); with fewer than four classes, as `dlr`."""

    targets: Tensor

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, classes) and labels (N,), of the rows of `targets`, → (N,)."""
        if logits.shape[1] < 3:
            return dlr(logits, labels)
        ordered = logits.sort(dim=1, descending=True).values
        last = logits.shape[1] - 1
        spread = ordered[:, 0] - (ordered[:, min(2, last)] + ordered[:, min(3, last)]) / 2
        towards = logits.gather(1, self.targets.unsqueeze(1)) - logits.gather(1, labels.unsqueeze(1))
        return towards.squeeze(1) / spread.clamp(min=1e-12)


def loss_of_rows(loss: Loss, rows: Tensor) -> Loss:
    """A loss of N images, of some of them."""
    return TargetedDLR(loss.targets[rows]) if isinstance(loss, TargetedDLR) else loss


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """The gradient of each image's loss with respect to it, like `images`, and the logits there.

    The model predicts in evaluation mode and is left as it was. Of a random model under `EOT` it is the gradient of the
    expected loss, and the mean logits; in place of log-odds, which a draw that is sure would drown, the cross-entropy.

    Raises:
        NoGradient: no gradient of the model reaches the images.
    """
    if not isinstance(model, EOT):
        return _gradient_of_one(model, images, labels, loss)
    loss = cross_entropy if loss is log_odds else loss
    gradients, logits = zip(
        *(_gradient_of_one(model.model, images, labels, loss) for _ in range(model.draws)), strict=True
    )
    return torch.stack(gradients).mean(0), torch.stack(logits).mean(0)


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """The logits (N, classes) of a model in evaluation mode; of a random one under `EOT` their mean."""
    with evaluating(model):
        logits: Tensor = model(images)
    return logits


def uphill(gradient: Tensor) -> Tensor:
    """The sign of each entry; 0, not NaN, where there is no number."""
    return gradient.nan_to_num(0.0).sign()


def _gradient_of_one(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    images = images.detach().requires_grad_()
    with evaluating(model), torch.enable_grad():
        logits = model(images)
        if not logits.requires_grad:
            raise NoGradient(
                f"{type(model).__name__}: expected a differentiable model, found one through which no gradient "
                "passes; the attack square needs none, and components.attacks.bpda puts a substitute in its place"
            )
        # the sum keeps each image's gradient free of how many others are in the batch
        (gradient,) = torch.autograd.grad(loss(logits, labels).sum(), images)
    return gradient, logits.detach()
