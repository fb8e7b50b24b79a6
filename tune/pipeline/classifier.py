"""The stage of the defended classifier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from components.attacks.losses import input_gradient, log_odds
from components.classifiers.base import ImageClassifier
from components.classifiers.catalogue import network_of
from components.classifiers.training import ClassifierTraining
from components.classifiers.weights import file_of, put_weights
from components.datasets.dataset import DataSplit
from components.training import freeze
from components.weights import load_weights
from tune.pipeline.job import Inputs, Job
from tune.pipeline.recipe import Recipe
from tune.pipeline.stage import STAGES, Rates, Stage, Workload, training_workload, weights_bytes
from tune.space.config import ExperimentConfig


class ClassifierStage(Stage):
    """Trains the network to defend, or takes the weights that it is given."""

    name = "classifier"

    def settings(self, recipe: Recipe) -> dict[str, object]:
        return recipe.config.classifier.identity()

    def shipped(self, config: ExperimentConfig) -> str | None:
        weights = config.classifier.weights
        return None if weights is None else file_of(weights).sha256

    def images(self, recipe: Recipe) -> int:
        return len(recipe.data.train)

    def bytes(self, recipe: Recipe) -> int:
        return weights_bytes(new_classifier(recipe))

    def seconds(self, recipe: Recipe, rates: Rates) -> float:
        epochs = 0 if recipe.config.classifier.weights else recipe.config.classifier.epochs
        return epochs * self.images(recipe) * rates["classifier"].seconds

    def workloads(self, recipe: Recipe, device: torch.device, batches: int) -> Iterator[Workload]:
        config, train = recipe.config.classifier, recipe.data.train
        some = train.subset(min(batches * config.batch_size, len(train)))
        if config.weights is not None:
            yield _attacked(freeze(new_classifier(recipe)).to(device), some, config.batch_size)
            return
        endless = config.model_copy(update={"epochs": 10**6})
        training = ClassifierTraining(endless, some, recipe.data.classes, 0, device)
        yield training_workload("classifier", "classifier", "image", len(some), training)

    def build(self, job: Job) -> None:
        config = job.config.classifier
        if config.weights is not None:
            given = new_classifier(job.recipe)
            put_weights(given.network, file_of(config.weights).read(), f"classifier.weights: {config.weights}")
            job.write_weights("classifier", given.network)
            return
        training = ClassifierTraining(config, job.data.train, job.data.classes, job.seed, job.device)
        job.write_history(job.train(training))
        job.write_weights("classifier", training.classifier.network)


STAGES.register("classifier")(ClassifierStage())


def _attacked(classifier: ImageClassifier, some: DataSplit, size: int) -> Workload:
    """Gradients in evaluation mode, which take about as long as steps of training."""
    device = next(classifier.parameters()).device

    def run() -> None:
        for images, labels in zip(some.images.split(size), some.labels.split(size), strict=True):
            input_gradient(classifier, images.to(device), labels.to(device), log_odds)

    return Workload("classifier", "classifier", "image", len(some), run)


def new_classifier(recipe: Recipe) -> ImageClassifier:
    """The classifier of a configuration, without its weights."""
    return network_of(recipe.config.classifier.architecture, recipe.data.image_shape, recipe.data.classes)


def classifier_of(inputs: Inputs) -> ImageClassifier:
    """The trained classifier, frozen, on the inputs' device."""
    return read_classifier(inputs.folder("classifier"), inputs.recipe).to(inputs.device)


def read_classifier(folder: Path, recipe: Recipe) -> ImageClassifier:
    """The classifier from its artifact, frozen."""
    classifier = new_classifier(recipe)
    load_weights(classifier.network, folder / "classifier.safetensors")
    return freeze(classifier)
