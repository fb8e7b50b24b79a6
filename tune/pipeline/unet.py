"""The stages of the U-Net: training, and the score of the whole defense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from components.attacks.adaptive import evaluate_defense
from components.attacks.adaptive import sampled as attack_sample
from components.classifiers.base import ImageClassifier
from components.defense import Defense, in_batches
from components.files import read_json
from components.metrics import agreement
from components.purifiers import NoGradient
from components.training import drawn_from, freeze
from components.unet.network import UNet, join
from components.unet.training import UNetTraining
from components.weights import load_weights
from tune.metrics import images_measured
from tune.pipeline import adaptive
from tune.pipeline.attack import attacked_of, images_of, split_of
from tune.pipeline.classifier import classifier_of, new_classifier
from tune.pipeline.job import RIGHT, Job, Progress, Row
from tune.pipeline.purifier import cost, purifier_of
from tune.pipeline.recipe import Recipe
from tune.pipeline.scoring import undefended
from tune.pipeline.stage import FORWARD, STAGES, Rates, Stage, Workload, training_workload, weights_bytes
from tune.space.config import ExperimentConfig

QUICK_LIST = 4  # raised by hand when the quick list of adaptive attacks finds other images than before
EXAMPLES = 10  # validation images that each trial shows in TensorBoard


class UNetStage(Stage):
    """Trains the U-Net on purified images, as the chosen settings of the purifier give them."""

    name = "unet"
    version = 3
    judged = True

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        config = recipe.config
        if config.unet.training == "adaptive":
            return {**config.unet.identity(), **adaptive.threat(config)}
        return {**config.unet.identity(), **purifier_of(config).settings(config)}

    def inputs(self, config: ExperimentConfig) -> tuple[str, ...]:
        purifier = purifier_of(config)
        if config.unet.training == "adaptive":
            return ("classifier", *purifier.sources)
        return ("classifier", *purifier.sources, "attack_train", purifier.training)

    def observed(self, config: ExperimentConfig) -> tuple[str, ...]:
        return ("attack",) if config.unet.training == "adaptive" else ("attack", purifier_of(config).validation)

    def images(self, recipe: Recipe) -> int:
        return images_of(recipe, "train")

    def bytes(self, recipe: Recipe) -> int:
        with torch.device("meta"):
            network = new_unet(recipe)
        if recipe.config.unet.training == "adaptive":
            return 8 * weights_bytes(network, *adaptive.new_networks(recipe))
        return 4 * weights_bytes(network)  # also the save of its training: weights and Adam's two moments

    def seconds(self, recipe: Recipe, rates: Rates) -> float:
        measured = images_of(recipe, "validation")
        config = recipe.config.unet
        trained = sum(config.images_of_epochs(self.images(recipe)))
        return (trained + config.epochs * 2 * FORWARD * measured) * rates["unet"].seconds

    def workloads(self, recipe: Recipe, device: torch.device, batches: int) -> Iterator[Workload]:
        config, train = recipe.config.unet, recipe.data.train
        batches = 1 if config.training == "adaptive" else batches  # whose every image takes many passes
        some = train.subset(min(batches * config.batch_size, len(train)))
        judge: ImageClassifier = freeze(new_classifier(recipe)).to(device)
        inputs = join(config.input, some.images, some.images)
        if config.training == "adaptive":
            sampled = adaptive.sampled(recipe, some, new_unet(recipe), judge, device)
            yield training_workload("unet", "adaptive training", "image", len(some), sampled)
            return
        endless = config.model_copy(update={"epochs": 10**6, "first_images": None})
        training = UNetTraining(endless, inputs, some.images, some.labels, judge, 0, device)
        yield training_workload("unet", "U-Net", "image", len(some), training)

    def build(self, job: Job) -> None:
        train, judge = split_of(job.recipe, "train"), classifier_of(job)
        if job.config.unet.training == "adaptive":
            with drawn_from(job.seed):
                network = new_unet(job.recipe)
            adaptive.build(job, train, network, judge)
            return
        inputs = _inputs(job, purifier_of(job.config).training, "attack_train")
        training = UNetTraining(job.config.unet, inputs, train.images, train.labels, judge, job.seed, job.device)
        measure = _nothing if job.data.validation is None else _measurement(job, training, judge)
        job.write_history(job.train(training, measure))
        job.write_weights("unet", training.unet)


ATTACK = "attack"  # the rate of the quick list of attacks by one who knows the defense
_SAMPLED = 20  # images of a sample of it; fewer where each takes many evaluations
RIGHT_FILE = "right.safetensors"  # which validation images come out right: trials are compared image by image


class ScoreUNet(Stage):
    """Judges the whole defense on the validation images."""

    name = "score_unet"

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        asked = {"robust_images": recipe.config.search.robust_images, "attacks": QUICK_LIST}
        asked = asked if _robust(recipe.config) else {}
        return {**purifier_of(recipe.config).settings(recipe.config), **asked}

    def inputs(self, config: ExperimentConfig) -> tuple[str, ...]:
        purifier = purifier_of(config)
        return ("classifier", *purifier.sources, "attack", purifier.validation, "unet")

    def seconds(self, recipe: Recipe, rates: Rates) -> float:
        if not _robust(recipe.config):
            return 0.0
        asked = recipe.config.search.robust_images
        return images_measured("robust", self.images(recipe), asked) * rates[ATTACK].seconds

    def workloads(self, recipe: Recipe, device: torch.device, batches: int) -> Iterator[Workload]:
        count = max(1, min(_SAMPLED, 3 * _SAMPLED // max(1, cost(recipe.config))))
        some = recipe.data.train.subset(count).to(device)
        defense = adaptive.sampled_defense(recipe, new_unet(recipe), new_classifier(recipe), device)
        run, share = attack_sample(defense, some.images, some.labels, recipe.config.attack.epsilon, "quick")

        def attack() -> None:
            with suppress(NoGradient):  # then there is no such attack
                run()

        yield Workload(ATTACK, "attack through the defense", "image", len(some) * share, attack)

    def build(self, job: Job) -> None:
        held, judge, purifier = job.data.held, classifier_of(job), purifier_of(job.config)
        attacked = attacked_of(job, "attack")
        if job.config.unet.training == "adaptive":  # its networks may not be those that the stage projected with
            generated = purifier.component(job).project(attacked).images
        else:
            generated = purifier.read(job, purifier.validation).images
        network = read_unet(job.folder("unet"), job.recipe).to(job.device)
        denoised = in_batches(network, join(network.input, generated, attacked), job.device)
        labels = judge.predict(denoised)
        shares, originals, noisy = undefended(judge, held, attacked)
        rows = (held.images, attacked, generated, denoised)
        examples = torch.stack([(images[:EXAMPLES] * 255).round().byte() for images in rows])
        save_file({"examples": examples}, job.draft.folder / "examples.safetensors")
        robust, stands = _attacked_through(job, network) if _robust(job.config) else ({}, {})
        save_file({"right": labels == held.labels, **stands}, job.draft.folder / RIGHT_FILE)
        job.draft.metrics.update(
            **shares,
            **robust,
            psd_gan=agreement(judge.predict(generated), held.labels),
            psd=agreement(labels, held.labels),
            pco=agreement(labels, originals),
            attacked_label=agreement(labels, noisy),
            validation_loss=float(read_json(job.folder("unet") / "history.json")[-1]["validation_loss"]),
            cost=cost(job.config),
        )


def _robust(config: ExperimentConfig) -> bool:
    return "robust" in config.search.objectives


def _attacked_through(job: Job, network: UNet) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The share of some validation images that an attacker who knows the defense leaves right, and which these are."""
    config, held = job.config, job.data.held
    some = held.sample(images_measured("robust", len(held), config.search.robust_images), seed=0)
    defense = Defense(purifier_of(config).component(job), network, classifier_of(job))
    job.report(Progress("an attacker who knows the defense", 0, 0))
    found = evaluate_defense(
        defense, some.images, some.labels, epsilon=config.attack.epsilon, preset="quick", curves=False
    )
    return {"robust": found.worst}, {"stands": found.stands}


STAGES.register("unet")(UNetStage())
STAGES.register("score_unet")(ScoreUNet())


def new_unet(recipe: Recipe) -> UNet:
    """The U-Net of a configuration, untrained."""
    config = recipe.config.unet
    return UNet(recipe.data.image_shape[0], config.width, config.depth, config.input)


def read_unet(folder: Path, recipe: Recipe) -> UNet:
    """The U-Net from its artifact, frozen."""
    network = new_unet(recipe)
    load_weights(network, folder / "unet.safetensors")
    return freeze(network)


def _inputs(job: Job, purified: str, attacked: str) -> Tensor:
    """The images that the U-Net reads, from a stage of the purifier and the attack before it."""
    generated = purifier_of(job.config).read(job, purified).images
    return join(job.config.unet.input, generated, attacked_of(job, attacked))


def _measurement(job: Job, training: UNetTraining, judge: ImageClassifier) -> Callable[[], Row]:
    """The validation scores of a U-Net in training."""
    held = job.data.held
    inputs = _inputs(job, purifier_of(job.config).validation, "attack")
    originals, wanted = judge.predict(held.images), training.features_of(held.images)

    def measure() -> Row:
        loss, labels = training.validate(inputs, held.images, held.labels, wanted)
        return {
            "psd": agreement(labels, held.labels),
            "pco": agreement(labels, originals),
            "validation_loss": loss,
            RIGHT: f"{int(''.join(map(str, (labels == held.labels).int().tolist())), 2):x}",
        }

    return measure


def _nothing() -> Row:
    return {}
