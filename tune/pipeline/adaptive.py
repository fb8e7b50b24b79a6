"""The adaptive training of the stage `unet`: by attacks through the networks as they stand."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from components.adversarial_training import AdversarialConfig, AdversarialTraining, learning_parts
from components.classifiers.base import ImageClassifier
from components.datasets.dataset import DataSplit
from components.defense import Defense, in_batches
from components.gan.encoder import Encoder
from components.gan.networks import Discriminator, Generator
from components.hardware import images_at_once
from components.metrics import agreement
from components.purifiers import PurifierConfig
from components.squeezing import squeezed
from components.unet.network import UNet
from tune.pipeline.attack import attacked_of
from tune.pipeline.gan import gan_of
from tune.pipeline.job import Job, Row
from tune.pipeline.recipe import Recipe
from tune.space.config import ExperimentConfig

_SHARED = set(AdversarialConfig.model_fields) - {"epsilon", "levels", "threshold"}


def threat(config: ExperimentConfig) -> dict[str, Any]:
    """Settings that the attacks of the training follow from, beside the U-Net's own."""
    projector = config.projector
    return {"epsilon": config.attack.epsilon, "levels": projector.levels, "threshold": projector.threshold}


def settings(config: ExperimentConfig) -> AdversarialConfig:
    """The settings of the training."""
    chosen = {name: value for name, value in config.unet.model_dump().items() if name in _SHARED}
    return AdversarialConfig.model_validate({**chosen, **threat(config)})


def build(job: Job, train: DataSplit, network: UNet, judge: ImageClassifier) -> None:
    """Trains, and leaves in the draft the U-Net and what learned beside it."""
    pair = gan_of(job)
    assert pair.encoder is not None, "gan: expected an encoder for unet.training: adaptive, found none"
    config = settings(job.config)
    training = AdversarialTraining(
        config, pair.generator, pair.encoder, network, judge, train.images, train.labels, job.seed, job.device
    )
    job.write_history(job.train(training, lambda: _measured(job, training, judge)))
    for name in {"unet", *learning_parts(config.learning)}:
        job.write_weights(name, training.averaged.get_submodule(name))


def _measured(job: Job, training: AdversarialTraining, judge: ImageClassifier) -> Row:
    """Validation scores of the averaged networks under the gray-box attack, without a descent."""
    held = job.data.validation
    if held is None:
        return {}
    config = job.config.projector
    seen = squeezed(attacked_of(job, "attack"), config.levels, config.threshold)
    parts = training.averaged
    size = images_at_once(seen, job.device)  # latents are small, what is made of them is not
    generated = in_batches(parts.generator, in_batches(parts.encoder, seen, job.device), job.device, size)
    logits = in_batches(judge, in_batches(parts.unet, generated, job.device), job.device)
    return {
        "psd": agreement(logits.argmax(1), held.labels),
        "pco": agreement(logits.argmax(1), judge.predict(held.images)),
        "validation_loss": float(functional.cross_entropy(logits, held.labels)),
    }


def new_networks(recipe: Recipe) -> tuple[Generator, Encoder]:
    """Generator and encoder of a configuration's sizes, untrained."""
    config, shape = recipe.config.gan, recipe.data.image_shape
    return Generator(config.latent_dim, config.width, shape), Encoder(config.latent_dim, config.encoder_width, shape)


def sampled(
    recipe: Recipe, some: DataSplit, network: UNet, judge: ImageClassifier, device: torch.device
) -> AdversarialTraining:
    """A training of untrained networks with as many steps in each attack as there are on average."""
    config = settings(recipe.config)
    steps = max(1, round((config.first_steps + config.steps) / 2))
    endless = config.model_copy(update={"epochs": 10**6, "first_steps": steps, "steps": steps})
    return AdversarialTraining(
        endless, *new_networks(recipe), network, judge, some.images, some.labels, 0, device
    )


def sampled_defense(recipe: Recipe, network: UNet, judge: ImageClassifier, device: torch.device) -> Defense:
    """The defense of a configuration with untrained networks."""
    generator, encoder = new_networks(recipe)
    discriminator = Discriminator(recipe.config.gan.discriminator_width, recipe.data.image_shape)
    networks = {"generator": generator, "encoder": encoder, "discriminator": discriminator}
    settings = recipe.config.section(recipe.config.defense.purifier)
    assert isinstance(settings, PurifierConfig)
    return Defense(settings.component(networks, 0, device), network, judge)
