"""Adversarial training: it resumes to the same weights, moves what it may move, and attacks within the ball."""

import copy

import pytest
import torch
from torch import Tensor

from components.adversarial_training import AdversarialConfig, AdversarialTraining, augmented
from components.defense import Defense
from tests.tiny import tiny_split
from tests.tiny_networks import defense_of


def training_of(**settings: object) -> AdversarialTraining:
    defense: Defense = defense_of(init="encoder", levels=2)
    raw = tiny_split(40)
    images, labels = torch.from_numpy(raw.images).float() / 255, torch.from_numpy(raw.labels).long()
    fields = {"epochs": 3, "batch_size": 16, "steps": 2, "learning_rate": 0.01, **settings}
    assert defense.generator is not None
    assert defense.encoder is not None
    config = AdversarialConfig.model_validate(fields)
    return AdversarialTraining(
        config, defense.generator, defense.encoder, defense.unet, defense.classifier, images, labels
    )


def weights(training: AdversarialTraining) -> dict[str, Tensor]:
    return copy.deepcopy(training.averaged.state_dict())


def test_a_training_that_was_stopped_ends_in_the_same_weights() -> None:
    whole = training_of(augment=0.5)
    whole.run()
    first = training_of(augment=0.5)
    next(iter(first))
    second = training_of(augment=0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run()
    assert second.epoch == 3
    for name, tensor in weights(second).items():
        assert torch.equal(tensor, weights(whole)[name]), name


@pytest.mark.parametrize("learning", ["all", "unet", "encoder+unet", "generator"])
def test_only_what_may_learn_moves(learning: str) -> None:
    training = training_of(learning=learning, average=0.0)
    before = weights(training)
    training.run()
    after = weights(training)
    parts = ("generator", "encoder", "unet") if learning == "all" else learning.split("+")
    for part in ("generator", "encoder", "unet"):
        moved = any(not torch.equal(before[name], after[name]) for name in before if name.startswith(part))
        assert moved == (part in parts), part


@pytest.mark.parametrize("levels", [2, 3, 4, None])
def test_its_attacks_stay_in_the_ball_and_hurt(levels: int | None) -> None:
    training = training_of(levels=levels, first_steps=3, steps=3, threshold=0.305 if levels and levels > 2 else None)
    attacked = training._attacked(training.images, training.labels)
    assert float((attacked - training.images).abs().max()) <= 0.3 + 1e-6
    assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1
    losses = [
        torch.nn.functional.cross_entropy(training._through(images)[0], training.labels)
        for images in (training.images, attacked)
    ]
    assert losses[1] > losses[0]


def test_steps_grow_from_the_first_epoch_to_the_last() -> None:
    training = training_of(epochs=5, first_steps=1, steps=9)
    counts = []
    for epoch in range(5):
        training.epoch = epoch
        counts.append(training.attack_steps())
    assert counts == [1, 3, 5, 7, 9]


def test_augmented_images_are_images() -> None:
    images = torch.rand(4, 1, 8, 8)
    assert augmented(images, 0) is images
    made = augmented(images, 1.0)
    assert made.shape == images.shape
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert not torch.equal(made, images)


def test_its_loss_is_the_mean_of_the_images_that_were_trained_on() -> None:
    """A last group of one is left out: of 25 images in batches of 24 that are 24."""
    whole, rest = (training_of(epochs=1, batch_size=24, attacked=0.0) for _ in range(2))
    for training, count in ((whole, 24), (rest, 25)):
        training.images = training.images[:1].repeat(count, 1, 1, 1)
        training.labels = training.labels[:1].repeat(count)
    losses = [float(training.run()["loss"]) for training in (whole, rest)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
