"""The stage of the defended classifier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from components.classifiers.defense_gan import Classifier, ClassifierTraining
from components.defense import load_weights
from components.training import freeze
from tune.pipeline.job import Inputs, Job
from tune.pipeline.recipe import Recipe
from tune.pipeline.stage import STAGES, Rates, Stage, Workload, training_workload, weights_bytes


class ClassifierStage(Stage):
    """Trains the network to defend."""

    name = "classifier"

    def settings(self, recipe: Recipe) -> dict[str, object]:
        return recipe.config.classifier.identity()

    def images(self, recipe: Recipe) -> int:
        return len(recipe.data.train)

    def bytes(self, recipe: Recipe) -> int:
        return weights_bytes(new_classifier(recipe))

    def seconds(self, recipe: Recipe, rates: Rates) -> float:
        return recipe.config.classifier.epochs * self.images(recipe) * rates["classifier"].seconds

    def workloads(self, recipe: Recipe, device: torch.device, batches: int) -> Iterator[Workload]:
        config, train = recipe.config.classifier, recipe.data.train
        some = train.subset(min(batches * config.batch_size, len(train)))
        endless = config.model_copy(update={"epochs": 10**6})
        training = ClassifierTraining(endless, some, recipe.data.classes, 0, device)
        yield training_workload("classifier", "classifier", "image", len(some), training)

    def build(self, job: Job) -> None:
        training = ClassifierTraining(job.config.classifier, job.data.train, job.data.classes, job.seed, job.device)
        job.write_history(job.train(training))
        job.write_weights("classifier", training.classifier)


STAGES.register("classifier")(ClassifierStage())


def new_classifier(recipe: Recipe) -> Classifier:
    """The classifier of a configuration, untrained."""
    return Classifier(recipe.config.classifier.architecture, recipe.data.image_shape, recipe.data.classes)


def classifier_of(inputs: Inputs) -> Classifier:
    """The trained classifier, frozen, on the inputs' device."""
    return read_classifier(inputs.folder("classifier"), inputs.recipe).to(inputs.device)


def read_classifier(folder: Path, recipe: Recipe) -> Classifier:
    """The classifier from its artifact, frozen."""
    network = new_classifier(recipe)
    load_weights(network, folder / "classifier.safetensors")
    freeze(network)
    return network.to(memory_format=torch.channels_last)  # a tenth to a quarter faster on a CPU
