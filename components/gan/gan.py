"""Generator and discriminator, trained together on clean images only."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from components.config import Config
from components.gan.folded import FrozenGenerator
from components.pretrained import shipped_folder
from components.training import Precision, Training, drawn_from, freeze


class GanConfig(Config):
    """Generator, discriminator and their training."""

    loss: Literal["wgan_gp", "nonsaturating"] = "nonsaturating"  # as published, or non-saturating with lazy R1
    latent_dim: int = Field(default=64, ge=1, le=4096)  # length of z
    width: int = Field(default=32, ge=1, le=1024)  # channels of the generator's widest full-size map
    discriminator_width: int = Field(default=32, ge=1, le=1024)  # channels of the discriminator's first map
    steps: int = Field(default=6000, ge=1)  # generator steps
    steps_per_epoch: int = Field(default=500, ge=1)  # generator steps between two measurements (and saves)
    batch_size: int = Field(default=64, ge=2)  # images per step
    learning_rate: float | None = Field(default=None, gt=0, le=1)  # Adam's, of both; none = the loss's own
    average: float = Field(default=0.999, ge=0, lt=1)  # decay of the running average of the generator's weights
    encoder_steps: int = Field(default=0, ge=0)  # after that, of generator and an encoder, see projector.init; 0 = none
    encoder_width: int = Field(default=32, ge=1, le=1024)  # channels of the encoder's first map
    encoder_levels: int | None = Field(default=None, ge=2, le=256)  # grey levels it learns from, as projector.levels
    encoder_precision: Precision = "float32"  # of the matrix products in these further steps
    pretrained: str | None = None  # a pair that comes with the project, such as mnist; null = train one

    @field_validator("pretrained")
    @classmethod
    def _is_shipped(cls, name: str | None) -> str | None:
        if name is not None:
            shipped_folder(name)
        return name


class Generator(nn.Module):
    """Latent z (N, latent_dim) ~ N(0, I) → images (N, C, H, W) in [0, 1].

    The generator of Defense-GAN's MNIST experiments, a DCGAN (Radford et al. 2016), for images of any size:
    maps of ⌈H/8⌉ × ⌈W/8⌉ are doubled three times, and cropped where that is more than ⌈H/4⌉, ⌈H/2⌉ and H.
    """

    def __init__(self, latent_dim: int, width: int, image_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_dim, self.width, self.image_shape = latent_dim, width, tuple(image_shape)
        channels, height, breadth = image_shape
        self.sizes = [(-(-height // scale), -(-breadth // scale)) for scale in (8, 4, 2, 1)]
        self.base = (4 * width, *self.sizes[0])
        features = math.prod(self.base)
        self.dense = nn.Sequential(nn.Linear(latent_dim, features), nn.BatchNorm1d(features))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(2 * after, after, 4, 2, 1), nn.BatchNorm2d(after))
            for after in (2 * width, width)
        )
        self.out = nn.ConvTranspose2d(width, channels, 4, 2, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (N, latent_dim) → images (N, C, H, W) in [0, 1]."""
        maps: Tensor = functional.relu(self.dense(latents)).unflatten(1, self.base)
        maps = maps.contiguous(memory_format=torch.channels_last)
        for layer, (height, breadth) in zip([*self.up, self.out], self.sizes[1:], strict=True):
            maps = layer(maps)[..., :height, :breadth]
            maps = torch.sigmoid(maps) if layer is self.out else functional.relu(maps)
        return maps

    def folded(self) -> FrozenGenerator:
        """A frozen copy in evaluation mode with normalisation folded into the weights.

        It makes the same images, in fewer passes over the memory and by faster convolutions.
        """
        clone = freeze(copy.deepcopy(self))
        linear, norm = cast(tuple[nn.Linear, nn.BatchNorm1d], tuple(clone.dense))
        stages = [cast(tuple[nn.ConvTranspose2d, nn.BatchNorm2d], cast(nn.Sequential, up)) for up in clone.up]
        layers = [*(fuse_conv_bn_eval(conv, norm, transpose=True) for conv, norm in stages), clone.out]
        return FrozenGenerator(
            _weights(fuse_linear_bn_eval(linear, norm)), [_weights(layer) for layer in layers], self.base, self.sizes
        )


def _weights(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return cast(Tensor, layer.weight), cast(Tensor, layer.bias)


class Discriminator(nn.Module):
    """Images (N, C, H, W) in [0, 1] → realism scores (N,): logits, higher is more like the training images.

    Raises:
        ValueError: images of fewer than 8 × 8 pixels, which cannot be halved three times.
    """

    def __init__(self, width: int, image_shape: Sequence[int]) -> None:
        super().__init__()
        if min(image_shape[1:]) < 8:
            found = f"{image_shape[1]} × {image_shape[2]}"
            raise ValueError(f"gan: expected images of at least 8 × 8, found {found}")
        self.width, self.image_shape = width, tuple(image_shape)
        self.body = nn.Sequential(
            nn.Conv2d(image_shape[0], width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        features = self.body(torch.zeros(1, *image_shape)).shape[1]
        self.score = nn.Linear(features, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] → scores (N,)."""
        scores: Tensor = self.score(self.body(images))
        return scores.squeeze(1)


class GanLoss(Protocol):
    """What a pair is trained with, and the optimizer settings that were published with it."""

    critic_steps: int
    learning_rate: float
    betas: tuple[float, float]

    def generator(self, fake_scores: Tensor) -> Tensor:
        """The generator's loss from D's scores of its images."""
        ...

    def discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """The discriminator's loss on real and generated images."""
        ...


class WassersteinGP:
    """Wasserstein loss, gradient penalty (Gulrajani et al. 2017, algorithm 1): λ 10, five critic steps."""

    critic_steps, learning_rate, betas = 5, 1e-4, (0.5, 0.9)

    def generator(self, fake_scores: Tensor) -> Tensor:
        return -fake_scores.mean()

    def discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor, step: int) -> Tensor:
        mix = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        norms = _input_gradient(discriminator, between).flatten(1).norm(dim=1)
        loss: Tensor = discriminator(fake).mean() - discriminator(real).mean() + 10 * (norms - 1).square().mean()
        return loss


class NonSaturatingR1:
    """Non-saturating loss (Goodfellow et al. 2014) with a penalty on D's gradient at real images.

    The penalty (Mescheder et al. 2018) is lazy: every 16th step at 16 times its weight (Karras et al. 2020,
    appendix B).
    """

    critic_steps, learning_rate, betas = 1, 1e-3, (0.5, 0.99)
    # a weight of 1 left D nearly blind on MNIST (its loss stayed at 1.36 of 1.39)
    weight, interval = 0.05, 16

    def generator(self, fake_scores: Tensor) -> Tensor:
        return functional.softplus(-fake_scores).mean()

    def discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor, step: int) -> Tensor:
        loss = functional.softplus(-discriminator(real)).mean()
        loss = loss + functional.softplus(discriminator(fake)).mean()
        if step % self.interval == 0:
            gradient = _input_gradient(discriminator, real.detach().requires_grad_())
            penalty = gradient.square().flatten(1).sum(1).mean()
            loss = loss + self.interval * self.weight / 2 * penalty
        return loss


LOSSES: Mapping[str, type[GanLoss]] = {"wgan_gp": WassersteinGP, "nonsaturating": NonSaturatingR1}


class GanTraining(Training):
    """Trains a pair on clean images.

    An epoch is `steps_per_epoch` generator steps. `generator` is the averaged one.
    """

    def __init__(
        self, config: GanConfig, images: Tensor, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(-(-config.steps // config.steps_per_epoch), seed, device)
        self.config, self.images = config, images.to(device)
        self.loss = LOSSES[config.loss]()
        shape = images.shape[1:]
        with drawn_from(seed):
            self.learner = Generator(config.latent_dim, config.width, shape)
            self.discriminator = Discriminator(config.discriminator_width, shape)
        for network in (self.learner, self.discriminator):
            network.to(device).to(memory_format=torch.channels_last)
        self.generator = freeze(copy.deepcopy(self.learner))
        rate = config.learning_rate or self.loss.learning_rate
        betas = self.loss.betas
        self.generator_optimizer = torch.optim.Adam(self.learner.parameters(), rate, betas)
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), rate, betas)

    def parts(self) -> Mapping[str, Any]:
        return {
            "learner": self.learner,
            "discriminator": self.discriminator,
            "generator": self.generator,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def run_epoch(self) -> dict[str, float]:
        first = self.epoch * self.config.steps_per_epoch
        last = min(first + self.config.steps_per_epoch, self.config.steps)
        totals = torch.zeros(2)
        for step in range(first, last):
            for _ in range(self.loss.critic_steps):
                totals[0] += self._discriminator_step(step) / self.loss.critic_steps
            totals[1] += self._generator_step()
            self._average(step)
        self._measure_normalisation()
        discriminator_loss, generator_loss = (totals / (last - first)).tolist()
        return {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss}

    def _latents(self) -> Tensor:
        return torch.randn(self.config.batch_size, self.config.latent_dim, device=self.device)

    def _discriminator_step(self, step: int) -> Tensor:
        index = torch.randint(len(self.images), (self.config.batch_size,), device=self.device)
        real = self.images[index]
        with torch.no_grad():
            fake = self.learner(self._latents())
        loss = self.loss.discriminator(self.discriminator, real, fake, step)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimizer.step()
        return loss.detach().cpu()

    def _generator_step(self) -> Tensor:
        self.discriminator.requires_grad_(False)  # its weights need no gradient here
        loss = self.loss.generator(self.discriminator(self.learner(self._latents())))
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.generator_optimizer.step()
        self.discriminator.requires_grad_(True)
        return loss.detach().cpu()

    @torch.no_grad()
    def _average(self, step: int) -> None:
        # a short memory while the weights still move fast
        decay = min(self.config.average, (1 + step) / (10 + step))
        averages: list[Tensor] = list(self.generator.parameters())
        weights: list[Tensor] = list(self.learner.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @torch.no_grad()
    def _measure_normalisation(self) -> None:
        """Batch statistics of the averaged weights: the learner's belong to other weights."""
        for layer in self.generator.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.reset_running_stats()
                layer.momentum = None  # a plain mean over the batches below
        self.generator.train()
        for _ in range(32):
            self.generator(self._latents())
        self.generator.eval()


def _input_gradient(discriminator: nn.Module, images: Tensor) -> Tensor:
    return torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)[0]
