"""The training of a classifier on clean images."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from components.classifiers.base import ClassifierError, ImageClassifier
from components.classifiers.catalogue import CLASSIFIERS, network_of
from components.classifiers.config import ClassifierConfig
from components.classifiers.victim import probe
from components.datasets.dataset import DataSplit
from components.optimizer import Adam
from components.registry import raised
from components.training import Training, autocast, drawn_from


class ClassifierTraining(Training):
    """Adam with a one-cycle schedule on cross-entropy over clean images."""

    def __init__(
        self,
        config: ClassifierConfig,
        train: DataSplit,
        classes: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config.epochs, seed, device)
        self.precision = config.precision
        self.images, self.labels = train.images.to(device), train.labels.to(device)
        self.batch_size = min(config.batch_size, len(train.labels))
        with drawn_from(seed):
            self.classifier = network_of(config.architecture, train.images.shape[1:], classes).to(device)
        learning = [weights for weights in self.classifier.parameters() if weights.requires_grad]  # as its author set
        self.optimizer = Adam(learning, config.learning_rate)
        steps = config.epochs * -(-len(self.labels) // self.batch_size)
        self.schedule = OneCycleLR(self.optimizer, config.learning_rate, total_steps=steps + 1)

    def parts(self) -> Mapping[str, Any]:
        return {"classifier": self.classifier, "optimizer": self.optimizer, "schedule": self.schedule}

    def run_epoch(self) -> dict[str, float]:
        self.classifier.train()
        loss = self.descend(self._loss, self.optimizer, self.schedule, len(self.labels), self.batch_size)
        self.classifier.eval()
        return {"loss": loss}

    def _loss(self, index: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            return functional.cross_entropy(self.classifier(self.images[index]), self.labels[index])


def trainable(classifier: ImageClassifier) -> ImageClassifier:
    """A copy of a frozen classifier whose weights learn again, but for those that its author froze.

    Raises:
        ClassifierError: it cannot be trained, see `check_trainable`.
    """
    learner = copy.deepcopy(classifier).requires_grad_(True)
    for name, weights in learner.named_parameters():
        weights.requires_grad_(name not in classifier.fixed)
    check_trainable(learner)
    return learner


def check_trainable(classifier: ImageClassifier) -> None:
    """Checks that a classifier can be trained: it gives logits in training mode too, nothing else, as Inception does.

    Raises:
        ClassifierError: it does not.
    """
    named = CLASSIFIERS.described(classifier.architecture)
    expected = f"{named}: expected logits (N, {classifier.classes}) in training mode too"
    if not any(weights.requires_grad for weights in classifier.parameters()):
        remedy = "with classifier.weights there is no training"
        raise ClassifierError(f"{named}: expected weights that can be trained, found all of them frozen; {remedy}")
    try:
        copied = copy.deepcopy(classifier).train()
        images = probe(classifier.image_shape).to(next(copied.parameters()))
        with drawn_from(0), torch.no_grad():
            logits = copied(images)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise ClassifierError(f"{expected}, found {raised(error)}") from error
    if not isinstance(logits, Tensor) or logits.shape != (len(images), classifier.classes):
        found = str(tuple(logits.shape)) if isinstance(logits, Tensor) else type(logits).__name__
    elif not logits.isfinite().all():
        found = "NaN or infinity"
    else:
        return
    raise ClassifierError(f"{expected}, found {found}; with classifier.weights there is no training")
