"""Networks that are real, small and quick to make."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from components.classifiers.catalogue import CLASSIFIERS
from components.classifiers.defense_gan import Classifier
from components.defense import Defense
from components.gan.encoder import Encoder
from components.gan.networks import Discriminator, Generator
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from components.training import drawn_from
from components.unet.config import Input
from components.unet.network import UNet

with CLASSIFIERS.scope():  # a plug-in defines it, and only where one is given is its name known
    from tests.small_resnet import SmallResNet

__all__ = ["DESCENTS", "SmallResNet", "defense_of", "encoder_of", "generator_of"]

# settings of the projector that go through different parts of a descent
DESCENTS: dict[str, dict[str, Any]] = {
    "as by default": {},
    "as published": {"init": "random", "optimizer": "sgd", "learning_rate": 1.0, "distance": "l2"},
    "from an encoder": {"init": "encoder", "levels": 2},
    "regularised": {"prior_weight": 0.1, "realism_weight": 0.1, "distance": "huber"},
    "in bfloat16": {"precision": "bfloat16"},
}


def generator_of(shape: Sequence[int] = (1, 8, 8), latent_dim: int = 5, seed: int = 0) -> Generator:
    """A generator in double precision, in which rounding cannot flip a tie, whose normalisation has seen something."""
    with drawn_from(seed):
        generator = Generator(latent_dim, 4, shape).double()
        for _ in range(3):
            generator(torch.randn(16, latent_dim).double())
        for layer in generator.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
        nn.init.normal_(generator.out.weight, std=0.5)  # images that differ from each other
    return generator.eval()


def encoder_of(shape: Sequence[int] = (1, 8, 8), latent_dim: int = 5, seed: int = 0) -> Encoder:
    """An encoder in double precision, for `generator_of` of the same arguments."""
    with drawn_from(seed):
        encoder = Encoder(latent_dim, 4, (shape[0], shape[1], shape[2])).double()
        for _ in range(3):
            encoder(torch.rand(16, *shape).double())
    return encoder.eval()


def defense_of(
    shape: Sequence[int] = (1, 8, 8), classes: int = 4, seed: int = 0, reads: Input = "generated", **projector: object
) -> Defense:
    """A defense of untrained networks that does something to every image."""
    settings = {"restarts": 2, "steps": 3, "bank_size": 16, **projector}
    generator = generator_of(shape, seed=seed).float()
    encoder = encoder_of(shape, seed=seed).float()
    with drawn_from(seed):
        discriminator = Discriminator(4, shape)
        unet = UNet(shape[0], 4, 1, reads)
        nn.init.normal_(unet.out.weight)
        classifier = Classifier("D", shape, classes)
    config = ProjectorConfig.model_validate(settings)
    searcher = Projector(generator, config, discriminator=discriminator, encoder=encoder, seed=seed)
    return Defense(searcher, unet, classifier, discriminator)
