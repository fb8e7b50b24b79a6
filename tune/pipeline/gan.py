"""The stages of the GAN: training, with its encoder, and the score of a generator by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from components.classifiers.base import ImageClassifier
from components.draws import chance_of, normal
from components.gan.config import GanConfig
from components.gan.encoder_training import EncoderTraining
from components.gan.networks import Discriminator, Generator
from components.gan.pair import Pair
from components.gan.training import GanTraining
from components.metrics import agreement, frechet_distance
from components.pretrained import pair_files, shipped_identity
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from tune.pipeline.classifier import classifier_of
from tune.pipeline.job import Inputs, Job
from tune.pipeline.recipe import Recipe
from tune.pipeline.stage import STAGES, Rates, Stage, Workload, training_workload, weights_bytes
from tune.space.config import ExperimentConfig

# A generator is judged while it trains by the images that a small projector makes of clean ones.
PROBE = ProjectorConfig(restarts=2, steps=20, distance="l2", bank_size=2048)
PROBE_IMAGES = 300
FRECHET_IMAGES = 2000
SHIPPED_VERSION = 2


class GanStage(Stage):
    """Trains generator and discriminator, and then an encoder with the generator; or takes a shipped pair."""

    name = "gan"
    version = 3

    def facts(self, recipe: Recipe, inputs: Mapping[str, str]) -> dict[str, Any]:
        """As of any stage; but a shipped pair, which no training here makes, keeps the version of the first release."""
        facts = super().facts(recipe, inputs)
        return {**facts, "version": SHIPPED_VERSION} if self.shipped(recipe.config) else facts

    def settings(self, recipe: Recipe) -> dict[str, object]:
        return recipe.config.gan.identity()

    def observed(self, config: ExperimentConfig) -> tuple[str, ...]:
        return ("classifier",)

    def shipped(self, config: ExperimentConfig) -> str | None:
        return shipped_identity(config.gan.pretrained) if config.gan.pretrained else None

    def images(self, recipe: Recipe) -> int:
        return len(recipe.data.train)

    def bytes(self, recipe: Recipe) -> int:
        config, shape = recipe.config.gan, recipe.data.image_shape
        with torch.device("meta"):
            generator = Generator(config.latent_dim, config.width, shape)
            return weights_bytes(generator, Discriminator(config.discriminator_width, shape))

    def seconds(self, recipe: Recipe, rates: Rates) -> float:
        config, data = recipe.config.gan, recipe.data
        if config.pretrained:
            return 0.0
        epochs = -(-config.steps // config.steps_per_epoch)
        judged = min(PROBE_IMAGES, len(data.validation)) if data.validation is not None else 0
        total = config.steps * rates["gan"].seconds + probe_seconds(epochs * judged, rates)
        return total + (config.encoder_steps * rates["encoder"].seconds if config.encoder_steps else 0.0)

    def workloads(self, recipe: Recipe, device: torch.device, batches: int) -> Iterator[Workload]:
        config, images = recipe.config.gan, recipe.data.train.images[:2000]
        if config.pretrained:
            return
        endless = config.model_copy(update={"steps": 10**9, "encoder_steps": 10**9, "steps_per_epoch": batches})
        yield training_workload("gan", "GAN", "step", batches, GanTraining(endless, images, 0, device))
        if config.encoder_steps:
            channels, height, width = recipe.data.image_shape
            generator = Generator(config.latent_dim, config.width, (channels, height, width))
            training = _encoder_training(endless, generator, images, 0, device)
            yield training_workload("encoder", "encoder", "step", batches, training)

    def build(self, job: Job) -> None:
        config = job.config.gan
        if config.pretrained:
            for path in pair_files(config.pretrained):
                (job.draft.folder / path.name).write_bytes(path.read_bytes())
            return
        training = GanTraining(config, job.data.train.images, job.seed, job.device)
        job.write_history(job.train(training, lambda: judge_generator(job, training.generator, PROBE_IMAGES)))
        generator, encoder = training.generator, None
        if config.encoder_steps:
            encoding = _encoder_training(config, generator, job.data.train.images, job.seed, job.device)
            job.train(encoding, name="encoder")
            generator, encoder = encoding.generator, encoding.encoder
        Pair(generator, training.discriminator, encoder).save(job.draft.folder)


class ScoreGan(Stage):
    """Judges a generator on all validation images."""

    name = "score_gan"

    def inputs(self, config: ExperimentConfig) -> tuple[str, ...]:
        return ("classifier", "gan")

    def seconds(self, recipe: Recipe, rates: Rates) -> float:
        return probe_seconds(self.images(recipe), rates)

    def build(self, job: Job) -> None:
        judge, generator, held = classifier_of(job), gan_of(job).generator, job.data.held
        pso = agreement(judge.predict(held.images), held.labels)
        job.draft.metrics.update(judge_generator(job, generator, len(held)), pso=pso)


STAGES.register("gan")(GanStage())
STAGES.register("score_gan")(ScoreGan())


def gan_of(inputs: Inputs) -> Pair:
    """Generator, discriminator and, where one was trained, encoder, frozen, on the inputs' device."""
    return Pair.load(inputs.folder("gan"), inputs.device)


def probe_seconds(images: int, rates: Rates) -> float:
    """Computing time of judging a generator by so many images."""
    return images * PROBE.restarts * PROBE.steps * rates["projection"].seconds


def judge_generator(job: Job, generator: Generator, count: int) -> dict[str, float]:
    """Scores of a generator: clean images through a small projector, and the features of its samples."""
    if job.data.validation is None:
        return {}
    judge, held = classifier_of(job), job.data.validation
    some = held.sample(min(count, len(held)), seed=0)
    projector = Projector(generator, PROBE, seed=0, device=job.device)
    images = projector.project(some.images).images
    real = held.images[:FRECHET_IMAGES]
    latents = normal((len(real), generator.latent_dim), chance_of(0))
    features = [_features(judge, part, job.device) for part in (projector.render(latents), real)]
    return {
        "clean_gan": agreement(judge.predict(images), some.labels),
        "reconstruction": float((images - some.images).square().mean()),
        "frechet": frechet_distance(*features),
    }


@torch.no_grad()
def _features(judge: ImageClassifier, images: Tensor, device: torch.device) -> Tensor:
    return torch.cat([judge.features(part.to(device)).flatten(1).cpu() for part in images.split(250)])


def _encoder_training(
    config: GanConfig, generator: Generator, images: Tensor, seed: int, device: torch.device
) -> EncoderTraining:
    return EncoderTraining(
        generator,
        images,
        width=config.encoder_width,
        steps=config.encoder_steps,
        steps_per_epoch=config.steps_per_epoch,
        levels=config.encoder_levels,
        precision=config.encoder_precision,
        seed=seed,
        device=device,
    )
