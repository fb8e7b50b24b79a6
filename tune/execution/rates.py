"""How fast this machine is at each kind of work, measured for about a second each; and what a search takes at that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from components.classifiers.defense_gan import Classifier, ClassifierTraining
from components.datasets.dataset import DataSplit
from components.gan.config import GanConfig
from components.gan.encoder_training import EncoderTraining
from components.gan.networks import Discriminator, Generator
from components.gan.training import GanTraining
from components.projector.projector import Projector
from components.training import Training, freeze
from components.unet.network import join
from components.unet.training import UNetTraining
from tune.execution.estimate import images_of
from tune.execution.evaluation import EPSILONS, curve_images
from tune.pipeline.builders import PROBE, PROBE_IMAGES
from tune.pipeline.job import Bounds, Development, bounds_of_one
from tune.space.config import ExperimentConfig

SECONDS = 1.0  # of each measurement
BATCHES = 4  # per epoch of a measured training, or steps of a GAN's: short, so that it ends in time
PROJECTED = 4  # steps of a measured projection
FORWARD = 1 / 3  # of a training step's time that a network takes to be applied


@dataclass(frozen=True)
class Rates:
    """Seconds per unit of work.

    Attributes:
        classifier: per image that it is trained on.
        gan: per generator step, with the discriminator's that belong to it.
        encoder: per step of encoder and generator.
        projection: per latent and step: one gradient evaluation.
        unet: per image that it is trained on.
    """

    classifier: float
    gan: float
    encoder: float
    projection: float
    unet: float


def measure(config: ExperimentConfig, data: Development, device: torch.device, seconds: float = SECONDS) -> Rates:
    """Trains and projects for a few seconds; what comes of it is thrown away."""
    rates = {name: _training(training, units, seconds) for name, training, units in trainings(config, data, device)}
    rates["projection"] = _projection(config, data, device, seconds)
    return Rates(**{"gan": 0.0, "encoder": 0.0, **rates})


def trainings(
    config: ExperimentConfig, data: Development, device: torch.device, batches: int = BATCHES
) -> Iterator[tuple[str, Training, int]]:
    """Each training that a configuration asks for with an epoch of a few full batches, and the units of work in it."""
    gan, train, images = config.gan, data.train, data.train.images[:2000]
    some = _first(train, batches * config.classifier.batch_size)
    settings = config.classifier.model_copy(update={"epochs": 10**6})
    yield "classifier", ClassifierTraining(settings, some, data.classes, 0, device), len(some)
    if not gan.pretrained:
        steps = {"steps": 10**9, "steps_per_epoch": batches}
        yield "gan", GanTraining(gan.model_copy(update=steps), images, 0, device), batches
        if gan.encoder_steps:
            yield "encoder", _encoder(gan, images, device, batches), batches
    judge = freeze(Classifier(config.classifier.architecture, data.image_shape, data.classes)).to(device)
    paired = _first(train, batches * config.unet.batch_size)
    inputs = join(config.unet.input, paired.images, paired.images)
    unet = config.unet.model_copy(update={"epochs": 10**6})
    yield "unet", UNetTraining(unet, inputs, paired.images, paired.labels, judge, 0, device), len(paired)


def projector(config: ExperimentConfig, data: Development, device: torch.device, bank: int = 64) -> Projector:
    """An untrained projector of a configuration with at most eight restarts of a few steps.

    Args:
        config: the configuration.
        data: images of its shape.
        device: where to compute.
        bank: images to draw where it starts from a bank.
    """
    restarts = min(config.projector.restarts, 8)
    settings: dict[str, Any] = {"restarts": restarts, "steps": PROJECTED, "bank_size": max(restarts, bank)}
    if config.projector.init == "encoder":  # it may not be there yet, and costs little beside the steps
        settings["init"] = "random"
    judge = freeze(Discriminator(config.gan.discriminator_width, data.image_shape)).to(device)
    generator = Generator(config.gan.latent_dim, config.gan.width, data.image_shape)
    return Projector(
        generator, config.projector.model_copy(update=settings), discriminator=judge, device=device
    )


def seconds_of(stage: str, config: ExperimentConfig, bounds: Bounds, data: Development, rates: Rates) -> float:
    """Computing time of one artifact of a stage."""
    return _WORK.get(stage, _nothing)(images_of(stage, config, data), config, bounds, data, rates)


def seconds_of_test(config: ExperimentConfig, images: int, rates: Rates) -> float:
    """Computing time of the look at the test images, of one seed: attacked, clean, and some at each strength."""
    attacked = images + len(EPSILONS) * curve_images(config.projector, images)
    bounds = bounds_of_one(config)
    projected = bounds.restarts[0] * bounds.steps[0] * rates.projection
    # each is classified behind the GAN and behind the U-Net; attacked ones also undefended, thresholded, as originals
    defended = projected + FORWARD * (rates.unet + 2 * rates.classifier)
    return (images + attacked) * defended + attacked * (1 + 3 * FORWARD) * rates.classifier


def _training(training: Training, units: int, seconds: float) -> float:
    training.run_epoch()  # the first one also fills caches
    training.epoch += 1
    return _repeated(lambda: training.run_epoch(), units, seconds)


def _encoder(gan: GanConfig, images: Tensor, device: torch.device, batches: int) -> EncoderTraining:
    channels, height, width = images.shape[1:]
    return EncoderTraining(
        Generator(gan.latent_dim, gan.width, (channels, height, width)),
        images,
        width=gan.encoder_width,
        steps=10**9,
        steps_per_epoch=batches,
        levels=gan.encoder_levels,
        precision=gan.encoder_precision,
        device=device,
    )


def _projection(config: ExperimentConfig, data: Development, device: torch.device, seconds: float) -> float:
    runner = projector(config, data, device)
    restarts = runner.config.restarts
    images = data.train.images[: max(1, runner.chunk // restarts)]
    runner.trace(images, [PROJECTED])
    return _repeated(lambda: runner.trace(images, [PROJECTED]), len(images) * restarts * PROJECTED, seconds)


def _repeated(work: Callable[[], object], units: int, seconds: float) -> float:
    """Seconds per unit of something that is done again and again for `seconds`."""
    began, times = time.perf_counter(), 0
    while times == 0 or time.perf_counter() - began < seconds:
        work()
        times += 1
    return (time.perf_counter() - began) / (times * units)


def _first(split: DataSplit, images: int) -> DataSplit:
    return split.subset(min(images, len(split)))


Work = Callable[[int, ExperimentConfig, Bounds, Development, Rates], float]


def _classifier(images: int, config: ExperimentConfig, bounds: Bounds, data: Development, rates: Rates) -> float:
    return config.classifier.epochs * images * rates.classifier


def _gan(images: int, config: ExperimentConfig, bounds: Bounds, data: Development, rates: Rates) -> float:
    if config.gan.pretrained:
        return 0.0
    epochs = -(-config.gan.steps // config.gan.steps_per_epoch)
    judged = min(PROBE_IMAGES, len(data.validation)) if data.validation is not None else 0
    probes = epochs * judged * PROBE.restarts * PROBE.steps
    return (
        config.gan.steps * rates.gan
        + config.gan.encoder_steps * rates.encoder
        + probes * rates.projection
    )


def _attack(images: int, config: ExperimentConfig, bounds: Bounds, data: Development, rates: Rates) -> float:
    return images * rates.classifier


def _project(images: int, config: ExperimentConfig, bounds: Bounds, data: Development, rates: Rates) -> float:
    return images * max(bounds.restarts) * max(bounds.steps) * rates.projection


def _unet(images: int, config: ExperimentConfig, bounds: Bounds, data: Development, rates: Rates) -> float:
    measured = len(data.validation) if data.validation is not None else 0
    return config.unet.epochs * (images + 2 * FORWARD * measured) * rates.unet


def _score_gan(images: int, config: ExperimentConfig, bounds: Bounds, data: Development, rates: Rates) -> float:
    return images * PROBE.restarts * PROBE.steps * rates.projection


def _nothing(images: int, config: ExperimentConfig, bounds: Bounds, data: Development, rates: Rates) -> float:
    return 0.0


_WORK: Mapping[str, Work] = {
    "classifier": _classifier,
    "gan": _gan,
    "attack": _attack,
    "attack_train": _attack,
    "projection": _project,
    "projection_clean": _project,
    "projection_train": _project,
    "unet": _unet,
    "score_gan": _score_gan,
}
