"""Training of the purifying networks against an attacker who knows all of them.

    x ── attack through the networks as they stand ──▶ x' ── squeezed ──▶ E ──▶ z ── G ──▶ x_g ── U ──▶ C (fixed)

(Adversarial training: Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018, equation
2.1; here of what stands in front of a classifier that stays as it is.)
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from components.attacks.losses import log_odds
from components.config import Config
from components.hardware import Captured
from components.precision import Precision
from components.squeezing import squeezed_with_gradient
from components.training import Training, autocast, batches, freeze
from components.unet.config import Learning

PARTS = ("generator", "encoder", "unet")


class AdversarialConfig(Config):
    """The attacks that a training defends against, and the training."""

    learning: Learning = "all"  # the networks that learn; the others stay as they are
    epsilon: float = Field(default=0.3, ge=0, le=1)  # radius of the L∞ ball of its attacks
    levels: int | None = Field(default=2, ge=2, le=256)  # as projector.levels
    threshold: float | None = Field(default=None, gt=0, lt=1)  # as projector.threshold
    attacked: float = Field(default=0.75, ge=0, le=1)  # share of each batch that is attacked
    first_steps: int = Field(default=1, ge=1, le=1000)  # of an attack in the first epoch
    steps: int = Field(default=10, ge=1, le=1000)  # of an attack in the last epoch; in between they grow evenly
    step_size: float = Field(default=0.3, gt=0, le=1)  # of each pixel, each step
    label_weight: float = Field(default=1.0, ge=0)  # of CE(C(U(x_g)), y)
    pixel_weight: float = Field(default=0.5, ge=0)  # of ‖U(x_g) − x‖₁ and of ‖x_g − x‖₁
    smoothing: float = Field(default=0.0, ge=0, lt=1)  # of the labels
    augment: float = Field(default=0.0, ge=0, le=1)  # random turns, sizes and shifts, see `augmented`
    epochs: int = Field(default=24, ge=1, le=10_000)  # passes over the training images
    batch_size: int = Field(default=1024, ge=2, le=10**6)  # images per step
    learning_rate: float = Field(default=2e-3, gt=0, le=1)  # AdamW's at the peak of a one-cycle schedule
    weight_decay: float = Field(default=1e-2, ge=0)  # AdamW's
    average: float = Field(default=0.99, ge=0, lt=1)  # decay of the running average of weights that is kept
    precision: Precision = "float32"  # of the matrix products


class Purifier(nn.Module):
    """U(G(E(x))): the defense without its descent, and without its classifier.

    Returns:
        U(x_g) and x_g, (N, C, H, W) in [0, 1].
    """

    def __init__(self, generator: nn.Module, encoder: nn.Module, unet: nn.Module) -> None:
        super().__init__()
        self.generator, self.encoder, self.unet = generator, encoder, unet

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Squeezed images (N, C, H, W) in [0, 1] → U(x_g), x_g."""
        generated = self.generator(self.encoder(images))
        return self.unet(generated), generated


class AttackedTraining(Training):
    """Trains networks against attacks through them as they stand.

    Args:
        config: attacks and training.
        learner: the networks, which are changed; only weights that require a gradient.
        learning: names of its parts that learn; the others stay as they are.
        images: x, (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        seed: of order, attacks and augmentation.
        device: where to train.

    Attributes:
        averaged: the running average of the networks, which is what to use.
    """

    def __init__(
        self,
        config: AdversarialConfig,
        learner: nn.Module,
        learning: Sequence[str],
        images: Tensor,
        labels: Tensor,
        seed: int,
        device: torch.device | str,
    ) -> None:
        super().__init__(config.epochs, seed, device)
        self.config = config
        self.images, self.labels = images.to(device), labels.to(device)
        self.batch_size = min(config.batch_size, len(labels))
        self.learner = learner.to(device)
        self.learning = [self.learner.get_submodule(name) for name in learning]
        self.averaged = freeze(copy.deepcopy(self.learner))
        self._ascent: Ascent | None = None
        weights = [weight for part in self.learning for weight in part.parameters() if weight.requires_grad]
        fused = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            weights, config.learning_rate, weight_decay=config.weight_decay, fused=fused
        )
        steps = config.epochs * -(-len(labels) // self.batch_size)
        self.schedule = OneCycleLR(self.optimizer, config.learning_rate, total_steps=steps + 1, pct_start=0.15)

    @abstractmethod
    def _through(self, images: Tensor) -> tuple[Tensor, ...]:
        """Logits (N, classes) of images (N, C, H, W), with a gradient, and what was made of the images on the way."""

    def parts(self) -> Mapping[str, Any]:
        return {
            "learner": self.learner,
            "averaged": self.averaged,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }

    def run_epoch(self) -> dict[str, float]:
        totals, seen = torch.zeros(3, device=self.device), 0
        for index in batches(len(self.labels), self.batch_size):
            index = index.to(self.device)
            totals += self._step(augmented(self.images[index], self.config.augment), self.labels[index])
            seen += len(index)
        loss, right, attacked = totals.tolist()
        return {"loss": loss / seen, "attacked_right": right / max(1.0, attacked)}

    def attack_steps(self) -> int:
        """Steps of an attack in this epoch."""
        config = self.config
        share = self.epoch / (config.epochs - 1) if config.epochs > 1 else 1.0  # the only epoch is the last
        return round(config.first_steps + share * (config.steps - config.first_steps))

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One optimizer step; the summed loss, and how many of the attacked images were right, of how many."""
        count = round(self.config.attacked * len(images))
        attacked = self._attacked(images[:count], labels[:count])
        for part in self.learning:
            part.train()
        with autocast(self.device, self.config.precision):
            logits, *made = self._through(torch.cat([attacked, images[count:]]))
            loss = self._loss(logits.float(), labels, made, images)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self._average()
        right = (logits[:count].argmax(1) == labels[:count]).sum()
        return torch.stack([loss.detach() * len(images), right, torch.full_like(right, count)])

    def _loss(self, logits: Tensor, labels: Tensor, made: list[Tensor], originals: Tensor) -> Tensor:
        config = self.config
        loss = config.label_weight * functional.cross_entropy(logits, labels, label_smoothing=config.smoothing)
        for images in made:
            loss = loss + config.pixel_weight * (images - originals).abs().mean()
        return loss

    def _attacked(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images in the ball that the networks as they stand, in evaluation mode, misread."""
        if not len(images):
            return images
        ascent = self._ascent
        if ascent is None or len(ascent.labels) != len(labels):  # a last, smaller batch has one of its own
            ascent = Ascent(self._gradient, self.config, images, labels, self._ascents(len(labels)))
            self._ascent = ascent if self._ascent is None else self._ascent
        self.learner.eval()
        return ascent.run(images, labels, self.attack_steps())

    def _ascents(self, images: int) -> int:
        """Steps of attacks on full batches in all epochs; none on a smaller one are worth a capture."""
        config = self.config
        full = images == round(config.attacked * self.batch_size)
        steps = (config.first_steps + config.steps) // 2
        return config.epochs * (len(self.labels) // self.batch_size) * steps if full else 0

    def _gradient(self, attacked: Tensor, labels: Tensor) -> Tensor:
        attacked = attacked.detach().requires_grad_()
        with autocast(self.device, self.config.precision):
            logits = self._through(attacked)[0]
            loss = log_odds(logits.float(), labels).sum()
        (gradient,) = torch.autograd.grad(loss, attacked)
        return gradient

    @torch.no_grad()
    def _average(self) -> None:
        step = self.schedule.last_epoch
        decay = min(self.config.average, (1 + step) / (10 + step))  # a short memory while the weights still move fast
        averages, weights = (_floating(network) for network in (self.averaged, self.learner))
        torch._foreach_lerp_(averages, weights, 1 - decay)


class AdversarialTraining(AttackedTraining):
    """Trains generator, encoder and U-Net against attacks through them, for a classifier that stays as it is.

    Args:
        config, images, labels, seed, device: as `AttackedTraining`.
        generator, encoder, unet: trained before, or new; copies of them learn.
        classifier: images → logits; gradients pass through it.
    """

    averaged: Purifier

    def __init__(
        self,
        config: AdversarialConfig,
        generator: nn.Module,
        encoder: nn.Module,
        unet: nn.Module,
        classifier: nn.Module,
        images: Tensor,
        labels: Tensor,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.classifier = freeze(classifier).to(device)
        learner = Purifier(*(copy.deepcopy(part) for part in (generator, encoder, unet))).requires_grad_(False)
        learning = learning_parts(config.learning)
        for name in learning:
            learner.get_submodule(name).requires_grad_(True)
        super().__init__(config, learner, learning, images, labels, seed, device)

    def _through(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C(U(x_g)), U(x_g) and x_g."""
        seen = squeezed_with_gradient(images, self.config.levels, self.config.threshold)
        denoised, generated = self.learner(seen)
        return self.classifier(denoised), denoised, generated


class Ascent:
    """The steps of an attack in tensors that stay, so that a card can take each as one CUDA graph.

    Args:
        gradient: images (N, C, H, W) and labels (N,) → the gradient of what the attack raises.
        config: radius and size of the steps.
        images, labels: of the shapes to come.
        calls: steps that will be taken in all.
    """

    def __init__(
        self,
        gradient: Callable[[Tensor, Tensor], Tensor],
        config: AdversarialConfig,
        images: Tensor,
        labels: Tensor,
        calls: int,
    ) -> None:
        self._gradient, self._epsilon, self._size = gradient, config.epsilon, config.step_size
        self.attacked, self.low, self.high = (torch.empty_like(images) for _ in range(3))
        self.labels = torch.empty_like(labels)
        self._step = Captured(self._advance, images.device, calls)

    def run(self, images: Tensor, labels: Tensor, steps: int) -> Tensor:
        """The images after `steps` steps from a random start in the ball."""
        self.low.copy_((images - self._epsilon).clamp(min=0))
        self.high.copy_((images + self._epsilon).clamp(max=1))
        self.labels.copy_(labels)
        self.attacked.copy_(self.low + torch.rand_like(images) * (self.high - self.low))
        for _ in range(steps):
            self._step()
        return self.attacked.clone()

    def _advance(self) -> None:
        moved = self.attacked + self._size * self._gradient(self.attacked, self.labels).sign()
        self.attacked.copy_(torch.clamp(moved, self.low, self.high))


def _floating(network: nn.Module) -> list[Tensor]:
    """Weights and batch statistics, which belong together."""
    return [tensor for tensor in (*network.parameters(), *network.buffers()) if tensor.is_floating_point()]


def learning_parts(learning: str) -> tuple[str, ...]:
    """The networks that learn, by name."""
    return PARTS if learning == "all" else tuple(learning.split("+"))


def augmented(images: Tensor, strength: float) -> Tensor:
    """Images (N, C, H, W) turned by up to 15°, resized by up to 15 % and shifted by up to a tenth, times `strength`."""
    if not strength:
        return images
    drawn = strength * (2 * torch.rand(len(images), 5, device=images.device) - 1)
    angle, scale, shift = drawn[:, 0] * math.radians(15), 1 + 0.15 * drawn[:, 1:3], 0.2 * drawn[:, 3:]
    cosine, sine = angle.cos(), angle.sin()
    rows = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1) * scale.unsqueeze(1)
    grid = functional.affine_grid(torch.cat([rows, shift.unsqueeze(2)], 2), list(images.shape), align_corners=False)
    # what comes in from outside is as the border: black would be drawn into images on a light ground
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False).clamp(0, 1)
