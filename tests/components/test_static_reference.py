"""The static reference: a copy of the classifier learns to stand, behind the grey levels, and nothing else moves."""

from __future__ import annotations

import copy

import torch

from components.adversarial_training import AdversarialConfig
from components.attacks.adaptive import evaluate_defense
from components.datasets.dataset import DataSplit
from components.defense import Defense
from components.static_reference import static_reference
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
