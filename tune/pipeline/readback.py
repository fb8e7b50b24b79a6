"""What stages made, read again by the stages after them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from components.classifiers.defense_gan import Classifier
from components.datasets.dataset import DataSplit
from components.defense import load_weights
from components.files import read_json
from components.gan.encoder import Encoder
from components.gan.networks import Discriminator, Generator
from components.projector.projector import Projection, ProjectionTrace, Projector
from components.training import freeze
from components.unet.network import UNet
from tune.pipeline.job import Development, Job
from tune.pipeline.traces import read_trace
from tune.space.config import ExperimentConfig


def training_images(config: ExperimentConfig, data: Development) -> int:
    """How many training images are attacked and projected, for the U-Net to learn from."""
    return min(config.unet.images or len(data.train), len(data.train))


def unet_images(config: ExperimentConfig, data: Development) -> DataSplit:
    """The training images that the U-Net learns from: all, or `unet.images` of them, each class in its proportion."""
    count = training_images(config, data)
    return data.train if count == len(data.train) else data.train.sample(count, seed=0)


def classifier_of(job: Job) -> Classifier:
    """The classifier, frozen, on the job's device."""
    (artifact,) = job.artifacts["classifier"]
    return read_classifier(artifact.folder, job.config, job.data).to(job.device)


def read_classifier(folder: Path, config: ExperimentConfig, data: Development) -> Classifier:
    """The classifier from its artifact, frozen."""
    network = Classifier(config.classifier.architecture, data.image_shape, data.classes)
    load_weights(network, folder / "classifier.safetensors")
    freeze(network)
    return network.to(memory_format=torch.channels_last)  # a tenth to a quarter faster on a CPU


def gan_of(job: Job) -> tuple[Generator, Discriminator, Encoder | None]:
    """Generator, discriminator and, where one was trained, encoder, frozen, on the job's device."""
    (artifact,) = job.artifacts["gan"]
    return read_gan(artifact.folder, job.device)


def read_gan(folder: Path, device: torch.device) -> tuple[Generator, Discriminator, Encoder | None]:
    """Generator, discriminator and, where there is one, encoder from a folder with `gan.json`, frozen."""
    facts = read_json(folder / "gan.json")
    generator = Generator(facts["latent_dim"], facts["width"], tuple(facts["image_shape"]))
    discriminator = Discriminator(facts["discriminator_width"], tuple(facts["image_shape"]))
    load_weights(generator, folder / "generator.safetensors")
    load_weights(discriminator, folder / "discriminator.safetensors")
    freeze(generator)
    freeze(discriminator)
    encoder = None
    if facts["encoder_width"]:
        encoder = Encoder(facts["latent_dim"], facts["encoder_width"], tuple(facts["image_shape"]))
        load_weights(encoder, folder / "encoder.safetensors")
        freeze(encoder).to(device)
    return generator.to(device), discriminator.to(device), encoder


def read_unet(folder: Path, config: ExperimentConfig, data: Development) -> UNet:
    """The U-Net from its artifact, frozen."""
    network = UNet(data.image_shape[0], config.unet.width, config.unet.depth, config.unet.input)
    load_weights(network, folder / "unet.safetensors")
    freeze(network)
    return network


def attacked_of(job: Job, stage: str) -> Tensor:
    """The images (N, C, H, W) that an attack stage made."""
    (artifact,) = job.artifacts[stage]
    return load_file(artifact.folder / "attacked.safetensors")["images"]


def traces_of(job: Job, stage: str) -> Iterator[ProjectionTrace]:
    """The trace of a projection stage, part by part: one part is in memory at a time, and of it what is read."""
    render = projector_of(job).render
    for artifact in job.artifacts[stage]:
        yield read_trace(artifact.folder, render)


def chosen(job: Job, stage: str) -> Projection:
    """What the configured restarts and steps give, read from the trace."""
    wanted = job.config.projector.restarts, job.config.projector.steps
    return Projection.concatenate([trace.select(*wanted) for trace in traces_of(job, stage)])


def projector_of(job: Job) -> Projector:
    """The projector with the largest restarts and steps of the search."""
    generator, discriminator, encoder = gan_of(job)
    bounds = {"restarts": max(job.bounds.restarts), "steps": max(job.bounds.steps)}
    config = job.config.projector.model_copy(update=bounds)
    return Projector(
        generator, config, discriminator=discriminator, encoder=encoder, seed=job.seed, device=job.device
    )
