"""Attacks on the classifier. The attacker knows the classifier and not the defense: a gray box."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from components.config import Config
from components.training import evaluating


class AttackConfig(Config):
    """How the images are attacked."""

    name: Literal["fgsm"] = "fgsm"  # the attack
    epsilon: float = Field(default=0.3, ge=0, le=1)  # radius of the L∞ ball, on images in [0, 1]
    labels: Literal["true", "predicted"] = "true"  # whose loss is raised; either way the label leaks into the attack


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
    """
    images = images.detach().requires_grad_()
    with evaluating(classifier), torch.enable_grad():
        # the sum keeps each image's gradient free of how many others are in the batch
        loss = functional.cross_entropy(classifier(images), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
    return (images.detach() + epsilon * gradient.sign()).clamp(0, 1)


def attack(
    config: AttackConfig, classifier: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 250
) -> Tensor:
    """Attacks `images` (N, C, H, W) in [0, 1] as `config` says.

    It computes on the classifier's device and returns the attacked images on their own.

    With `labels: predicted` the attacker raises the loss of what the classifier itself says, as one who does not
    know the truth must. It leaks the label that it starts from (Kurakin et al. 2017, section 4), which then is the true
    one no more often than the classifier is right.
    """
    device = next(classifier.parameters()).device
    attacked = []
    for batch, truth in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        batch, truth = batch.to(device), truth.to(device)
        target = truth
        if config.labels == "predicted":
            with evaluating(classifier), torch.no_grad():
                target = classifier(batch).argmax(1)
        attacked.append(fgsm(classifier, batch, target, config.epsilon).to(images.device))
    return torch.cat(attacked)
