"""The training of a classifier on clean images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from components.classifiers.catalogue import network_of
from components.classifiers.config import ClassifierConfig
from components.datasets.dataset import DataSplit
from components.optimizer import Adam
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
        self.classifier.to(memory_format=torch.channels_last)
        self.optimizer = Adam(self.classifier.parameters(), config.learning_rate)
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
