"""The static reference: a copy of the classifier learns to stand, behind the grey levels, and nothing else moves."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from components.adversarial_training import AdversarialConfig
from components.attacks.adaptive import evaluate_defense
from components.classifiers.base import ClassifierError
from components.classifiers.victim import Victim
from components.datasets.dataset import DataSplit
from components.defense import Defense
from components.static_reference import StaticTraining, static_reference
from components.training import freeze
from tests.components.attacks.test_adaptive import digits
from tests.tiny_networks import defense_of


def test_the_classifier_itself_learns_to_stand() -> None:
    defense: Defense = defense_of(init="encoder", levels=2, restarts=1).float()
    train, (images, labels) = DataSplit(*digits(300)), digits(60, seed=1)
    before, said = copy.deepcopy(defense.state_dict()), list[str]()
    settings = {"epochs": 12, "batch_size": 32, "first_steps": 1, "steps": 3, "learning_rate": 0.005, "levels": None}
    config = AdversarialConfig.model_validate(settings)
    trained = static_reference(defense, train, config, 0, said.append)
    assert len(said) == 12
    assert said[-1].startswith("epoch 12 of 12: ")
    for name, weights in defense.state_dict().items():
        assert torch.equal(weights, before[name]), name
    assert not trained.classifier.training
    assert not any(weights.requires_grad for weights in trained.classifier.parameters())

    def left(model: Defense) -> float:
        return evaluate_defense(model, images, labels, preset="quick", stage="threshold", curves=False).worst

    assert left(trained) > left(defense) + 0.3


class Own(nn.Sequential):
    """A user's network, of which the first layer is frozen."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 6).requires_grad_(False), nn.ReLU(), nn.Linear(6, 4))


class Two(Own):
    """One that gives more than logits while it trains."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


def test_what_its_author_froze_stays_as_it_is() -> None:
    classifier, config = freeze(Victim(Own(), (1, 8, 8), 4)), AdversarialConfig(epochs=1, batch_size=16)
    training = StaticTraining(config, classifier, *digits(32))
    training.run()
    changed = {
        name
        for name, weights in training.averaged.state_dict().items()
        if not torch.equal(weights, classifier.state_dict()[name])
    }
    assert changed == {"module.3.weight", "module.3.bias"}


def test_a_classifier_that_gives_more_in_training_is_refused() -> None:
    whole = defense_of(init="encoder", levels=2, restarts=1)
    defense = Defense(whole.projector, whole.unet, Victim(Two(), (1, 8, 8), 4))
    with pytest.raises(ClassifierError, match=r"Two: expected logits .* in training mode too, found tuple"):
        static_reference(defense, DataSplit(*digits(32)), AdversarialConfig(epochs=1), 0, print)
