"""How each stage of `tune.pipeline.stages` is built."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.attacks.fgsm import attack
from components.classifiers.defense_gan import Classifier, ClassifierTraining
from components.datasets.dataset import DataSplit
from components.defense import in_batches
from components.files import read_json, write_json
from components.gan.config import GanConfig
from components.gan.encoder_training import EncoderTraining
from components.gan.networks import Generator
from components.gan.training import GanTraining
from components.metrics import agreement, frechet_distance, threshold
from components.precision import Precision, resolved
from components.pretrained import pair_files, shipped_identity
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from components.unet.network import join
from components.unet.training import UNetTraining
from tune.pipeline.job import Job, Progress, Row, no_measurement, to_cpu
from tune.pipeline.readback import (
    attacked_of,
    chosen,
    classifier_of,
    gan_of,
    projector_of,
    read_unet,
    traces_of,
    unet_images,
)
from tune.pipeline.traces import read_trace, write_trace
from tune.space.config import ExperimentConfig

# How a generator is judged while it trains: by what a small projector makes of clean images.
PROBE = ProjectorConfig(restarts=2, steps=20, distance="l2", bank_size=2048)
PROBE_IMAGES = 300
FRECHET_IMAGES = 2000
EXAMPLES = 10  # validation images that each trial shows in TensorBoard


def classifier(job: Job) -> None:
    """Trains the network to defend."""
    training = ClassifierTraining(
        job.config.classifier, job.data.train, job.data.classes, job.seed, job.device
    )
    _write_history(job, job.train(training, no_measurement))
    _write_weights(job, "classifier", training.classifier)


def gan(job: Job) -> None:
    """Trains generator and discriminator, or takes a shipped pair."""
    config = job.config.gan
    if config.pretrained:
        for path in pair_files(config.pretrained):
            (job.draft.folder / path.name).write_bytes(path.read_bytes())
        return
    training = GanTraining(config, job.data.train.images, job.seed, job.device)
    _write_history(job, job.train(training, lambda: _judge(job, training.generator, PROBE_IMAGES)))
    generator = training.generator
    if config.encoder_steps:
        generator = _train_encoder(job, generator)
    _write_weights(job, "generator", generator)
    _write_weights(job, "discriminator", training.discriminator)
    shape = {
        "latent_dim": config.latent_dim,
        "width": config.width,
        "discriminator_width": config.discriminator_width,
        "encoder_width": config.encoder_width if config.encoder_steps else 0,
    }
    write_json(job.draft.folder / "gan.json", {**shape, "image_shape": list(job.data.image_shape)})


def _train_encoder(job: Job, generator: Generator) -> Generator:
    """Writes the encoder and returns the generator that learned beside it."""
    config = job.config.gan
    training = EncoderTraining(
        generator,
        job.data.train.images,
        width=config.encoder_width,
        steps=config.encoder_steps,
        steps_per_epoch=config.steps_per_epoch,
        levels=config.encoder_levels,
        precision=config.encoder_precision,
        seed=job.seed,
        device=job.device,
    )
    job.train(training, no_measurement, "encoder")
    _write_weights(job, "encoder", training.encoder)
    return training.generator


def shipped_gan(config: GanConfig) -> str | None:
    """What identifies the shipped pair that `config` asks for; None where it asks for training."""
    return shipped_identity(config.pretrained) if config.pretrained else None


def attack_validation(job: Job) -> None:
    """Attacks the validation images."""
    _attack(job, job.data.split("validation"))


def attack_train(job: Job) -> None:
    """Attacks those training images that the U-Net learns from."""
    _attack(job, unet_images(job.config, job.data))


def project(attacked: str) -> Callable[[Job], None]:
    """Projects a part of the images that the stage `attacked` made."""

    def build(job: Job) -> None:
        (artifact,) = job.artifacts[attacked]
        _project(job, load_file(artifact.folder / "attacked.safetensors")["images"])

    return build


def project_clean(job: Job) -> None:
    """Projects a part of the validation images as they are."""
    _project(job, job.data.split("validation").images)


def success_map(job: Job) -> None:
    """GAN-only PSD for every R and L that the trace holds."""
    judge, labels = classifier_of(job), job.data.split("validation").labels
    grid = [(r, step) for r in job.bounds.restarts for step in job.bounds.steps]
    hits, errors = dict.fromkeys(grid, 0), dict.fromkeys(job.bounds.steps, 0.0)
    seen = 0
    for trace in traces_of(job, "projection"):
        truth = labels[seen : seen + len(trace)]
        seen += len(trace)
        # each latent is classified once, however many (R, L) it wins
        predicted = torch.cat([judge.predict(trace.render(part)) for part in trace.latents.split(5000)])
        for r, step in grid:
            hits[r, step] += int((predicted[trace.winners(r, step)] == truth).sum())
        for step in errors:
            errors[step] += float(trace.errors[trace.winners(max(job.bounds.restarts), step)].double().sum())
    job.draft.metrics.update(
        restarts=list(job.bounds.restarts),
        steps=list(job.bounds.steps),
        error=[errors[step] / len(labels) for step in job.bounds.steps],
        psd_gan=[[hits[r, step] / len(labels) for step in job.bounds.steps] for r in job.bounds.restarts],
    )


def unet(job: Job) -> None:
    """Trains the U-Net on the projections that the chosen R and L give."""
    train = unet_images(job.config, job.data)
    judge = classifier_of(job)
    inputs = join(job.config.unet.input, chosen(job, "projection_train").images, attacked_of(job, "attack_train"))
    training = UNetTraining(
        job.config.unet, inputs, train.images, train.labels, judge, job.seed, job.device
    )
    if job.data.validation is None:
        measure: Callable[[], Row] = no_measurement
    else:
        held = job.data.validation
        held_inputs = join(job.config.unet.input, chosen(job, "projection").images, attacked_of(job, "attack"))
        originals = judge.predict(held.images)

        def measure() -> Row:
            denoised = in_batches(training.unet, held_inputs, job.device)
            labels = judge.predict(denoised)
            return {
                "psd": agreement(labels, held.labels),
                "pco": agreement(labels, originals),
                "validation_loss": training.validation_loss(held_inputs, held.images, held.labels),
            }

    _write_history(job, job.train(training, measure))
    _write_weights(job, "unet", training.unet)


def score_gan(job: Job) -> None:
    """Judges a generator on all validation images."""
    judge, (generator, *_) = classifier_of(job), gan_of(job)
    held = job.data.split("validation")
    job.draft.metrics.update(
        _judge(job, generator, len(held)), pso=agreement(judge.predict(held.images), held.labels)
    )


def score_projection(job: Job) -> None:
    """Judges the projector alone on the validation images."""
    held, judge = job.data.split("validation"), classifier_of(job)
    attacked, clean = chosen(job, "projection"), chosen(job, "projection_clean")
    undefended, _, _ = _undefended(judge, held, attacked_of(job, "attack"))
    job.draft.metrics.update(
        **undefended,
        psd_gan=agreement(judge.predict(attacked.images), held.labels),
        clean_gan=agreement(judge.predict(clean.images), held.labels),
        error=float(attacked.errors.mean()),
        cost=cost(job.config),
    )


def score_unet(job: Job) -> None:
    """Judges the whole defense on the validation images."""
    held, judge = job.data.split("validation"), classifier_of(job)
    generated = chosen(job, "projection").images
    (artifact,) = job.artifacts["unet"]
    network = read_unet(artifact.folder, job.config, job.data).to(job.device)
    attacked = attacked_of(job, "attack")
    denoised = in_batches(network, join(network.input, generated, attacked), job.device)
    labels = judge.predict(denoised)
    undefended, originals, noisy = _undefended(judge, held, attacked)
    rows = (held.images, attacked, generated, denoised)
    examples = torch.stack([(images[:EXAMPLES] * 255).round().byte() for images in rows])
    save_file({"examples": examples}, job.draft.folder / "examples.safetensors")
    job.draft.metrics.update(
        **undefended,
        psd_gan=agreement(judge.predict(generated), held.labels),
        psd=agreement(labels, held.labels),
        pco=agreement(labels, originals),
        attacked_label=agreement(labels, noisy),
        validation_loss=float(read_json(artifact.folder / "history.json")[-1]["validation_loss"]),
        cost=cost(job.config),
    )


def cost(config: ExperimentConfig) -> int:
    """Generator gradient evaluations per image."""
    return config.projector.restarts * config.projector.steps


def _attack(job: Job, split: DataSplit) -> None:
    images = attack(job.config.attack, classifier_of(job), split.images, split.labels)
    save_file({"images": images}, job.draft.folder / "attacked.safetensors")


def _project(job: Job, images: Tensor) -> None:
    from tune.pipeline.stages import PART  # the table of stages imports this module

    images = images[job.part * PART : (job.part + 1) * PART]
    projector = projector_of(job)
    projector.warm_up()
    began = time.perf_counter()

    def progress(done: int) -> None:
        job.report(Progress(job.stage, done, len(images)))

    saved = 0
    if job.smaller is None:
        trace = projector.trace(images, job.bounds.steps, progress)
    else:
        held = read_trace(job.smaller.folder, projector.render, standing=True)
        trace = projector.extend(held, images, job.bounds.steps, progress)
        saved = held.restarts * int(held.steps[-1])
    seconds = time.perf_counter() - began
    write_trace(trace, job.draft.folder)
    evaluations = len(images) * (projector.config.restarts * projector.config.steps - saved)
    job.draft.metrics.update(
        images=len(images), evaluations=evaluations, evaluations_per_second=evaluations / seconds
    )


def _undefended(judge: Classifier, held: DataSplit, attacked: Tensor) -> tuple[dict[str, float], Tensor, Tensor]:
    """What the classifier makes of originals and attacked images by itself: shares, and its labels of both."""
    originals, noisy = judge.predict(held.images), judge.predict(attacked)
    shares = {
        "pso": agreement(originals, held.labels),
        "noisy": agreement(noisy, held.labels),
        "threshold": agreement(judge.predict(threshold(attacked)), held.labels),
    }
    return shares, originals, noisy


def _judge(job: Job, generator: Generator, count: int) -> dict[str, float]:
    """What says whether a generator serves: clean images through a small projector, and the features of its samples."""
    if job.data.validation is None:
        return {}
    judge, held = classifier_of(job), job.data.validation
    held = held.sample(min(count, len(held)), seed=0)
    projector = Projector(generator, PROBE, seed=0, device=job.device)
    images = projector.project(held.images).images
    real = job.data.validation.images[:FRECHET_IMAGES]
    latents = torch.randn(len(real), generator.latent_dim, generator=torch.Generator().manual_seed(0))
    features = [_features(judge, part, job.device) for part in (projector.render(latents), real)]
    return {
        "clean_gan": agreement(judge.predict(images), held.labels),
        "reconstruction": float((images - held.images).square().mean()),
        "frechet": frechet_distance(*features),
    }


@torch.no_grad()
def _features(judge: Classifier, images: Tensor, device: torch.device) -> Tensor:
    return torch.cat([judge.features(part.to(device)).flatten(1).cpu() for part in images.split(250)])


def _write_history(job: Job, history: list[Row]) -> None:
    write_json(job.draft.folder / "history.json", history)
    job.draft.metrics.update(history[-1])


def _write_weights(job: Job, name: str, module: torch.nn.Module) -> None:
    save_file(to_cpu(module.state_dict()), job.draft.folder / f"{name}.safetensors")


def stage_description(job: Job) -> dict[str, Any]:
    """What the manifest says about how an artifact was made."""
    config = job.config
    asked: dict[str, Precision] = {
        "classifier": config.classifier.precision,
        "encoder": config.gan.encoder_precision,
        "projector": config.projector.precision,
        "unet": config.unet.precision,
    }
    used = {name: resolved(precision, job.device) for name, precision in asked.items()}
    return {
        "part": job.part,
        "seed": job.seed,
        "config": config.model_dump(exclude={"search"}),
        "precision": {"device": job.device.type, **used},
    }
