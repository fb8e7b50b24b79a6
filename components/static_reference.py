"""A static reference: no purifier, but the classifier itself trained against the attacker, behind the grey levels.

    x ── squeezed ──▶ C, trained on attacks through both

A purifier leaves the classifier as it is; whoever may change the classifier needs none. What the purifier is worth is
seen beside this, which costs one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from components.adversarial_training import AdversarialConfig, AttackedTraining
from components.classifiers.base import ImageClassifier
from components.classifiers.training import trainable
from components.datasets.dataset import DataSplit
from components.defense import Defense
from components.saves import TrainingFile
from components.squeezing import squeezed_with_gradient


class StaticTraining(AttackedTraining):
    """Trains a copy of a classifier, from its weights on, against attacks through the grey levels and itself."""

    def __init__(
        self,
        config: AdversarialConfig,
        classifier: ImageClassifier,
        images: Tensor,
        labels: Tensor,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, trainable(classifier), ("",), images, labels, seed, device)

    def _through(self, images: Tensor) -> tuple[Tensor]:
        return (self.learner(squeezed_with_gradient(images, self.config.levels, self.config.threshold)),)


def static_reference(
    defense: Defense,
    train: DataSplit,
    config: AdversarialConfig,
    seed: int,
    tell: Callable[[str], None],
    file: TrainingFile | None = None,
) -> Defense:
    """Trains the reference of a defense.

    Args:
        defense: whose classifier is trained further.
        train: training images.
        config: attacks and training; where it has no grey levels, two are taken.
        seed: of order and attacks.
        tell: told of each epoch.
        file: where the training is kept after each epoch, and gone on with.

    Returns:
        The same defense around the new classifier, to be attacked at the stage `threshold`, which is all it is for.

    Raises:
        ClassifierError: the classifier, of which only the weights were wanted, cannot be trained.
    """
    config = config.model_copy(update={"levels": config.levels or 2})
    device = defense.projector.device
    training = StaticTraining(config, defense.classifier, train.images, train.labels, seed, device)
    if file and file.go_on(training):
        tell(f"going on after epoch {training.epoch} of {training.epochs}, kept in {file.path}")
    for metrics in training:
        if file:
            _keep(training, file, tell)
        right = f"{100 * metrics['attacked_right']:.1f} % right of the attacked training images"
        tell(f"epoch {training.epoch} of {training.epochs}: {right}")
    classifier = training.averaged
    assert isinstance(classifier, ImageClassifier)
    return Defense(defense.projector, defense.unet, classifier, defense.discriminator)


def _keep(training: StaticTraining, file: TrainingFile, tell: Callable[[str], None]) -> None:
    try:
        file.write(training)
    except OSError as error:  # such as a full disk, which ends nothing
        tell(f"the epochs so far could not be kept: {file.path}: {error.strerror}")
