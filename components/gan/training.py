"""Generator and discriminator, trained together on clean images only."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from components.gan.config import GanConfig
from components.gan.losses import LOSSES
from components.gan.networks import Discriminator, Generator
from components.hardware import Captured
from components.layout import channels_last
from components.optimizer import Adam
from components.training import Training, drawn_from, freeze


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
            channels_last(network.to(device))
        self.generator = freeze(copy.deepcopy(self.learner))
        rate = config.learning_rate or self.loss.learning_rate
        betas = self.loss.betas
        self.generator_optimizer = Adam(self.learner.parameters(), rate, betas)
        self.discriminator_optimizer = Adam(self.discriminator.parameters(), rate, betas)
        self._totals = torch.zeros(2, device=self.device)  # of the losses of discriminator and generator
        self._generator_step = Captured(self._train_generator, self.device, config.steps)
        self._discriminator_steps = {  # 0 pays the penalty; 1 stands for every step that does not
            step: Captured(partial(self._train_discriminator, step), self.device, calls * self.loss.critic_steps)
            for step, calls in ((0, config.steps // self.loss.interval), (1, config.steps))
        }

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
        self._totals.zero_()
        for step in range(first, last):
            for _ in range(self.loss.critic_steps):
                self.discriminator_optimizer.step()
                self._discriminator_steps[min(step % self.loss.interval, 1)]()
            self.generator_optimizer.step()
            self._generator_step()
            self._average(step)
        self._measure_normalisation()
        discriminator_loss, generator_loss = (self._totals / (last - first)).tolist()
        return {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss}

    def _latents(self) -> Tensor:
        return torch.randn(self.config.batch_size, self.config.latent_dim, device=self.device)

    def _train_discriminator(self, step: int) -> None:
        index = torch.randint(len(self.images), (self.config.batch_size,), device=self.device)
        real = self.images[index]
        with torch.no_grad():
            fake = self.learner(self._latents())
        loss = self.loss.discriminator(self.discriminator, real, fake, step)
        self.discriminator_optimizer.descend(loss)
        self._totals[0] += loss.detach() / self.loss.critic_steps

    def _train_generator(self) -> None:
        loss = self.loss.generator(self.discriminator(self.learner(self._latents())))
        self.generator_optimizer.descend(loss)
        self._totals[1] += loss.detach()

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
        layers = [layer for layer in self.generator.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        memories = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over the batches below
        self.generator.train()
        for _ in range(32):
            self.generator(self._latents())
        self.generator.eval()
        for layer, memory in zip(layers, memories, strict=True):
            layer.momentum = memory  # whoever trains it further goes by this, and no state keeps it
